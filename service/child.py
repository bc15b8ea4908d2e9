"""One decoder process as its parent sees it: start, ask, kill."""

import asyncio
import json
import logging
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from pipeline import errors
from pipeline.credentials import Credentials, Trust
from pipeline.errors import FaceModelError, MediaError, UndecodableMedia
from pipeline.media import Limits
from pipeline.prepared import Outline
from service.decoder import CHECKED, FAILED, HEADER, LOOKED, OUTLINED, PREPARED, READY, REFUSED, TAKEN
from service.job import SLACK_BYTES, Counts, Job, Listener, Told
from service.sandbox import Confinement, NotConfined, Sandbox

START_S = 60.0
"""Seconds that a child may take to load its detector."""
MOST_OUTLINES = 4096
"""Of one clip: one each tenth of a second for as long as a decoder may be at work."""
MOST_CREDENTIALS_BYTES = 16 * 1024
PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TZ")
"""Of the environment, a decoder sees no more than this."""

Reason = Literal["crash", "cpu", "failure", "timeout", "cancelled", "recycled", "protocol", "start"]
"""Why a child ended."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """What every child is told at its start. scratch: the directory that all clips lie in; trust: how
    manifests are looked into."""

    face_detector: str
    face_model: str | None
    accept_license: bool
    memory_bytes: int
    limits: Limits
    scratch: str
    sandbox: Sandbox = "prefer"
    trust: Trust = field(default_factory=Trust)


class Crashed(Exception):
    """The child ended, or sent what no child should."""

    def __init__(self, why: str, reason: Reason = "protocol") -> None:
        super().__init__(why)
        self.reason = reason


class NotAtWork(Exception):
    """The child had ended before it was given the job."""


class _Pipes(asyncio.SubprocessProtocol):
    """Feeds a child's standard output to a reader, and knows when the process has ended.

    asyncio's own Process waits for its pipes as well, and a pipe that nobody reads never ends.
    """

    def __init__(self) -> None:
        self.answers = asyncio.StreamReader(limit=1024 * 1024)
        self.exited = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)  # noqa: S101 - asyncio's promise
        answers = transport.get_pipe_transport(1)
        assert isinstance(answers, asyncio.Transport | asyncio.ReadTransport)  # noqa: S101
        self.answers.set_transport(answers)

    def pipe_data_received(self, fd: int, data: bytes) -> None:  # noqa: ARG002 - there is one pipe to read
        self.answers.feed_data(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002
        if fd == 1:
            self.answers.feed_eof()

    def process_exited(self) -> None:
        self.exited.set()


class Child:
    """One process and the protocol with it."""

    def __init__(self, transport: asyncio.SubprocessTransport, pipes: _Pipes) -> None:
        self._transport, self._pipes = transport, pipes
        self._killed_for: Reason | None = None
        self.clips = 0
        self.confinement = Confinement((), {})

    @property
    def alive(self) -> bool:
        """Whether it runs and may be asked."""
        return not self._pipes.exited.is_set() and self._killed_for is None

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._transport.get_pid()

    @classmethod
    async def spawn(cls, config: DecoderConfig, command: Sequence[str]) -> "Child":
        """A child that is ready for jobs. Raises FaceModelError, NotConfined or Crashed."""
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        child = cls(
            *await asyncio.get_running_loop().subprocess_exec(
                _Pipes,
                *command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None,
                env=environment,
                start_new_session=True,
            )
        )
        try:
            async with asyncio.timeout(START_S):
                child._send(json.dumps({"parent": os.getpid(), **asdict(config)}).encode() + b"\n")
                kind, content = await child._receive(SLACK_BYTES)
        except BaseException as e:
            await child._give_up()
            if isinstance(e, TimeoutError):
                raise Crashed("a decoder does not start") from e
            raise
        if kind != READY:
            await child._give_up()
            raise FaceModelError(content.decode(errors="replace"))
        try:
            child.confinement = _confinement(content, config.sandbox)
        except BaseException:
            await child._give_up()
            raise
        return child

    async def ask(self, job: Job, listener: Listener) -> Outline:
        """The clip as it was seen in the end; `listener` is told all that comes before, and is waited for.

        Raises MediaError as the child says, Crashed, NotAtWork, or what the listener raises.
        """
        self._send(job.line())
        try:
            kind, _ = await self._receive(0)
        except Crashed as e:
            raise NotAtWork from e
        if kind != TAKEN:
            raise Crashed(f"the decoder takes no job but sends a frame of kind {kind!r}")
        counts: Counts = {}
        outlines = 0
        while True:
            kind, content = await self._receive(job.most_bytes)
            if kind not in {LOOKED, OUTLINED}:
                break
            outlines += kind == OUTLINED
            if outlines > (MOST_OUTLINES if job.outlines else 0):
                raise Crashed("the decoder sends outlines that nobody asked for")
            await listener(_parsed(job, kind, content, counts))
        self.clips += 1
        if kind == REFUSED:
            raise _refusal(content)
        if kind == FAILED:
            self.kill("failure")
            log.error("the decoder failed on a clip", extra={"traceback": content.decode(errors="replace")})
            raise UndecodableMedia("the decoder fails on this clip")
        if kind != PREPARED:
            raise Crashed(f"the decoder sends a frame of kind {kind!r}")
        outline = _parsed(job, kind, content, counts)
        assert isinstance(outline, Outline)  # noqa: S101 - its kind says so
        return outline

    async def credentials(self) -> Credentials:
        """Of the clip that was prepared last and carries a manifest. Raises Crashed."""
        kind, content = await self._receive(MOST_CREDENTIALS_BYTES)
        if kind != CHECKED:
            raise Crashed(f"the decoder sends a frame of kind {kind!r}")
        try:
            return Credentials.model_validate_json(content)
        except ValueError as e:
            raise Crashed("the decoder sends nonsense") from e

    def kill(self, reason: Reason) -> None:
        """End the process, whatever it does."""
        if self.alive:
            self._killed_for = reason
            self._transport.kill()

    async def ended(self) -> Reason:
        """Why the process ended, when it has."""
        await self._pipes.exited.wait()
        reason = self._killed_for or "crash"
        over_its_time = self._transport.get_returncode() == -signal.SIGXCPU
        return "cpu" if reason == "crash" and over_its_time else reason

    async def wait(self) -> Reason:
        """The same for the one who keeps the child, which is done with then."""
        try:
            return await self.ended()
        finally:
            self._transport.close()

    async def _give_up(self) -> None:
        self.kill("start")
        await self.wait()

    def _send(self, line: bytes) -> None:
        jobs = self._transport.get_pipe_transport(0)
        assert isinstance(jobs, asyncio.WriteTransport)  # noqa: S101 - a pipe was asked for
        jobs.write(line)

    async def _receive(self, most: int) -> tuple[bytes, bytes]:
        answers = self._pipes.answers
        try:
            kind, size = HEADER.unpack(await answers.readexactly(HEADER.size))
            if size > most:
                raise Crashed(f"the decoder announces {size} bytes")
            return kind, await answers.readexactly(size)
        except asyncio.IncompleteReadError as e:
            raise Crashed("the decoder crashed", "crash") from e


def _confinement(content: bytes, wanted: Sandbox) -> Confinement:
    """What a child that is ready says. Raises Crashed, or NotConfined when it is not what is required."""
    try:
        confinement = Confinement.from_bytes(content)
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise Crashed("the decoder sends nonsense") from e
    if wanted == "require" and "seccomp" not in confinement.had:
        why = confinement.lacking.get("seccomp", "no reason given")
        raise NotConfined(f"decoders can not be confined: {why}; DETECTOR_SANDBOX=prefer does without")
    return confinement


def _parsed(job: Job, kind: bytes, content: bytes, counts: Counts) -> Told:
    """What a frame tells, given the counts of all looks so far. Raises Crashed."""
    try:
        if kind == LOOKED:
            return job.looked(content, counts)
        return job.outlined(content, counts)
    except (ValueError, TypeError, OverflowError, struct.error) as e:
        raise Crashed(f"the decoder sends nonsense: {e}") from e


def _refusal(content: bytes) -> MediaError:
    """The error that a child names; a name that is none of ours is not trusted."""
    try:
        said = json.loads(content)
        kind = getattr(errors, said["error"], None)
        detail = str(said["detail"])
    except (ValueError, KeyError, TypeError) as e:
        raise Crashed("the decoder sends nonsense") from e
    if not (isinstance(kind, type) and issubclass(kind, MediaError)):
        raise Crashed("the decoder names an unknown error")
    return kind(detail)
