"""An answer as a stream of events (WHATWG HTML, 9.2): progress, the verdict by then, the answer last."""

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator

from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.datastructures import State
from starlette.types import Receive, Scope, Send

from pipeline.answer import Answer, Probabilities, Verdict
from pipeline.errors import MediaError
from pipeline.prepared import Outline
from service.judge import Judge, Question
from service.problems import ServiceError, problem_body, problem_of
from service.state import Service
from service.upload import Upload

MEDIA_TYPE = "text/event-stream"
_NOT_WANTED = re.compile(r"q=0(\.0{0,3})?")

log = logging.getLogger(__name__)


class Progress(BaseModel):
    """How far the clip was looked at."""

    bursts: int
    planned: int
    seconds_looked_at: float
    faces: int


class Running(BaseModel):
    """The verdict that what was seen so far would lead to."""

    verdict: Verdict
    probabilities: Probabilities | None
    seconds_looked_at: float


def wants_events(accept: list[str]) -> bool:
    """Whether Accept header fields name event streams with a quality above 0 (RFC 9110, 12.5.1)."""
    for part in ",".join(accept).split(","):
        kind, *parameters = (p.strip().lower() for p in part.split(";"))
        if kind == MEDIA_TYPE:
            return not any(_NOT_WANTED.fullmatch(p) for p in parameters)
    return False


class EventStream(StreamingResponse):
    """Judges the clip while it is sent.

    stack: what is held until the end, the request's place and its file, also when the client has gone.
    """

    def __init__(
        self,
        service: Service,
        upload: Upload,
        question: Question,
        state: State,
        stack: contextlib.AsyncExitStack,
    ) -> None:
        headers = {**state.headers, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(self._events(), media_type=MEDIA_TYPE, headers=headers)
        self._service, self._upload, self._question = service, upload, question
        self._request_id, self._stack = state.request_id, stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; whatever happens, nothing is held afterwards."""
        async with self._stack:
            await super().__call__(scope, receive, send)

    async def _events(self) -> AsyncIterator[str]:
        events: asyncio.Queue[str | None] = asyncio.Queue()
        judging = asyncio.create_task(self._judge(events))
        try:
            while (event := await events.get()) is not None:
                yield event
        finally:
            judging.cancel()
            await asyncio.gather(judging, return_exceptions=True)

    async def _judge(self, events: "asyncio.Queue[str | None]") -> None:
        def watch(outline: Outline) -> None:
            events.put_nowait(_event("progress", self._progress(outline).model_dump_json()))

        def judged(answer: Answer) -> None:
            running = Running(
                verdict=answer.verdict,
                probabilities=answer.probabilities,
                seconds_looked_at=answer.coverage.seconds_looked_at,
            )
            events.put_nowait(_event("running", running.model_dump_json()))

        judge = Judge(self._service, self._upload, self._question, watch=watch, judged=judged)
        try:
            answer = await judge.answer()
        except (MediaError, ServiceError) as e:
            events.put_nowait(self._problem(problem_of(e), str(e)))
        except Exception:  # the response has begun, so that nobody else can tell the client
            log.exception("unexpected error")
            events.put_nowait(self._problem("internal-error", "the server failed"))
        else:
            self._service.metrics.verdicts.labels(answer.verdict).inc()
            events.put_nowait(_event("answer", answer.model_dump_json()))
        events.put_nowait(None)

    def _progress(self, outline: Outline) -> Progress:
        sampling = self._question.model.bundle.manifest.sampling
        return Progress(
            bursts=outline.coverage.bursts,
            planned=sampling.bursts,
            seconds_looked_at=outline.coverage.seconds_looked_at,
            faces=outline.faces_seen,
        )

    def _problem(self, name: str, detail: str) -> str:
        self._service.metrics.rejections.labels(name).inc()
        body = problem_body(name, detail, request_id=self._request_id)
        return _event("problem", body.model_dump_json(exclude_none=True))


def _event(name: str, data: str) -> str:
    return f"event: {name}\ndata: {data}\n\n"
