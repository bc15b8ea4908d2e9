"""What both clients share: how a question is put into a request, and an answer read from a response."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypedDict, TypeVar, Unpack
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from deepfake_detect_client.answers import Answer
from deepfake_detect_client.errors import (
    ProblemError,
    TimedOut,
    UnexpectedAnswer,
    Unreachable,
    WrongDigest,
    problem_error,
)
from deepfake_detect_client.events import MEDIA_TYPE
from deepfake_detect_client.retry import Deadline
from deepfake_detect_client.upload import Upload

CROPS_TYPE = "application/vnd.deepfake-detect.crops"
CLIP_TYPE = "application/octet-stream"
KEY_HEADER = "X-API-Key"
TIMEOUT = httpx.Timeout(connect=10.0, write=60.0, read=300.0, pool=None)
MOST_DEADLINE_MS = 86_400_000
M = TypeVar("M", bound=BaseModel)


class Options(TypedDict, total=False):
    """What may be asked of a clip.

    model: the bundle that judges, the service's default without it. explain: say where on each face the
    evidence lies. max_faces: judge at most so many. timeline: give the score of each moment, as it does
    without this. wait_s: answer within so many whole seconds of each attempt (RFC 7240), from what was seen
    until then. deadline_s: seconds for all of it, the upload and further attempts included; the service is
    told what is left, to answer from what it has seen by then.
    """

    model: str | None
    explain: bool
    max_faces: int | None
    timeline: bool
    wait_s: int | None
    deadline_s: float | None


@dataclass(frozen=True, slots=True)
class Call:
    """One question, and by when it is to be answered."""

    path: str
    deadline: Deadline
    method: str = "GET"
    params: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    upload: Upload | None = None

    @property
    def repeatable(self) -> bool:
        """Whether it can be asked again."""
        return self.upload is None or self.upload.repeatable

    def request(
        self, http: httpx.Client | httpx.AsyncClient, url: str, key: str | None, content: Any
    ) -> httpx.Request:
        """The request of one attempt. content: how the clip is read. Raises TimedOut when it is too late."""
        self.deadline.check()
        left_s = self.deadline.left_s()
        params, headers = dict(self.params), dict(self.headers)
        if self.deadline.seconds is not None and self.upload is not None:
            params["deadline_ms"] = str(_told_ms(left_s))
        if key is not None:
            headers[KEY_HEADER] = key
        if self.upload is not None and self.upload.size is not None:
            headers["Content-Length"] = str(self.upload.size)
        limits = {name: least(seconds, left_s) for name, seconds in http.timeout.as_dict().items()}
        return http.build_request(
            self.method,
            url + self.path,
            params=params,
            headers=headers,
            content=content,
            timeout=httpx.Timeout(**limits),
        )


def checked_url(url: str) -> str:
    """The address without a slash at its end. Raises ValueError."""
    try:
        known = httpx.URL(url)
    except httpx.InvalidURL as e:
        raise ValueError(f"{url!r} is no address: {e}") from e
    if known.scheme not in {"http", "https"} or not known.host or known.query or known.fragment:
        raise ValueError(f"{url!r} is no address of a service; try http://127.0.0.1:8000")
    return url.rstrip("/")


def checked_key(key: str | None) -> str | None:
    """The key, where a header can hold it. Raises ValueError, which does not tell the key."""
    if key is not None and (not key or not key.isascii() or not key.isprintable() or " " in key):
        raise ValueError("a key has one or more ASCII characters, none of them a space")
    return key


def detecting(
    upload: Upload, *, crops: bool = False, events: bool = False, **options: Unpack[Options]
) -> Call:
    """The question about one clip, or about faces that were cut out of it."""
    given = {
        "model": options.get("model"),
        "explain": options.get("explain"),
        "max_faces": options.get("max_faces"),
        "timeline": options.get("timeline"),
    }
    headers = {
        "Content-Type": CROPS_TYPE if crops else CLIP_TYPE,
        "Accept": f"{MEDIA_TYPE}, application/json;q=0.9" if events else "application/json",
    }
    wait_s = options.get("wait_s")
    if wait_s is not None:
        headers["Prefer"] = f"wait={wait_s}"
    return Call(
        "/v1/detect/crops" if crops else "/v1/detect",
        Deadline(options.get("deadline_s")),
        method="POST",
        params={
            name: str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in given.items()
            if value is not None
        },
        headers=headers,
        upload=upload,
    )


def model_path(name: str) -> str:
    """Where one model's card is."""
    return f"/v1/models/{quote(name, safe='')}"


@contextmanager
def translated(deadline: Deadline) -> Iterator[None]:
    """Errors of the transport as those of this package."""
    try:
        yield
    except (TimeoutError, httpx.TimeoutException) as e:
        if deadline.left_s() == 0:
            raise deadline.missed() from e
        if isinstance(e, httpx.ReadTimeout):
            raise TimedOut("the service sent nothing for too long") from e
        raise Unreachable(f"{type(e).__name__}: {e}") from e
    except httpx.TransportError as e:
        raise Unreachable(f"{type(e).__name__}: {e}") from e


def refusal(response: httpx.Response) -> ProblemError | UnexpectedAnswer:
    """What to raise for a response, read already, that is no success."""
    if response.is_redirect:
        return UnexpectedAnswer(f"redirected to {response.headers.get('location')}: use that address")
    if not response.is_error:
        return UnexpectedAnswer(f"status {response.status_code} is none that is expected")
    return problem_error(response.status_code, response.reason_phrase, response.headers, response.content)


def parsed(response: httpx.Response, kind: type[M]) -> M:
    """The content of a response that was read already. Raises UnexpectedAnswer."""
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as e:
        raise UnexpectedAnswer(f"what came is no {kind.__name__}: {e}") from e


def answered(response: httpx.Response, upload: Upload) -> Answer:
    """The answer about a clip. Raises UnexpectedAnswer, or WrongDigest."""
    check_digest(response, upload)
    return parsed(response, Answer)


def check_digest(response: httpx.Response, upload: Upload) -> None:
    """Raises WrongDigest where the service names the digest (RFC 9530) of anything but what was sent.

    Where it names none, as behind a proxy that drops the field, nothing can be said.
    """
    received = response.headers.get("content-digest")
    sent = f"sha-256=:{base64.b64encode(upload.digest()).decode()}:"
    if received is not None and received != sent:
        raise WrongDigest(f"the service has received {received}, and {sent} was sent")


def least(seconds: float | None, left_s: float) -> float | None:
    """The shorter of a timeout, None for none, and what is left of the deadline."""
    shorter = min(seconds if seconds is not None else float("inf"), left_s)
    return None if shorter == float("inf") else shorter


def _told_ms(left_s: float) -> int:
    """Milliseconds that the service is told: a tenth, at most half a second, is kept for the way back."""
    return max(1, min(MOST_DEADLINE_MS, int(1000 * (left_s - min(0.5, left_s / 10)))))
