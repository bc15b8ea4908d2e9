"""POST /v1/detect: what may be asked, who is let in, and in which form the answer is sent."""

import asyncio
import base64
import contextlib
import re
from collections import Counter
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect

from pipeline.answer import Answer
from service.crops import CropsJudge
from service.events import EventStream, wants_events
from service.judge import Judge, Question
from service.metrics import Metrics
from service.problems import DeadlineExceeded, MalformedRequest, Problem, UploadTooSlow
from service.state import Service
from service.tracing import request_span
from service.upload import CROPS_TYPE, Upload, UploadLimits, check_headers, received

router = APIRouter(tags=["detect"])
T = TypeVar("T")

_WAIT = re.compile(r'\s*wait\s*=\s*(?:"(\d{1,6})"|(\d{1,6}))\s*(?:;.*)?', re.IGNORECASE)
_BINARY = {"schema": {"type": "string", "format": "binary"}}
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "additionalProperties": False,
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            "video/*": _BINARY,
            "image/*": _BINARY,
            "application/octet-stream": _BINARY,
        },
    },
    "parameters": [
        {
            "name": "Prefer",
            "in": "header",
            "required": False,
            "description": "`wait=N`: answer within N seconds (RFC 7240), from what was seen until then.",
            "schema": {"type": "string"},
        }
    ],
}
_PROBLEM = {"model": Problem, "content": {"application/problem+json": {}}}
_EVENTS = {
    "schema": {"type": "string", "description": "Events `progress`, `running`, and `answer` or `problem`."}
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": _EVENTS}},
    **{
        status: {**_PROBLEM, "description": words}
        for status, words in {
            400: "Malformed request",
            404: "Unknown model",
            408: "Upload too slow",
            413: "Upload too large",
            415: "Not media that is accepted",
            422: "The clip can not be decoded",
            503: "Overloaded or not ready; see Retry-After",
            504: "Deadline exceeded",
        }.items()
    },
}

CROPS_BODY = BODY | {"requestBody": {"required": True, "content": {CROPS_TYPE: _BINARY}}}
CROPS_RESPONSES = {status: words for status, words in RESPONSES.items() if status != 200}


