"""Features of one request's samples, which are encoded while the clip is still being looked at."""

import asyncio

import numpy as np

from pipeline.frames import F32, U8
from pipeline.prepared import Cut, Outline, TrackOutline
from service.batcher import Batcher, Expired, Owner
from service.job import Looked
from service.tracing import Span, request_span

MOST_WAITING = 256
"""Samples of one request that wait for the encoder at most; then its decoder waits too."""


class Encoding:
    """Hands the samples of each look to the encoder at once, and keeps the features alone.

    deadline: in the event loop's time, when what has not been encoded is given up. kept_frames: the first so
    many of each sample are kept as well.
    """

    def __init__(self, encoder: Batcher[U8, F32], *, deadline: float, kept_frames: int = 0) -> None:
        self._encoder, self._deadline, self._kept_frames = encoder, deadline, kept_frames
        self._owner = Owner()
        self._span: Span | None = None
        """From the first sample on until all are encoded."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._features: dict[Cut, list[F32]] = {}
        self._samples: dict[Cut, U8] = {}
        self._waiting = 0
        self.queued_s = 0.0
        """Time before the encoder took the first sample; later ones wait for those of the same clip."""
        self.busy_s = 0.0
        """Time in which any samples waited or were encoded."""
        self._begun = 0.0

    async def add(self, looked: Looked) -> None:
        """Encode the samples of a look; returns when there is room for another one. Raises what a look
        that was added before has failed with."""
        count = looked.samples.shape[0] * looked.samples.shape[1]
        if self._span is None:
            self._span = self._owner.span = request_span.get().start("encode")
        if self._waiting == 0:
            self._begun = asyncio.get_running_loop().time()
        self._waiting += count
        self._tasks.add(asyncio.create_task(self._encode(looked, count)))
        while self._waiting > MOST_WAITING:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            self._collect()

    async def finish(self) -> None:
        """Wait for all that was added. Raises Expired, ItemFailed or BatcherDead."""
        with self._span or Span() as span:
            if self._tasks:
                await asyncio.wait(self._tasks)
            span.note(queue_wait_s=self.queued_s, busy_s=self.busy_s)
            self._collect()

    async def until(self, outline: Outline) -> None:
        """Wait until all that an outline names is encoded, or can not be any more."""
        while not self.holds(outline) and (pending := {t for t in self._tasks if not t.done()}):
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)

    def holds(self, outline: Outline) -> bool:
        """Whether all that an outline names is encoded."""
        return all(cut in self._features for t in outline.tracks for cut in t.cuts)

    def sequences(self, outline: Outline) -> list[F32]:
        """Features of each track, float32 [T, D]; all that the outline names must be encoded."""
        return [np.stack([f for cut in t.cuts for f in self._features[cut]]) for t in outline.tracks]

    def samples(self, track: TrackOutline) -> U8:
        """What was kept of the samples of a track, uint8 [T, F, S, S, 3]."""
        return np.concatenate([self._samples[cut] for cut in track.cuts])

    def stop(self) -> asyncio.Future[list[BaseException | None]]:
        """Give up what is not encoded yet; ends when all of it has left the queue."""
        for task in self._tasks:
            task.cancel()
        if self._span is not None:
            self._span.end()
        return asyncio.gather(*self._tasks, return_exceptions=True)

    async def _encode(self, looked: Looked, count: int) -> None:
        faces, each = looked.samples.shape[:2]
        samples = [sample for face in looked.samples for sample in face]
        try:
            outcome = await self._encoder.submit(samples, deadline=self._deadline, owner=self._owner)
        finally:
            self._waiting -= count
            if self._waiting == 0:
                self.busy_s += asyncio.get_running_loop().time() - self._begun
        if not self._features:
            self.queued_s = outcome.queued_s
        for k in range(faces):
            self._features[looked.number, k] = outcome.results[k * each : (k + 1) * each]
            if self._kept_frames:
                # A copy: a view would keep all of the look.
                self._samples[looked.number, k] = looked.samples[k, :, : self._kept_frames].copy()

    def _collect(self) -> None:
        """Forget the tasks that are done; raise the error of one that failed."""
        done = {task for task in self._tasks if task.done()}
        self._tasks -= done
        errors = [e for task in done if (e := task.exception()) is not None]
        for error in sorted(errors, key=lambda e: isinstance(e, Expired)):
            raise error
