"""A clip's way through the service: receive, decode, encode, score, decide."""

import asyncio
import base64
import re
from collections import Counter
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect

from pipeline.answer import Answer, Timing
from pipeline.frames import F32
from pipeline.prepared import PreparedClip
from pipeline.verdict import TrackScores, decide
from service.batcher import BatcherDead, Expired
from service.child import Job
from service.models import Served
from service.problems import DeadlineExceeded, MalformedRequest, Problem, Unavailable
from service.state import Service
from service.upload import Upload, UploadLimits, check_headers, received

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
            "description": "`wait=N`: give up after N seconds (RFC 7240).",
            "schema": {"type": "string"},
        }
    ],
}
_PROBLEM = {"model": Problem, "content": {"application/problem+json": {}}}
PROBLEMS: dict[int | str, dict[str, Any]] = {
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
}


class DetectQuery(BaseModel):
    """Parameters of POST /v1/detect."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = Field(default=None, description="Bundle that judges; the default one without it.")
    explain: bool = Field(default=False, description="Say where on each face the evidence lies.")
    max_faces: int | None = Field(default=None, ge=1, description="Judge at most so many faces.")
    timeline: bool = Field(default=True, description="Give the score of each moment.")


@router.post("/v1/detect", response_model=Answer, responses=PROBLEMS, openapi_extra=BODY)
async def detect(request: Request, query: Annotated[DetectQuery, Query()]) -> Response:
    """Was a face in this clip manipulated? How sure is that, which face, when, and why?

    Send the clip as multipart field `file`, or as the body itself with its media type. A clip
    without a usable face is answered with the verdict `not_applicable`.
    """
    service: Service = request.app.state.service
    begun = asyncio.get_running_loop().time()
    max_faces = _checked(request, query, service.settings.max_faces)
    patience = _patience(request, service.settings.request_timeout_s)
    limits = UploadLimits(
        service.scratch,
        service.settings.max_upload_bytes,
        slow_at=begun + service.settings.upload_timeout_s,
        deadline=begun + patience,
    )
    with service.admitted():
        model = service.model(query.model)
        check_headers(request, limits)
        async with received(request, limits) as upload:
            request.state.headers["Content-Digest"] = content_digest(upload.sha256)
            service.metrics.upload_bytes.inc(upload.size)
            arrived = asyncio.get_running_loop().time() - begun
            service.metrics.stage_duration.labels("upload").observe(arrived)
            work = _judge(
                service, model, upload, query, max_faces=max_faces, begun=begun, deadline=limits.deadline
            )
            answer = await until_gone(request, work)
    service.metrics.verdicts.labels(answer.verdict).inc()
    return Response(answer.model_dump_json(), media_type="application/json", headers=request.state.headers)


async def _judge(
    service: Service,
    model: Served,
    upload: Upload,
    query: DetectQuery,
    *,
    max_faces: int,
    begun: float,
    deadline: float,
) -> Answer:
    loop = asyncio.get_running_loop()
    job = Job(upload.path, model.bundle.manifest, max_faces)
    try:
        clip, waited = await service.pool.prepare(job, deadline=deadline)
        features_at = loop.time()
        samples = [sample for track in clip.tracks for sample in track.samples]
        encoded = await model.encoder.submit(samples, deadline=deadline)
        scores_at = loop.time()
        scored = await model.temporal.submit(_sequences(clip, encoded.results), deadline=deadline)
    except Expired as e:
        raise DeadlineExceeded(str(e)) from e
    except BatcherDead as e:
        raise Unavailable("the server has lost its model", problem="not-ready", retry_after_s=5.0) from e
    ended = loop.time()
    queues = {"decoder": waited, "encoder": encoded.queued_s, "temporal": scored.queued_s}
    seconds = {
        "queue": sum(queues.values()),
        **{name: ms / 1000 for name, ms in clip.timing_ms.items()},
        "encode": scores_at - features_at - encoded.queued_s,
        "temporal": ended - scores_at - scored.queued_s,
        "total": ended - begun,
    }
    _observe(service, queues, seconds)
    return _decided(clip, scored.results, model, query, seconds)


def _sequences(clip: PreparedClip, features: list[F32]) -> list[F32]:
    """The features of all samples, parted into one float32 [T, D] for each track."""
    rows = iter(features)
    return [np.stack([next(rows) for _ in track.samples]) for track in clip.tracks]


def _observe(service: Service, queues: dict[str, float], seconds: dict[str, float]) -> None:
    for name, waited in queues.items():
        service.metrics.queue_wait.labels(name).observe(waited)
    for name, spent in seconds.items():
        service.metrics.stage_duration.labels(name).observe(spent)


def _decided(
    clip: PreparedClip,
    scores: list[TrackScores],
    model: Served,
    query: DetectQuery,
    seconds: dict[str, float],
) -> Answer:
    timing = {name: spent * 1000 for name, spent in seconds.items() if name in Timing.model_fields}
    return decide(
        clip, scores, model.bundle, explain=query.explain, timeline=query.timeline, timing_ms=timing
    )


def _checked(request: Request, query: DetectQuery, most_faces: int) -> int:
    """Faces to judge at most. Raises MalformedRequest for what a model of the query can not see."""
    twice = [name for name, n in Counter(k for k, _ in request.query_params.multi_items()).items() if n > 1]
    if twice:
        raise MalformedRequest(f"{twice[0][:40]!r} is given more than once", problem="invalid-parameter")
    if query.max_faces is not None and query.max_faces > most_faces:
        raise MalformedRequest(f"'max_faces' is at most {most_faces} here", problem="invalid-parameter")
    return query.max_faces or most_faces


def _patience(request: Request, most: float) -> float:
    """Seconds until the deadline; says so in the answer when they are the client's preference."""
    wanted = preferred_wait(request.headers.getlist("prefer"))
    if wanted is None or wanted > most:
        return most
    request.state.headers["Preference-Applied"] = f"wait={wanted}"
    return float(wanted)


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
