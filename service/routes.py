"""All other routes: models, health, metrics, and the text of problems."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel, ConfigDict, Field

from pipeline.bundle import Bundle
from service.keyset import KeySet
from service.problems import PROBLEMS, MalformedRequest, NotFound, Problem, Unavailable, in_markdown
from service.state import Service

router = APIRouter()
RETRY = {"Retry-After": "2"}
_UNREADY: dict[int | str, dict[str, Any]] = {
    503: {"model": Problem, "content": {"application/problem+json": {}}, "description": "Not ready"}
}
_UNKNOWN: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "content": {"application/problem+json": {}}, "description": "Unknown"}
}

_EXTRA: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "content": {"application/problem+json": {}}, "description": "Unknown parameter"}
}
_V2_UNREADY: dict[int | str, dict[str, Any]] = {503: {"description": "Not ready"}}


class ProtocolError(BaseModel):
    """An error in the words of the Open Inference Protocol."""

    error: str


class ModelSummary(BaseModel):
    """A bundle that is served."""

    model_config = ConfigDict(frozen=True)

    id: str
    digest: str
    trained: bool
    precision: str
    calibration: str | None
    provider: str | None = Field(description="What ONNX Runtime runs it on; null while it is being loaded.")


class ModelList(BaseModel):
    """All bundles, and which one answers when none is named."""

    default: str
    models: list[ModelSummary]


class ModelCard(ModelSummary):
    """One bundle with its card in Markdown and its manifest."""

    card: str
    manifest: dict[str, Any]


@router.get("/v1/models", response_model=ModelList, responses=_EXTRA | _UNREADY, tags=["models"])
async def list_models(request: Request) -> ModelList:
    """The bundles that are served."""
    service = _service(request)
    _no_parameters(request)
    models = [ModelSummary(**_summary(service, b)) for b in service.bundles.by_id.values()]
    return ModelList(default=service.bundles.default, models=models)


@router.get("/v1/models/{name}", response_model=ModelCard, responses=_EXTRA | _UNKNOWN, tags=["models"])
async def model_card(request: Request, name: str) -> ModelCard:
    """What a bundle was trained on, how well it was measured to do, and what it can not do."""
    _no_parameters(request)
    service = _service(request)
    bundle = service.bundles.by_id.get(name)
    if bundle is None:
        raise NotFound(f"no model {name[:64]!r}", problem="unknown-model")
    manifest = bundle.manifest.model_dump(mode="json")
    return ModelCard(**_summary(service, bundle), card=bundle.card, manifest=manifest)


@router.get("/v1/keys", response_model=KeySet, responses=_EXTRA, tags=["models"])
async def keys(request: Request, response: Response) -> KeySet:
    """The public keys of receipts as a JWK Set, without any where answers are not signed. Needs no key."""
    _no_parameters(request)
    response.headers["Cache-Control"] = "public, max-age=300"
    signer = _service(request).signer
    return signer.published if signer is not None else KeySet()


@router.get("/livez", tags=["health"], responses=_UNREADY)
async def livez(request: Request) -> JSONResponse:
    """200 while the process is worth keeping; never dependent on load."""
    if not _service(request).alive():
        raise Unavailable("a part is lost that only a restart brings back", problem="not-ready")
    return JSONResponse({"live": True})


@router.get("/readyz", tags=["health"], responses=_UNREADY)
async def readyz(request: Request) -> JSONResponse:
    """200 while work is taken on."""
    _service(request).check_ready()
    return JSONResponse({"ready": True})


@router.get("/v2/health/live", responses=_V2_UNREADY, tags=["open inference protocol"])
async def v2_live(request: Request) -> JSONResponse:
    """Liveness in the words of the Open Inference Protocol."""
    live = _service(request).alive()
    return JSONResponse({"live": live}, status_code=200 if live else 503, headers=None if live else RETRY)


@router.get("/v2/health/ready", responses=_V2_UNREADY, tags=["open inference protocol"])
async def v2_ready(request: Request) -> JSONResponse:
    """Readiness in the words of the Open Inference Protocol."""
    ready = _service(request).not_ready() is None
    return JSONResponse({"ready": ready}, status_code=200 if ready else 503, headers=None if ready else RETRY)


@router.get(
    "/v2/models/{name}/ready",
    responses=_V2_UNREADY | {404: {"model": ProtocolError, "description": "Unknown"}},
    tags=["open inference protocol"],
)
async def v2_model_ready(request: Request, name: str) -> JSONResponse:
    """Readiness of one bundle in the words of the Open Inference Protocol."""
    service = _service(request)
    if name not in service.bundles.by_id:
        raise NotFound(f"no model {name[:64]!r}", problem="unknown-model")
    ready = service.not_ready() is None
    return JSONResponse(
        {"name": name, "ready": ready}, status_code=200 if ready else 503, headers=None if ready else RETRY
    )


@router.get("/metrics", tags=["operations"], response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Metrics in the format of Prometheus or of OpenMetrics, as `Accept` asks."""
    encode, kind = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(_service(request).metrics.registry), headers={"Content-Type": kind})


@router.get("/problems/{name}", tags=["operations"], response_class=PlainTextResponse, responses=_UNKNOWN)
async def problem(name: str) -> Response:
    """What a type of problem means, and what to do about it."""
    if name not in PROBLEMS:
        raise NotFound(f"no problem {name[:64]!r}")
    return Response(in_markdown(name), media_type="text/markdown; charset=utf-8")


@router.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
async def root(request: Request) -> RedirectResponse:
    """The documentation of the routes, where no page is served."""
    if not _service(request).settings.docs:
        raise NotFound("there is nothing here")
    return RedirectResponse("/docs")


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _no_parameters(request: Request) -> None:
    for name in request.query_params:
        raise MalformedRequest(f"this route has no parameter {name[:40]!r}", problem="unknown-parameter")


def _summary(service: Service, bundle: Bundle) -> dict[str, Any]:
    m = bundle.manifest
    served = service.models.get(m.id)
    return {
        "id": m.id,
        "digest": bundle.digest,
        "trained": m.trained,
        "precision": m.precision,
        "calibration": m.calibration.id,
        "provider": served.engine.provider if served is not None else None,
    }
