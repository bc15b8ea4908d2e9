"""Errors as RFC 9457 problem details: one table from what went wrong to status, type and title.

    ServiceError                    what is wrong with a request, raised where it is known
    ├── MalformedRequest            400, its `problem` says which way
    ├── MissingKey                  401
    ├── UnknownKey                  403
    ├── NotFound                    404
    ├── UploadTooSlow               408
    ├── UploadTooLarge              413
    ├── UnsupportedMediaType        415
    ├── RateLimited                 429, with the seconds after which to try again
    ├── Unavailable                 503, with the seconds after which to try again
    └── DeadlineExceeded            504

The media errors of `pipeline.errors` carry the name of their problem themselves.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from pipeline.errors import MediaError

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One documented kind of error. `meaning` and `remedy` are Markdown sentences for docs/errors.md."""

    status: int
    title: str
    meaning: str
    remedy: str


PROBLEMS: dict[str, ProblemType] = {
    "malformed-request": ProblemType(
        400,
        "Malformed request",
        "The request can not be read as HTTP or as what the route expects.",
        "Correct the request; sending it again unchanged gives the same answer.",
    ),
    "empty-body": ProblemType(
        400,
        "Empty body",
        "No body was sent, or the clip in it has no bytes.",
        "Send the clip as multipart field `file` or as the body itself.",
    ),
    "malformed-multipart": ProblemType(
        400,
        "Malformed multipart body",
        "The body is not well-formed `multipart/form-data`: the boundary is missing or wrong, "
        "or the body ends early.",
        "Let the HTTP library build the body and its `Content-Type`; do not set that header by hand.",
    ),
    "wrong-field": ProblemType(
        400,
        "Wrong form field",
        "The form has a field that is not called `file`, or has no field at all.",
        "Send one field called `file`, for example `curl -F file=@clip.mp4`.",
    ),
    "too-many-files": ProblemType(
        400,
        "More than one file",
        "The form has more than one field `file`.",
        "Send one request for each clip.",
    ),
    "unknown-parameter": ProblemType(
        400,
        "Unknown query parameter",
        "The query has a parameter that the route does not know.",
        "Correct its name; `/docs` lists the parameters.",
    ),
    "invalid-parameter": ProblemType(
        400,
        "Invalid query parameter",
        "A query parameter has a value that is out of its range or of the wrong kind, or is given twice.",
        "The detail says what is allowed.",
    ),
    "missing-key": ProblemType(
        401,
        "No key",
        "This server wants a key for everything below `/v1`, and none was sent.",
        "Send yours as `Authorization: Bearer KEY` or as `X-API-Key: KEY`.",
    ),
    "unknown-key": ProblemType(
        403,
        "Unknown key",
        "The key that was sent is not, or no longer, a valid one.",
        "Ask the operator for a key.",
    ),
    "not-found": ProblemType(
        404, "Not found", "There is nothing at this address.", "`/docs` lists the routes."
    ),
    "unknown-model": ProblemType(
        404, "Unknown model", "No model of that name is served.", "`GET /v1/models` lists those that are."
    ),
    "method-not-allowed": ProblemType(
        405,
        "Method not allowed",
        "The address exists, but not for this method.",
        "Use one that the header `Allow` names.",
    ),
    "upload-too-slow": ProblemType(
        408,
        "Upload too slow",
        "The body did not arrive within the time that the server allows for it.",
        "Try again over a faster connection, or send a shorter clip.",
    ),
    "upload-too-large": ProblemType(
        413,
        "Upload too large",
        "The clip has more bytes than the server takes.",
        "Send a shorter or more strongly compressed clip. The operator sets `DETECTOR_MAX_UPLOAD_BYTES`.",
    ),
    "unsupported-media-type": ProblemType(
        415,
        "Unsupported media type",
        "`Content-Type` is none of `multipart/form-data`, `video/*`, `image/*` and "
        "`application/octet-stream`, or for `/v1/detect/crops` not that of crops, or the body has a "
        "`Content-Encoding`.",
        "Name the type of what is sent.",
    ),
    "unsupported-media": ProblemType(
        415,
        "Not a supported picture or video",
        "The bytes of the clip are not those of a picture or a video in a container that is accepted, "
        "whatever its name or type says.",
        "Convert the clip, for example to MP4.",
    ),
    "media-error": ProblemType(
        422, "The clip can not be used", "Something is wrong with the clip.", "The detail says what."
    ),
    "undecodable-media": ProblemType(
        422,
        "The clip can not be decoded",
        "The container is accepted, but it is damaged or incomplete, or its content can not be decoded. "
        "A clip that crashes the decoder or needs too much memory ends here, too.",
        "Check that the clip plays from beginning to end; re-encode it.",
    ),
    "malformed-crops": ProblemType(
        422,
        "The crops can not be used",
        "What was sent to `/v1/detect/crops` are no cut faces, or they were cut for a model that sees other "
        "ones.",
        "Cut them with `deepfake-detect crop --model NAME` of the version and the model that judge.",
    ),
    "no-video-stream": ProblemType(
        422, "No video stream", "The file holds no pictures, for example sound only.", "Send a video."
    ),
    "no-frames": ProblemType(
        422,
        "No frame can be decoded",
        "The file has a video stream, but not a single picture of it can be decoded.",
        "Check that the clip plays; re-encode it.",
    ),
    "picture-too-small": ProblemType(
        422,
        "The picture is too small",
        "The picture has fewer pixels a side than any face needs.",
        "Send the clip in its original size.",
    ),
    "picture-too-large": ProblemType(
        422,
        "The picture is too large",
        "The picture has more pixels than the server decodes.",
        "Scale the clip down. The operator sets `DETECTOR_MAX_PIXELS`.",
    ),
    "rate-limited": ProblemType(
        429,
        "Too many requests",
        "The key is used more often than the operator allows for it. Nothing of the body was read.",
        "Try again after the seconds that `Retry-After` names.",
    ),
    "internal-error": ProblemType(
        500,
        "Internal error",
        "The server failed. This is a defect of the server, never of the request.",
        "Report it together with the value of `X-Request-ID`.",
    ),
    "overloaded": ProblemType(
        503,
        "Overloaded",
        "As many clips as the server takes on are in the works, or it has no room for another one. Nothing "
        "of the body is looked at.",
        "Try again after the seconds that `Retry-After` names.",
    ),
    "not-ready": ProblemType(
        503,
        "Not ready",
        "The server is starting, shutting down, or has lost a part that it needs.",
        "Try again after the seconds that `Retry-After` names.",
    ),
    "deadline-exceeded": ProblemType(
        504,
        "Deadline exceeded",
        "The answer was not there in time: within the server's limit for a request or for decoding one clip, "
        "or within `Prefer: wait` or `deadline_ms`, by which too little of the clip could be seen.",
        "Send a shorter clip, wait longer, or try again when the server has less to do.",
    ),
}


