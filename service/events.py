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
_WEIGHT = re.compile(r"q=([01](?:\.\d{0,3})?)")

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
    """Whether Accept header fields prefer event streams to JSON (RFC 9110, 12.5.1)."""
    wanted = dict.fromkeys((MEDIA_TYPE, "application/json"), 0.0)
    for part in ",".join(accept).split(","):
        kind, *parameters = (p.strip().lower() for p in part.split(";"))
        if kind in wanted:
            weights = [float(m[1]) for p in parameters if (m := _WEIGHT.fullmatch(p))]
            wanted[kind] = weights[0] if weights else 1.0
    return wanted[MEDIA_TYPE] > 0 and wanted[MEDIA_TYPE] >= wanted["application/json"]


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
        self._events: asyncio.Queue[str | None] = asyncio.Queue()
        super().__init__(self._sent(), media_type=MEDIA_TYPE, headers=headers)
        self._service, self._upload, self._question = service, upload, question
        self._request_id, self._stack = state.request_id, stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; whatever happens, nothing is held afterwards.

        The work is no part of what Starlette cancels when the client leaves, again at each wait, so that it
        can end in order. What it holds is free when it has ended, however slowly its events are read.
        """
        working = asyncio.create_task(self._work())
        try:
            await super().__call__(scope, receive, send)
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            await self._stack.aclose()

    async def _sent(self) -> AsyncIterator[str]:
        while (event := await self._events.get()) is not None:
            yield event

    async def _work(self) -> None:
        async with self._stack:
            await self._judge()
        self._events.put_nowait(None)

    async def _judge(self) -> None:
        events = self._events

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
            answer = await judge.signed_answer()
        except (MediaError, ServiceError) as e:
            events.put_nowait(self._problem(problem_of(e), str(e)))
        except Exception:  # the response has begun, so that nobody else can tell the client
            log.exception("unexpected error")
            events.put_nowait(self._problem("internal-error", "the server failed"))
        else:
            self._service.metrics.judged(answer)
            events.put_nowait(_event("answer", answer.model_dump_json()))

    def _progress(self, outline: Outline) -> Progress:
        return Progress(
            bursts=outline.coverage.bursts,
            planned=outline.coverage.planned,
            seconds_looked_at=outline.coverage.seconds_looked_at,
            faces=outline.faces_seen,
        )

    def _problem(self, name: str, detail: str) -> str:
        self._service.metrics.rejections.labels(name).inc()
        body = problem_body(name, detail, request_id=self._request_id)
        return _event("problem", body.model_dump_json(exclude_none=True))


def _event(name: str, data: str) -> str:
    return f"event: {name}\ndata: {data}\n\n"
