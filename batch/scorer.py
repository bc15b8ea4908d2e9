"""One loaded bundle and the decoders that feed it: the service without its web, for clips that lie on disk.

Decoding happens in the service's decoder processes, so that a clip which crashes or hangs one costs only
itself. Each clip is copied to the scratch directory first, which is all that a decoder can see.
"""

import asyncio
import hashlib
import os
import stat
import threading
import uuid
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from batch.clips import Clip
from batch.errors import BatchError, Interrupted
from batch.results import Line
from pipeline.answer import Answer
from pipeline.bundle import open_bundle
from pipeline.errors import MediaError
from service.batcher import ItemFailed
from service.canary import Canary
from service.judge import Judge, Question
from service.models import Bundles
from service.problems import (
    MalformedRequest,
    ServiceError,
    Unavailable,
    UploadTooLarge,
    problem_body,
    problem_of,
)
from service.sandbox import NotConfined
from service.scratch import clip_prefix, scratch
from service.settings import Settings
from service.state import Service
from service.upload import CHUNK_BYTES, Upload

T = TypeVar("T")

CLIPS_PER_DECODER = 4
"""Clips worked on at once: enough that sequences find company in the temporal graph."""
PATIENCE_S = 3600.0
"""For one clip. Nobody waits for its answer, and its decoder has a limit of its own."""


@dataclass(frozen=True, slots=True)
class Work:
    """How clips are scored. bundle: its directory; explain, timeline: as for POST /v1/detect."""

    settings: Settings
    bundle: Path
    explain: bool = False
    timeline: bool = True


class Unreadable(Exception):
    """A clip's file can not be read."""


class Scorer:
    """Scores clips from when it is made until it is closed, on a thread of its own.

    Raises BundleError, FaceModelError, or BatchError when decoders can not be confined as required.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._in_flight = min(work.settings.max_in_flight, CLIPS_PER_DECODER * work.settings.decoders)
        self._loop = asyncio.new_event_loop()
        self._stack = ExitStack()
        with self._stack:
            # Decoders die with the thread that has started them, so that it has to be one that stays.
            self._stack.callback(self._loop.close)
            thread = threading.Thread(target=self._loop.run_forever, name="scorer", daemon=True)
            thread.start()
            self._stack.callback(thread.join)
            self._stack.callback(self._loop.call_soon_threadsafe, self._loop.stop)
            self._stack.callback(lambda: self._run(self._loop.shutdown_default_executor()))
            folder = self._stack.enter_context(scratch(work.settings.scratch_dir))
            self._service = self._run(self._start(folder))
            self._stack.callback(lambda: self._run(self._service.stop()))
            self._stack = self._stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the decoders and empty the scratch directory."""
        self._stack.close()

    def score(self, clips: Sequence[Clip]) -> list[Line]:
        """A line for each clip, in order. Raises Interrupted, or OSError where scratch is full."""
        return self._run(self._score(clips))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def _start(self, folder: Path) -> Service:
        settings = self._work.settings
        bundle = open_bundle(self._work.bundle, allow_untrained=settings.allow_untrained)
        service = Service(settings, Bundles({bundle.manifest.id: bundle}, bundle.manifest.id), folder)
        try:
            await service.start()
            if settings.canary_every_s:
                await Canary(service).first()
        except BaseException as e:
            await service.stop()
            if isinstance(e, NotConfined):
                raise BatchError(str(e)) from e
            raise
        service.doubt = None
        return service

    async def _score(self, clips: Sequence[Clip]) -> list[Line]:
        places = asyncio.Semaphore(self._in_flight)

        async def line(clip: Clip) -> Line:
            async with places:
                return await self._line(clip)

        tasks = [asyncio.create_task(line(clip)) for clip in clips]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _line(self, clip: Clip) -> Line:
        if (why := self._service.not_ready()) is not None:
            raise Interrupted(why)
        try:
            return Line(clip, answer=await self._answer(clip))
        except Unavailable as e:
            raise Interrupted(str(e)) from e
        except (MediaError, ServiceError) as e:
            return _problem(clip, problem_of(e), str(e))
        except ItemFailed as e:
            return _problem(clip, "internal-error", str(e))
        except Unreadable as e:
            unreadable = {"type": "about:blank", "title": "The file can not be read", "detail": str(e)}
            return Line(clip, problem=unreadable)

    async def _answer(self, clip: Clip) -> Answer:
        service, begun = self._service, asyncio.get_running_loop().time()
        copy = service.scratch / f"{clip_prefix()}{uuid.uuid4().hex}"
        question = Question(
            service.model(None),
            service.settings.max_faces,
            self._work.explain,
            self._work.timeline,
            begun,
            begun + PATIENCE_S,
            partial=False,
        )
        try:
            upload = await asyncio.to_thread(_copy, clip, copy, service.settings.max_upload_bytes)
            return await Judge(service, upload, question).answer()
        finally:
            copy.unlink(missing_ok=True)


def _problem(clip: Clip, name: str, detail: str) -> Line:
    return Line(clip, problem=problem_body(name, detail).model_dump(exclude_none=True))


def _copy(clip: Clip, to: Path, max_bytes: int) -> Upload:
    """Copy and hash a clip. Raises MalformedRequest or UploadTooLarge as the service would, or Unreadable."""
    size, digest = 0, hashlib.sha256()
    with open(to, "xb", opener=partial(os.open, mode=0o600)) as copy:
        for piece in _pieces(Path(clip.file)):
            size += len(piece)
            if size > max_bytes:
                raise UploadTooLarge(f"the clip has more than {max_bytes:,} bytes")
            digest.update(piece)
            copy.write(piece)
    if size == 0:
        raise MalformedRequest("the clip has no bytes", problem="empty-body")
    return Upload(to, size, digest.digest())


def _pieces(path: Path) -> Iterator[bytes]:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise Unreadable("not a file")  # opening a pipe would wait for somebody to write into it
        with path.open("rb") as file:
            while piece := file.read(CHUNK_BYTES):
                yield piece
    except OSError as e:
        raise Unreadable(e.strerror or str(e)) from e
