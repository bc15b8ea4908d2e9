"""What of the answers is a failure."""

import json
from dataclasses import dataclass

from benchmarks.processes import KIB
from reliability.cases import Case
from reliability.wire import Reply

ALLOWED_SHARE, ALLOWED_BYTES = 0.10, 32 * KIB * KIB
"""By how much memory may have grown: a share of what there was, and so many bytes more."""
ALLOWED = frozenset({503, 504})
"""Of the statuses of a server's errors: those that ask a client to come back, or to be more patient."""
PROBLEM_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Record:
    """One upload and what came back. problem: the last part of the problem's type, empty without one."""

    number: int
    kind: str
    done: tuple[str, ...]
    status: int
    problem: str
    seconds: float
    retry_after: str | None
    lost: str | None

    @classmethod
    def of(cls, case: Case, reply: Reply) -> "Record":
        """Of a case and its reply."""
        return cls(
            case.number,
            case.kind,
            case.done,
            reply.status,
            problem_in(reply),
            reply.end_s,
            reply.headers.get("retry-after"),
            reply.lost,
        )


def problem_in(reply: Reply) -> str:
    """The name of the problem that an answer tells; empty where it tells none."""
    if reply.headers.get("content-type") != PROBLEM_TYPE:
        return ""
    try:
        return str(json.loads(reply.body)["type"]).rpartition("/")[2]
    except (ValueError, KeyError, TypeError):
        return ""


def fault(record: Record, most_s: float) -> str | None:
    """Why an answer is a failure of the server, None where it is none. most_s: seconds that it may take."""
    if record.lost is not None:
        return record.lost
    if record.seconds > most_s:
        return f"answered after {record.seconds:.1f} s"
    if record.status != 200 and not record.problem:
        return f"status {record.status} without a problem"
    if record.status == 503 and not retry_after(record.retry_after):
        return "503 without Retry-After"
    return f"status {record.status}" if record.status >= 500 and record.status not in ALLOWED else None


def retry_after(value: str | None) -> bool:
    """Whether a Retry-After field names seconds to wait, 1 at least."""
    return value is not None and value.isdecimal() and int(value) >= 1


def grown(before: int, after: int) -> str | None:
    """Why memory has grown too much, None where it has not. Both in bytes."""
    most = before * (1 + ALLOWED_SHARE) + ALLOWED_BYTES
    return None if after <= most else f"memory grew from {before:,} to {after:,} bytes"
