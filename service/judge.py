"""A clip's way from a private file to its answer: look, encode while looking, score, decide."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from pipeline.answer import Answer
from pipeline.credentials import Credentials
from pipeline.explain import frames_needed, unexplained
from pipeline.prepared import Outline
from pipeline.scores import TrackScores
from pipeline.verdict import MIN_LOOKS, decide
from service.batcher import Batcher, BatcherDead, Expired, Owner
from service.encoding import Encoding
from service.explaining import explained
from service.graphs import samples_a_look
from service.job import Job, Looked, Told
from service.metrics import Cause, Stage
from service.models import Served
from service.problems import DeadlineExceeded, Unavailable
from service.state import Service
from service.tracing import Span, request_span
from service.upload import Upload

LEAST_RESERVE, MOST_RESERVE = 0.1, 0.5
"""Shares of a client's patience that are kept for what follows looking, at least and at most."""
RUNNING_EVERY_S = 0.5
"""Time between two verdicts of what was seen so far, at least: each scores all of it anew."""
EXPLAIN_MARGIN_S = 0.1
"""Time before a client's deadline when explaining ends, so that the answer is not late."""
MARGIN = 1.5
"""How much longer than expected scoring may take without being late."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a clip.

    begun, deadline: in the event loop's time. partial: answer by the deadline from what was seen until then,
    if that is enough, rather than not at all. counted: whether it belongs into the metrics of clips.
    """

    model: Served
    max_faces: int
    explain: bool
    timeline: bool
    begun: float
    deadline: float
    partial: bool
    counted: bool = True


