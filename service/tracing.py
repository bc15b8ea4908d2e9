"""What a request spent its time on, told to the operator's own collector where the operator wants it.

This is all that the rest of the service knows of it. What stands here records nothing and imports nothing;
with `DETECTOR_TRACES` its place is taken by `service.otel`. No span may hold what a client has sent or was
answered: no key, no value of a query, no name of a file, nothing of a clip, not even its hash or verdict, and
no text of an error, which may quote any of that.
"""

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Self

from starlette.types import Scope

from service.settings import Settings

Fact = bool | int | float | str


class Span:
    """A stretch of time, which ends with its block. This one is not recorded, nor are its parts."""

    ids: Mapping[str, str] = {}
    """What lines of the log say of it."""

    def start(self, name: str) -> "Span":  # noqa: ARG002 - for those that record
        """A part of it that begins now."""
        return self

    def note(self, **facts: Fact) -> None:
        """Keep facts: numbers, and words of ours."""

    def answered(self, scope: Scope, route: str | None, status: int) -> None:
        """Keep how the request was answered. route: its template, None where there is none for its path."""

    def end(self, error: BaseException | None = None) -> None:
        """End it, unless it has ended. error: what it failed with, of which the class alone is kept."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _where: TracebackType | None
    ) -> None:
        self.end(error)


class Tracer:
    """Begins spans. This one records none."""

    def request(self, scope: Scope) -> Span:  # noqa: ARG002 - for those that record
        """The span of a request that has just come."""
        return Span()

    def run(self, graph: str, spans: Iterable[Span]) -> Span:  # noqa: ARG002 - for those that record
        """The span of one run of a graph. spans: for each item in it the one that waits for its result."""
        return Span()

    def close(self) -> None:
        """Hand over what was recorded, in bounded time. Blocks."""


OFF = Tracer()
request_span: ContextVar[Span] = ContextVar("request_span", default=Span())  # noqa: B039 - it has no state
"""Span of the request that the running task works for."""


def tracer_of(settings: Settings) -> Tracer:
    """One that does what the settings say."""
    if not settings.traces:
        return OFF
    from service.otel import otlp_tracer

    return otlp_tracer()