class DetectQuery(BaseModel):
    """Parameters of POST /v1/detect."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = Field(default=None, description="Bundle that judges; the default one without it.")
    explain: bool = Field(default=False, description="Say where on each face the evidence lies.")
    max_faces: int | None = Field(default=None, ge=1, description="Judge at most so many faces.")
    timeline: bool = Field(default=True, description="Give the score of each moment.")
    deadline_ms: int | None = Field(
        default=None,
        ge=1,
        le=86_400_000,
        description="Answer within so many milliseconds, from what was seen until then; 504 where that is "
        "not enough.",
    )


@router.post("/v1/detect", response_model=Answer, responses=RESPONSES, openapi_extra=BODY)
async def detect(request: Request, query: Annotated[DetectQuery, Query()]) -> Response:
    """Was a face in this clip manipulated? How sure is that, which face, when, and why?

    Send the clip as multipart field `file`, or as the body itself with its media type. A clip
    without a usable face is answered with the verdict `not_applicable`. With `Accept: text/event-stream`
    the answer comes last, behind events that tell how far the clip was looked at and what the verdict would
    be by then.
    """
    return await _answered(request, query, Judge)


@router.post("/v1/detect/crops", response_model=Answer, responses=CROPS_RESPONSES, openapi_extra=CROPS_BODY)
async def detect_crops(request: Request, query: Annotated[DetectQuery, Query()]) -> Response:
    """The same for faces that the client has cut out of a clip itself with `deepfake-detect crop`.

    The rest of the clip's pictures and its sound never leave the client. What is said of the clip is what the
    client says, and the answer names that among its reasons.
    """
    return await _answered(request, query, CropsJudge)


async def _answered(request: Request, query: DetectQuery, judge: type[Judge]) -> Response:
    service: Service = request.app.state.service
    crops = judge is CropsJudge
    begun = asyncio.get_running_loop().time()
    max_faces = _checked(request, query, service.settings.max_faces)
    patience, partial = _patience(request, query, service.settings.request_timeout_s)
    limits = UploadLimits(
        service.scratch,
        service.settings.max_upload_bytes,
        slow_at=begun + service.settings.upload_timeout_s,
        deadline=begun + patience,
    )
    async with contextlib.AsyncExitStack() as stack:
        partial = partial and not crops
        stack.enter_context(service.admitted(None if partial else patience))
        model = service.model(query.model)
        check_headers(request, limits, crops=crops)
        with request_span.get().start("upload"):
            upload = await _arrived(stack, request, limits)
        stack.enter_context(service.pace.work())
        request.state.headers["Content-Digest"] = content_digest(upload.sha256)
        arrived = asyncio.get_running_loop().time() - begun
        service.metrics.stage_duration.labels("upload").observe(arrived)
        question = Question(
            model,
            max_faces,
            query.explain,
            query.timeline,
            begun,
            limits.deadline,
            partial=partial,
        )
        if not crops and wants_events(request.headers.getlist("accept")):
            return EventStream(service, upload, question, request.state, stack.pop_all())
        answer = await until_gone(request, judge(service, upload, question).signed_answer())
    service.metrics.judged(answer)
    return Response(answer.model_dump_json(), media_type="application/json", headers=request.state.headers)


async def _arrived(stack: contextlib.AsyncExitStack, request: Request, limits: UploadLimits) -> Upload:
    """The clip, in its file until the stack ends. Raises what `received` does, and counts what is cut off."""
    metrics: Metrics = request.app.state.service.metrics
    try:
        upload = await stack.enter_async_context(received(request, limits))
    except ClientDisconnect:
        metrics.cancelled("upload", "client")
        raise
    except (UploadTooSlow, DeadlineExceeded):
        metrics.cancelled("upload", "deadline")
        raise
    metrics.upload_bytes.inc(upload.size)
    return upload


def _checked(request: Request, query: DetectQuery, most_faces: int) -> int:
    """Faces to judge at most. Raises MalformedRequest for what a model of the query can not see."""
    twice = [name for name, n in Counter(k for k, _ in request.query_params.multi_items()).items() if n > 1]
    if twice:
        raise MalformedRequest(f"{twice[0][:40]!r} is given more than once", problem="invalid-parameter")
    if query.max_faces is not None and query.max_faces > most_faces:
        raise MalformedRequest(f"'max_faces' is at most {most_faces} here", problem="invalid-parameter")
    return query.max_faces or most_faces


def _patience(request: Request, query: DetectQuery, most: float) -> tuple[float, bool]:
    """Seconds until the deadline, and whether the client has set it; what it prefers and gets is told.

    Of a preference and the parameter `deadline_ms` the shorter one counts.
    """
    preferred = preferred_wait(request.headers.getlist("prefer"))
    asked = [float(preferred)] if preferred is not None else []
    if query.deadline_ms is not None:
        asked.append(query.deadline_ms / 1000)
    wanted = min(asked, default=most)
    if not asked or wanted > most:
        return most, False
    if preferred is not None and wanted == preferred:
        request.state.headers["Preference-Applied"] = f"wait={preferred}"
    return wanted, True


def preferred_wait(prefer: list[str]) -> int | None:
    """Seconds of the first valid `wait` in Prefer header fields (RFC 7240, section 4.3)."""
    for preference in ",".join(prefer).split(","):
        if match := _WAIT.fullmatch(preference):
            return int(match[1] or match[2])
    return None


def content_digest(sha256: bytes) -> str:
    """A Content-Digest field value (RFC 9530)."""
    return f"sha-256=:{base64.b64encode(sha256).decode()}:"


async def until_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled as soon as the client has gone.

    The whole body must have been read. Raises ClientDisconnect.
    """
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
