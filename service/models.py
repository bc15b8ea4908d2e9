"""The bundles that are served, and what runs them."""

import logging
import time
from dataclasses import dataclass

from pipeline.bundle import Bundle, bundles, default_bundle, open_bundle
from pipeline.engine import Engine
from pipeline.errors import BundleCorrupt
from pipeline.frames import F32, U8
from pipeline.scores import TrackScores
from service.batcher import Batcher
from service.graphs import EncoderGraph, TemporalGraph
from service.metrics import Metrics
from service.settings import Settings
from service.tracing import OFF, Tracer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Bundles:
    """Verified bundles by id, and which of them is the default."""

    by_id: dict[str, Bundle]
    default: str


def open_bundles(settings: Settings) -> Bundles:
    """Verify every bundle of the directory. Raises BundleError."""
    default = default_bundle(settings.models_dir, settings.model).name
    by_id: dict[str, Bundle] = {}
    for name, path in bundles(settings.models_dir).items():
        by_id[name] = open_bundle(path, allow_untrained=settings.allow_untrained)
        if (found := by_id[name].manifest.id) != name:
            raise BundleCorrupt(f"{path} holds the bundle {found}, not the one that it is named after")
    return Bundles(by_id, default)


@dataclass(frozen=True, slots=True)
class Served:
    """One bundle at work: its engine, and a batcher for each of its graphs."""

    bundle: Bundle
    engine: Engine
    encoder: Batcher[U8, F32]
    temporal: Batcher[F32, TrackScores]


def load(bundle: Bundle, settings: Settings, metrics: Metrics, tracer: Tracer = OFF) -> Served:
    """Open both graphs and run every shape once; the batchers are not started.

    Logs what the bundle runs on, since that decides its speed. Raises BundleError.
    """
    began = time.monotonic()
    engine = Engine(
        bundle,
        provider=settings.provider,
        threads=settings.threads,
        parallel=True,
        gpu_memory_bytes=settings.gpu_memory_bytes,
    )
    max_batch = settings.max_batch or engine.best_batch
    encoder = EncoderGraph(engine, bundle.manifest, max_batch=max_batch)
    temporal = TemporalGraph(engine, bundle.manifest)
    opened = time.monotonic()
    try:
        encoder.warm()
        temporal.warm()
    except Exception as e:  # ONNX Runtime's errors share no public base class
        raise BundleCorrupt(f"{bundle.path}: a graph can not be run: {e}") from e
    log.info(
        "bundle loaded",
        extra={
            "bundle": bundle.manifest.id,
            "digest": bundle.digest,
            "precision": bundle.manifest.precision,
            "provider": engine.provider,
            "threads": engine.threads,
            "encoder_runs": engine.encoder_runs,
            "max_batch": max_batch,
            "open_s": round(opened - began, 3),
            "warm_up_s": round(time.monotonic() - opened, 3),
        },
    )
    encoding = Batcher(
        f"encoder {bundle.manifest.id}",
        encoder.run,
        encoder.probe,
        max_batch=max_batch,
        max_queued=settings.max_queued_samples,
        stall_s=settings.request_timeout_s,
        threads=engine.encoder_runs,
        on_batch=metrics.on_batch("encoder", encoder.fill),
        tracer=tracer,
    )
    judging = Batcher(
        f"temporal {bundle.manifest.id}",
        temporal.run,
        temporal.probe,
        max_batch=temporal.rungs[-1],
        max_queued=settings.max_queued_samples,
        stall_s=settings.request_timeout_s,
        source=encoding,
        on_batch=metrics.on_batch("temporal", temporal.fill),
        tracer=tracer,
    )
    return Served(bundle, engine, encoding, judging)
