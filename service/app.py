"""The FastAPI application."""

import asyncio
import difflib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from pipeline.errors import MediaError
from service import detect, docs, lag, routes, web
from service.access import AccessMiddleware
from service.canary import Canary
from service.drain import DrainMiddleware
from service.headers import HeadersMiddleware
from service.middleware import CLIENT_GONE, RequestMiddleware
from service.problems import ServiceError, problem_of, problem_response
from service.state import Service
from service.version import VERSION

DESCRIPTION = (
    "Says whether the faces in a video clip were manipulated, how sure it is, which face, when and why."
)
SILENT: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
"""FastAPI's own would tell of queries and of errors in their own words, which `service.tracing`
does not."""


class _Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document of all routes, which says how keys are sent."""
        return docs.described(super().openapi())


def create_app(service: Service) -> FastAPI:
    """The application around a service, which is loaded in the background once the server listens.

    `app.state.loading` is the task that does so.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tasks: list[asyncio.Task[None]] = []

        async def load() -> None:
            await service.start()
            if every_s := service.settings.canary_every_s:
                canary = Canary(service)
                await canary.first()
                tasks.append(asyncio.create_task(canary.watch(every_s), name="canary"))
            service.doubt = None

        app.state.loading = asyncio.create_task(load(), name="load")
        tasks.append(app.state.loading)
        tasks.append(asyncio.create_task(lag.watch(service.metrics.loop_lag.observe), name="lag"))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await service.stop()

    settings = service.settings
    app = _Application(
        title="deepfake-detect",
        description=DESCRIPTION,
        version=VERSION,
        license_info={"name": "MIT", "identifier": "MIT"},
        lifespan=lifespan,
        openapi_url="/openapi.json" if settings.docs else None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=SILENT,
    )
    app.state.service = service
    app.include_router(detect.router)
    if settings.page:
        app.include_router(web.router)
    app.include_router(routes.router)
    if settings.docs:
        app.add_route("/docs", docs.page, include_in_schema=False)
        app.add_route("/docs/{name}", docs.part, include_in_schema=False)
    if settings.api_keys_file is not None:
        app.add_middleware(AccessMiddleware, keys_file=settings.api_keys_file, metrics=service.metrics)
    app.add_middleware(RequestMiddleware, metrics=service.metrics, tracer=service.tracer)
    app.add_middleware(HeadersMiddleware)
    app.add_middleware(
        DrainMiddleware,
        most_bytes=settings.max_upload_bytes,
        most_s=min(settings.upload_timeout_s, settings.shutdown_grace_s),
    )
    app.add_exception_handler(ServiceError, _on_error)
    app.add_exception_handler(MediaError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ClientDisconnect, _on_gone)
    return app


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError | MediaError)  # noqa: S101 - registered for these two
    headers = error.headers if isinstance(error, ServiceError) else {}
    return _problem(request, problem_of(error), str(error), headers)


async def _on_invalid(request: Request, error: Exception) -> Response:
    """What FastAPI finds wrong with parameters. The first finding is enough to go on."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
    finding: dict[str, Any] = error.errors()[0]
    name = str(finding["loc"][-1])
    if finding["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, detect.DetectQuery.model_fields, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return _problem(request, "unknown-parameter", f"there is no parameter {name[:40]!r}{hint}")
    return _problem(request, "invalid-parameter", f"{name[:40]!r}: {finding['msg']}")


async def _on_http(request: Request, error: Exception) -> Response:
    """What routing raises: nothing there, or not for this method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    names = {404: "not-found", 405: "method-not-allowed"}
    name = names.get(error.status_code, "malformed-request")
    return _problem(request, name, str(error.detail), dict(error.headers or {}))


async def _on_gone(_request: Request, _error: Exception) -> Response:
    """Nobody reads it; the status is for the log and the metrics."""
    return Response(status_code=CLIENT_GONE)


def _problem(request: Request, name: str, detail: str, headers: dict[str, str] | None = None) -> Response:
    request.app.state.service.metrics.rejections.labels(name).inc()
    all_headers = {**request.state.headers, **(headers or {})}
    response = problem_response(name, detail, request_id=request.state.request_id, headers=all_headers)
    if request.url.path.startswith("/v2/"):
        return JSONResponse({"error": detail}, status_code=response.status_code, headers=all_headers)
    return response