HEAD = """\
# Errors

An error is answered as `application/problem+json` ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)):
`type` is one of the relative addresses below and never changes; `title` and `status` belong to it;
`detail` says what was wrong with this very request; `request_id` is what the server logged it under.
`GET` on the address gives its section as text. A clip without a usable face is no error: it is
answered with status 200 and the verdict `not_applicable`.

The routes below `/v2` follow the Open Inference Protocol and answer errors as `{"error": "..."}`.
What can not be parsed as HTTP at all is answered with status 400 as plain text.

"""


class ServiceError(Exception):
    """Base of what can be wrong with a request. `problem` names its entry in PROBLEMS."""

    problem = "malformed-request"

    def __init__(self, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.headers = dict(headers or {})


class MalformedRequest(ServiceError):
    """The request is not as the route expects it."""

    def __init__(
        self,
        detail: str,
        *,
        problem: Literal[
            "malformed-request",
            "empty-body",
            "malformed-multipart",
            "wrong-field",
            "too-many-files",
            "unknown-parameter",
            "invalid-parameter",
        ] = "malformed-request",
    ) -> None:
        super().__init__(detail)
        self.problem = problem


class MissingKey(ServiceError):
    """A key is needed, and none was sent."""

    problem = "missing-key"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": "Bearer"})


class UnknownKey(ServiceError):
    """The key is none of those that are valid."""

    problem = "unknown-key"


class NotFound(ServiceError):
    """There is no such thing, or no such model."""

    def __init__(self, detail: str, *, problem: Literal["not-found", "unknown-model"] = "not-found") -> None:
        super().__init__(detail)
        self.problem = problem


class UploadTooSlow(ServiceError):
    """The body took too long to arrive."""

    problem = "upload-too-slow"


class UploadTooLarge(ServiceError):
    """The body, or the clip in it, is over the limit."""

    problem = "upload-too-large"


class UnsupportedMediaType(ServiceError):
    """The headers of the body name something that is not accepted."""

    problem = "unsupported-media-type"


class RateLimited(ServiceError):
    """The key is used too often. retry_after_s: as for Unavailable."""

    problem = "rate-limited"

    def __init__(self, detail: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(detail, headers=_retry_after(retry_after_s))


class Unavailable(ServiceError):
    """No work is taken on now. retry_after_s: seconds after which to try again, rounded up, at least 1."""

    def __init__(
        self, detail: str, *, problem: Literal["overloaded", "not-ready"], retry_after_s: float = 1.0
    ) -> None:
        super().__init__(detail, headers=_retry_after(retry_after_s))
        self.problem = problem


class DeadlineExceeded(ServiceError):
    """The answer was not there in time."""

    problem = "deadline-exceeded"


def _retry_after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


class Problem(BaseModel):
    """The body of an error (RFC 9457). `request_id` is also in the server's log."""

    model_config = ConfigDict(frozen=True)

    type: str = Field(description="Relative URI of the kind of problem; it never changes.")
    title: str
    status: int
    detail: str
    request_id: str | None = None


def problem_of(error: MediaError | ServiceError) -> str:
    """Name in PROBLEMS of an error."""
    return error.problem if error.problem in PROBLEMS else MediaError.problem


def problem_response(
    name: str, detail: str, *, request_id: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The response for one problem; `name` is a key of PROBLEMS."""
    body = problem_body(name, detail, request_id=request_id)
    content: dict[str, Any] = body.model_dump(exclude_none=True)
    return JSONResponse(content, status_code=body.status, media_type=MEDIA_TYPE, headers=dict(headers or {}))


def problem_body(name: str, detail: str, *, request_id: str | None = None) -> Problem:
    """The body of the response for one problem; `name` is a key of PROBLEMS."""
    kind = PROBLEMS[name]
    return Problem(type=uri(name), title=kind.title, status=kind.status, detail=detail, request_id=request_id)


def uri(name: str) -> str:
    """The stable `type` of a problem."""
    return f"/problems/{name}"


def in_markdown(name: str) -> str:
    """One section of docs/errors.md."""
    kind = PROBLEMS[name]
    return (
        f"## {name}\n\n`{uri(name)}` · status {kind.status} · {kind.title}\n\n{kind.meaning} {kind.remedy}\n"
    )


def all_in_markdown() -> str:
    """The whole of docs/errors.md."""
    return HEAD + "\n".join(in_markdown(name) for name in PROBLEMS)
