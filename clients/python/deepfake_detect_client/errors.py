"""All that can go wrong.

    ClientError
    ├── ProblemError            the service refuses, and says why
    │   ├── BadRequest          400: malformed, or a parameter it does not take
    │   ├── KeyRefused          401, 403: no key, or not a valid one
    │   ├── NotFound            404: no such model, or no such service at this address
    │   ├── ClipTooLarge        413
    │   ├── ClipRefused         415, 422: no media that it takes, or damaged
    │   ├── RateLimited         429: the key is used too often
    │   ├── Unavailable         502, 503: overloaded, starting or stopping
    │   └── DeadlineExceeded    504: not in time, by the service's clock
    ├── Unreachable             no answer: no connection, or it broke off
    ├── TimedOut                no answer in time, by the clock here
    ├── WrongDigest             the service has received other bytes than those that were sent
    └── UnexpectedAnswer        an answer, but none of this service's; a proxy's, say

RateLimited, Unavailable and Unreachable are what is tried again.
"""

import email.utils
import math
import time
from collections.abc import Mapping

from pydantic import ValidationError

from deepfake_detect_client.answers import Problem

MOST_DETAIL = 300


class ClientError(Exception):
    """Base of all errors here, but for those of the file that is to be sent (OSError)."""


class ProblemError(ClientError):
    """What the service says is wrong (RFC 9457).

    type: `/problems/NAME`, as in docs/errors.md; `about:blank` where somebody else answered.
    retry_after_s: seconds after which to try again, where it says so.
    """

    def __init__(self, problem: Problem, *, retry_after_s: float | None = None) -> None:
        super().__init__(f"{problem.title}: {problem.detail}" if problem.detail else problem.title)
        self.problem = problem
        self.type, self.status, self.detail = problem.type, problem.status, problem.detail
        self.retry_after_s = retry_after_s


class BadRequest(ProblemError):
    """The request is malformed, or has a parameter that the service does not take."""


class KeyRefused(ProblemError):
    """The service wants a key, and none or not a valid one was sent."""


class NotFound(ProblemError):
    """No such model, or nothing of the kind at this address."""


class ClipTooLarge(ProblemError):
    """The clip has more bytes than the service takes."""


class ClipRefused(ProblemError):
    """The clip is no media that is accepted, or can not be decoded."""


class RateLimited(ProblemError):
    """The key is used more often than it may be."""


class Unavailable(ProblemError):
    """The service takes no work now."""


class DeadlineExceeded(ProblemError):
    """The service had no answer in time."""


class Unreachable(ClientError):
    """There was no connection, or it broke off before the answer."""


class TimedOut(ClientError):
    """There was no answer in time."""


class WrongDigest(ClientError):
    """The service received other bytes than those that were sent."""


class UnexpectedAnswer(ClientError):
    """The answer is none that this service gives."""


_BY_STATUS: dict[int, type[ProblemError]] = {
    400: BadRequest,
    401: KeyRefused,
    403: KeyRefused,
    404: NotFound,
    413: ClipTooLarge,
    415: ClipRefused,
    422: ClipRefused,
    429: RateLimited,
    502: Unavailable,
    503: Unavailable,
    504: DeadlineExceeded,
}


def problem_error(status: int, reason: str, headers: Mapping[str, str], body: bytes) -> ProblemError:
    """The error of a response; `body` need not be a problem document, since proxies answer as well."""
    try:
        problem = Problem.model_validate_json(body)
    except ValidationError:
        detail = body[:MOST_DETAIL].decode("utf-8", "replace").strip()
        problem = Problem(
            type="about:blank", title=f"{status} {reason}".strip(), status=status, detail=detail
        )
    kind = _BY_STATUS.get(status, ProblemError)
    return kind(problem, retry_after_s=retry_after_s(headers.get("retry-after")))


def retry_after_s(value: str | None) -> float | None:
    """Seconds that a Retry-After field asks for (RFC 9110, 10.2.3): a number, or a date."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
