"""Around every request: its id, its line in the log, its metrics, and the last line of defence."""

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.logs import request_id
from service.metrics import Metrics
from service.problems import problem_response
from service.tracing import OFF, Span, Tracer, request_span

HEADER = "X-Request-ID"
CLIENT_GONE = 499
PROBED = frozenset({"/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"})
"""Routes that machines ask every few seconds; their lines would drown all others."""
_SANE = re.compile(r"[A-Za-z0-9._:@/+=-]{1,128}")

log = logging.getLogger("service.access")


class RequestMiddleware:
    """Plain ASGI: anything that wraps `receive` would hide from the handler that the client has gone."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracer: Tracer = OFF) -> None:
        self._app, self._metrics, self._tracer = app, metrics, tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with self._tracer.request(scope) as span:
            token = request_span.set(span)
            try:
                await self._serve(scope, receive, send, span)
            finally:
                request_span.reset(token)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        identity = _identity(Headers(scope=scope).get(HEADER))
        scope.setdefault("state", {}).update(request_id=identity, headers={})
        token = request_id.set(identity)
        begun = time.monotonic()
        status = CLIENT_GONE

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = identity
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            log.exception("unexpected error")
            if status != CLIENT_GONE:  # a response has begun and can not be taken back
                raise
            self._metrics.rejections.labels("internal-error").inc()
            response = problem_response("internal-error", "the server failed", request_id=identity)
            await response(scope, receive, send_with_id)
        finally:
            self._finish(scope, status, time.monotonic() - begun, span)
            request_id.reset(token)

    def _finish(self, scope: Scope, status: int, seconds: float, span: Span) -> None:
        found = getattr(scope.get("route"), "path", None)
        span.answered(scope, found, status)
        route = found or "unmatched"
        key = scope["state"].get("key")
        self._metrics.answered(scope["method"], route, status, seconds, key)
        level = logging.DEBUG if route in PROBED else logging.INFO
        extra = {"method": scope["method"][:16], "route": route, "status": status}
        extra |= {"key": key} if key is not None else {}
        log.log(level, "request", extra={**extra, "duration_s": round(seconds, 4)})


def _identity(given: str | None) -> str:
    return given if given is not None and _SANE.fullmatch(given) else uuid.uuid4().hex
