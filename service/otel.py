"""Traces by OpenTelemetry, sent to a collector by OTLP over HTTP. Needs the extra `otel`.

OpenTelemetry's own environment variables (`OTEL_*`) say where to and which of them. A request goes on with
the trace that its `traceparent` names (W3C Trace Context). A run of a graph holds items of many requests, so
that it can be part of none of their traces and has one of its own: links lead from it to the requests, and
back to it from the parts of them that wait for its results. It is recorded when any of the requests is.
"""

import logging
import threading
from collections import Counter
from collections.abc import Iterable, Mapping

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.types import Scope

from service.metrics import METHODS
from service.middleware import PROBED
from service.tracing import Fact, Span, Tracer
from service.version import VERSION

CLOSE_S = 3.0
"""For the last spans when the server ends: a collector that does not take them must not hold it up."""
_W3C = TraceContextTextMapPropagator()


class RecordedSpan(Span):
    """A span of OpenTelemetry. request: the one that it is part of, itself without one."""

    def __init__(self, tracer: trace.Tracer, span: trace.Span, request: "RecordedSpan | None" = None) -> None:
        self._tracer, self.otel, self.request = tracer, span, request or self
        context = span.get_span_context()
        ids = {"trace_id": trace.format_trace_id(context.trace_id)}
        ids["span_id"] = trace.format_span_id(context.span_id)
        self.ids: Mapping[str, str] = ids if context.is_valid else {}

    def start(self, name: str) -> Span:
        """A part of it that begins now."""
        part = self._tracer.start_span(name, context=trace.set_span_in_context(self.otel, Context()))
        return RecordedSpan(self._tracer, part, self.request)

    def note(self, **facts: Fact) -> None:
        """Keep facts, under the name `detector.*`."""
        self.otel.set_attributes({f"detector.{name}": fact for name, fact in facts.items()})

    def answered(self, scope: Scope, route: str | None, status: int) -> None:
        """By the conventions for HTTP servers. Only a route without parameters gives its path away."""
        self.otel.set_attribute("http.response.status_code", status)
        if route is not None:
            self.otel.set_attribute("http.route", route)
            if scope["path"] == route:
                self.otel.set_attribute("url.path", route)
            self.otel.update_name(f"{_verb(scope)} {route}")
        if status >= 500:
            self._fail(str(status))

    def end(self, error: BaseException | None = None) -> None:
        """End it, unless it has ended."""
        if self.otel.is_recording():
            if error is not None:
                self._fail(type(error).__qualname__)
            self.otel.end()

    def _fail(self, kind: str) -> None:
        self.otel.set_attribute("error.type", kind)
        self.otel.set_status(trace.StatusCode.ERROR)


class RecordingTracer(Tracer):
    """Hands all spans to a processor."""

    def __init__(self, processor: SpanProcessor) -> None:
        own = Resource.create({"service.name": "deepfake-detect", "service.version": VERSION})
        resource = own.merge(OTELResourceDetector().detect())  # the operator's names before ours
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        # Whether a run is recorded has been decided with its requests.
        runs = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
        for provider in (self._provider, runs):
            provider.add_span_processor(processor)
        self._tracer, self._runs = self._provider.get_tracer("service"), runs.get_tracer("service")

    def request(self, scope: Scope) -> Span:
        """The span of a request that has just come; nothing of probes."""
        if scope["path"] in PROBED:
            return Span()
        headers = Headers(scope=scope)
        parents = headers.getlist("traceparent")
        carrier = {"traceparent": parents, "tracestate": headers.getlist("tracestate")}
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        span = self._tracer.start_span(
            _verb(scope),
            context=_W3C.extract(carrier if len(parents) == 1 else {}, Context()),
            kind=trace.SpanKind.SERVER,
            attributes={"http.request.method": method, "url.scheme": scope["scheme"]},
        )
        return RecordedSpan(self._tracer, span)

    def run(self, graph: str, spans: Iterable[Span]) -> Span:
        """The span of one run of a graph; nothing where no request is recorded."""
        waiting = Counter(s for s in spans if isinstance(s, RecordedSpan) and s.otel.is_recording())
        requests: Counter[RecordedSpan] = Counter()
        for span, items in waiting.items():
            requests[span.request] += items
        if not requests:
            return Span()
        run = self._runs.start_span(
            graph,
            context=Context(),
            links=[trace.Link(r.otel.get_span_context(), {"detector.items": n}) for r, n in requests.items()],
            attributes={"detector.items": waiting.total()},
        )
        for span, items in waiting.items():
            span.otel.add_link(run.get_span_context(), {"detector.items": items})
        return RecordedSpan(self._runs, run)

    def close(self) -> None:
        """Hand over what was recorded, within CLOSE_S; the rest is lost."""
        closing = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        closing.start()
        closing.join(CLOSE_S)


def _verb(scope: Scope) -> str:
    """The method in the name of a span, which has to be one of few."""
    return scope["method"] if scope["method"] in METHODS else "HTTP"


def otlp_tracer() -> Tracer:
    """One that sends spans as `OTEL_EXPORTER_OTLP_*` and `OTEL_BSP_*` say."""
    # It warns of every malformed tracestate and quotes it, so that strangers could fill the log.
    logging.getLogger("opentelemetry.trace").setLevel(logging.ERROR)
    return RecordingTracer(BatchSpanProcessor(OTLPSpanExporter()))