class Judge:
    """Answers one question about one clip.

    watch: called with every outline of what was seen so far; judged: with the answer that it would lead to,
    when one is at hand. Both only where they are given.
    """

    def __init__(
        self,
        service: Service,
        upload: Upload,
        question: Question,
        *,
        watch: Callable[[Outline], None] | None = None,
        judged: Callable[[Answer], None] | None = None,
    ) -> None:
        self._service, self._upload, self._question = service, upload, question
        self._watch, self._judged = watch, judged
        self._times = Times.of(question, asyncio.get_running_loop().time())
        crop = question.model.bundle.manifest.crop
        self._encoding = Encoding(
            question.model.encoder,
            deadline=self._times.score_at,
            kept_frames=frames_needed(crop) if question.explain else 0,
        )
        self._outlines: list[Outline] = []
        self._running: asyncio.Task[None] | None = None
        self._stage: Stage = "queue"
        self._waited = 0.0
        self._next_running = 0.0

    kind: ClassVar[Literal["clip", "crops"]] = "clip"
    """What is judged."""

    async def signed_answer(self) -> Answer:
        """The answer, with a receipt where there is a key to sign with. Raises as `answer`."""
        answer, signer = await self.answer(), self._service.signer
        if signer is None:
            return answer
        return await asyncio.to_thread(signer.signed, answer, self.kind, self._upload, self._question)

    async def answer(self) -> Answer:
        """Raises MediaError, DeadlineExceeded or Unavailable."""
        try:
            async with self._stopping():
                return await self._answer()
        except Expired as e:
            self._give_up("deadline")
            raise DeadlineExceeded(str(e)) from e
        except asyncio.CancelledError:
            self._give_up("client")
            raise
        except BatcherDead as e:
            raise Unavailable("the server has lost its model", problem="not-ready", retry_after_s=5.0) from e

    def _give_up(self, cause: Cause) -> None:
        if self._question.counted:
            self._service.metrics.cancelled(self._stage, cause)

    @contextlib.asynccontextmanager
    async def _stopping(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            # Both are cancelled before either is waited for: the wait itself may be cancelled.
            stopped = self._encoding.stop()
            running = self._running or asyncio.create_task(asyncio.sleep(0))
            running.cancel()
            await asyncio.gather(stopped, running, return_exceptions=True)

    async def _answer(self) -> Answer:
        loop, question, request = asyncio.get_running_loop(), self._question, request_span.get()
        outline = await self._seen()
        self._stage = "temporal"
        scored_at = loop.time()
        with request.start("temporal") as span:
            scored = await question.model.temporal.submit(
                self._encoding.sequences(outline), deadline=question.deadline, owner=Owner(span=span)
            )
            span.note(queue_wait_s=scored.queued_s)
        ended = loop.time()
        with request.start("verdict"):
            answer = decide(
                outline,
                scored.results,
                question.model.bundle,
                explain=question.explain,
                timeline=question.timeline,
            )
        if question.partial and outline.coverage.expired and answer.verdict == "not_applicable":
            self._stage = "decode"
            raise Expired("no face that can be judged was seen before the deadline")
        if question.explain:
            self._stage = "explain"
            with request.start("explain") as span:
                answer = await self._explained(answer, outline, scored.results, span)
        queues = {"decoder": self._waited, "encoder": self._encoding.queued_s, "temporal": scored.queued_s}
        seconds = {
            "queue": sum(queues.values()),
            **{name: ms / 1000 for name, ms in outline.timing_ms.items()},
            "encode": max(0.0, self._encoding.busy_s - self._encoding.queued_s),
            "temporal": ended - scored_at - scored.queued_s,
            **({"explain": loop.time() - ended} if question.explain else {}),
            "total": loop.time() - question.begun,
        }
        if question.counted:
            _observe(self._service, queues, seconds)
        return answer.timed({name: spent * 1000 for name, spent in seconds.items()})

    async def _explained(
        self, answer: Answer, outline: Outline, scores: list[TrackScores], span: Span
    ) -> Answer:
        """The answer with explanations; they are left out where the deadline comes first."""
        question = self._question
        deadline = question.deadline - EXPLAIN_MARGIN_S
        try:
            return await explained(
                question.model, answer, outline, scores, self._encoding, span=span, deadline=deadline
            )
        except Expired:
            return unexplained(answer, question.model.bundle.manifest, "out_of_time")

    async def _seen(self) -> Outline:
        """The clip as far as it was looked at and encoded in time."""
        question = self._question
        job = Job(
            self._upload.path,
            question.model.bundle.manifest,
            question.max_faces,
            self._upload.sha256.hex(),
            outlines=question.partial or self._watch is not None,
            threads=self._service.settings.decoder_threads,
        )
        try:
            outline, self._waited = await self._service.pool.prepare(
                job,
                self._told,
                deadline=self._times.kill_at,
                look_until=self._times.look_until,
                taken=self._taken,
            )
            self._keep(outline)
        except Expired:
            if not question.partial or not self._outlines:
                raise
            credentials = Credentials(unchecked="deadline")
        else:
            credentials = outline.credentials
        self._stage = "encode"
        try:
            await self._encoding.finish()
        except Expired:
            if not question.partial:
                raise
        return replace(self._fullest(), credentials=credentials)

    def _fullest(self) -> Outline:
        """The last outline of which all is encoded."""
        for outline in reversed(self._outlines):
            if self._encoding.holds(outline):
                if (
                    self._question.partial
                    and outline.coverage.expired
                    and outline.coverage.bursts < MIN_LOOKS
                ):
                    self._stage = "decode"
                    break
                return outline
        raise Expired("the deadline came before enough of the clip had been looked at")

    def _taken(self) -> None:
        self._stage = "decode"

    async def _told(self, told: Told) -> None:
        if isinstance(told, Looked):
            self._stage = "encode"
            await self._encoding.add(told)
            self._stage = "decode"
            return
        self._keep(told)
        if self._watch is not None:
            self._watch(told)
        now = asyncio.get_running_loop().time()
        idle = self._running is None or self._running.done()
        if self._judged is not None and idle and now >= self._next_running:
            self._next_running = now + RUNNING_EVERY_S
            self._running = asyncio.create_task(self._judge_so_far(told, self._judged))

    def _keep(self, outline: Outline) -> None:
        """Keep an outline, and of those before it the last that is encoded and what came after."""
        encoded = [k for k, o in enumerate(self._outlines) if self._encoding.holds(o)]
        self._outlines = [*self._outlines[encoded[-1] if encoded else 0 :], outline]

    async def _judge_so_far(self, outline: Outline, judged: Callable[[Answer], None]) -> None:
        """What the answer would be by now. When it fails, so does the request itself, which tells of it."""
        question = self._question
        await self._encoding.until(outline)
        if not self._encoding.holds(outline) or not outline.tracks:
            return
        with contextlib.suppress(Expired, BatcherDead):
            scored = await question.model.temporal.submit(
                self._encoding.sequences(outline), deadline=question.deadline
            )
            judged(decide(outline, scored.results, question.model.bundle, timeline=False))


@dataclass(frozen=True, slots=True)
class Times:
    """When looking should end, when it is ended, and until when samples are encoded."""

    look_until: float | None
    kill_at: float
    score_at: float

    @classmethod
    def of(cls, question: Question, now: float) -> "Times":
        """From now on, when the clip has arrived."""
        if not question.partial:
            return cls(None, question.deadline, question.deadline)
        end, patience = question.deadline, max(0.0, question.deadline - now)
        least, most = LEAST_RESERVE * patience, MOST_RESERVE * patience
        scoring = _expected(question.model.temporal, 1)
        encoding = _expected(question.model.encoder, samples_a_look(question.model.bundle.manifest))
        look_until = end - min(most, least + encoding + MARGIN * scoring)
        score_at = end - min(most / 2, least / 4 + MARGIN * scoring)
        return cls(look_until, (look_until + score_at) / 2, score_at)


def _expected(batcher: Batcher[Any, Any], more: int) -> float:
    """Seconds until a batcher will have run what is queued and some more; 0 before its first batch."""
    return (batcher.queued + more) / batcher.rate if batcher.rate else 0.0


def _observe(service: Service, queues: dict[str, float], seconds: dict[str, float]) -> None:
    for name, waited in queues.items():
        service.metrics.queue_wait.labels(name).observe(waited)
    for name, spent in seconds.items():
        service.metrics.stage_duration.labels(name).observe(spent)
