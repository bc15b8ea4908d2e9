"""The parts of the service, whether they are well, and who is let in."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.credentials import Trust
from pipeline.media import Limits
from service.anchors import trust_of
from service.batcher import Batcher
from service.child import DecoderConfig
from service.metrics import Metrics
from service.models import Bundles, Served, load
from service.pace import Pace
from service.problems import NotFound, Unavailable
from service.settings import Settings
from service.tracing import OFF, Tracer
from service.workers import DecoderPool

if TYPE_CHECKING:
    from service.receipts import Signer

LIVENESS_AFTER_S = 10.0
"""Seconds between the loss of a part, when readiness falls, and the fall of liveness: requests in
flight have that long to end before the process is replaced."""


class Service:
    """Everything that answers requests. `start` and `stop` frame its life."""

    def __init__(self, settings: Settings, bundles: Bundles, scratch: Path, tracer: Tracer = OFF) -> None:
        self.settings, self.bundles, self.scratch, self.tracer = settings, bundles, scratch, tracer
        self.metrics = Metrics()
        self.models: dict[str, Served] = {}
        trust = trust_of(settings)
        self.pool = _pool(settings, scratch, self.metrics, trust)
        self.signer = _signer(settings, trust)
        self.in_flight = 0
        self.pace = Pace()
        self.doubt: str | None = "the self-test has not passed yet"
        """Why answers can not be trusted, None while they can."""
        self._loaded = False
        self._draining = False

    async def start(self) -> None:
        """Load and warm up all parts. Raises BundleError, FaceModelError or NotConfined."""
        await self.pool.start()
        self.metrics.sandbox.info(self.pool.confinement.labels())
        for name, bundle in self.bundles.by_id.items():
            served = await asyncio.to_thread(load, bundle, self.settings, self.metrics, self.tracer)
            served.encoder.start()
            served.temporal.start()
            self.models[name] = served
            self.metrics.serve(name)
            self.metrics.bundle.labels(name).info(
                {
                    "digest": bundle.digest,
                    "precision": bundle.manifest.precision,
                    "trained": str(bundle.manifest.trained).lower(),
                    "provider": served.engine.provider,
                }
            )
        self._show_queues(asyncio.get_running_loop())
        self._loaded = True

    def _show_queues(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the metrics look at the queues whenever somebody asks for them."""
        self.metrics.queued_samples.set_function(lambda: self.queued_samples)
        served = self.models.values()
        queues: dict[str, list[DecoderPool] | list[Batcher[Any, Any]]] = {
            "decoder": [self.pool],
            "encoder": [model.encoder for model in served],
            "temporal": [model.temporal for model in served],
        }
        for name, parts in queues.items():
            self.metrics.queue_age.labels(name).set_function(partial(_oldest_s, parts, loop))

    async def stop(self) -> None:
        """End all parts; what they still work on fails."""
        self._loaded = False
        for served in self.models.values():
            await served.encoder.stop()
            await served.temporal.stop()
        await self.pool.stop()
        await asyncio.to_thread(self.tracer.close)

    def drain(self) -> None:
        """Say from now on that the service is not ready, so that balancers send nobody any more.

        Who comes nevertheless is let in for as long as connections are accepted: nobody could answer sooner.
        """
        self._draining = True

    @property
    def queued_samples(self) -> int:
        """Samples that wait for an encoder."""
        return sum(served.encoder.queued for served in self.models.values())

    def not_ready(self) -> str | None:
        """Why no work should be sent here, None when it should."""
        return "the server is shutting down" if self._draining else self._unable()

    def _unable(self) -> str | None:
        """Why no work can be taken on, None when it can."""
        if not self._loaded:
            return "the server is starting"
        for batcher in (b for m in self.models.values() for b in (m.encoder, m.temporal)):
            if batcher.dead is not None:
                return f"the batcher {batcher.name} has ended"
        return self.doubt if self.pool.healthy else "no decoder can be started"

    def alive(self) -> bool:
        """False when a part is lost that only a restart brings back, and requests had time to end."""
        now = asyncio.get_running_loop().time()
        ends = [b.dead_since for m in self.models.values() for b in (m.encoder, m.temporal)]
        return self._draining or all(end is None or now - end < LIVENESS_AFTER_S for end in ends)

    def model(self, name: str | None) -> Served:
        """The bundle of that name, the default without one. Raises NotFound."""
        wanted = self.bundles.default if name is None else name
        if wanted not in self.models:
            known = ", ".join(self.models)
            raise NotFound(f"no model {wanted[:64]!r}; there is {known}", problem="unknown-model")
        return self.models[wanted]

    def check_ready(self) -> None:
        """Raises Unavailable while no work should be sent here."""
        _check(self.not_ready())

    @contextmanager
    def admitted(self, patience_s: float | None = None) -> Iterator[None]:
        """A place among the requests in flight for the length of the block.

        patience_s: seconds after which a whole answer would be too late. Raises Unavailable.
        """
        _check(self._unable())
        if self.in_flight >= self.settings.max_in_flight:
            raise self._overloaded(f"{self.in_flight} clips are being worked on")
        if (queued := self.queued_samples) >= self.settings.max_queued_samples:
            raise self._overloaded(f"{queued} samples are waiting")
        if patience_s is not None and (wait_s := self.pace.expected_s) > patience_s:
            raise self._overloaded(f"an answer would take {wait_s:.0f} s, which is longer than there is time")
        self.in_flight += 1
        self.metrics.in_flight.set(self.in_flight)
        try:
            yield
        finally:
            self.in_flight -= 1
            self.metrics.in_flight.set(self.in_flight)

    def _overloaded(self, detail: str) -> Unavailable:
        """When to come back: as soon as a place is free, at the pace that was measured."""
        after = self.pace.retry_after(asyncio.get_running_loop().time())
        return Unavailable(detail, problem="overloaded", retry_after_s=after)


def _oldest_s(queues: Iterable[DecoderPool | Batcher[Any, Any]], loop: asyncio.AbstractEventLoop) -> float:
    now = loop.time()
    return max(queue.oldest_s(now) for queue in queues)


def _check(why_not: str | None) -> None:
    if why_not is not None:
        raise Unavailable(why_not, problem="not-ready", retry_after_s=2.0)


def _signer(settings: Settings, trust: Trust) -> "Signer | None":
    """What signs answers, None where there are no keys. Raises SigningKeysError."""
    if settings.signing_key_file is None:
        return None
    from service.receipts import Signer
    from service.signing import read_signing_keys

    return Signer(read_signing_keys(settings.signing_key_file), settings, trust)


def _pool(settings: Settings, scratch: Path, metrics: Metrics, trust: Trust) -> DecoderPool:
    limits = Limits(max_pixels=settings.max_pixels, max_duration_s=settings.max_duration_s)
    config = DecoderConfig(
        face_detector=settings.face_detector,
        face_model=str(settings.face_model) if settings.face_model else None,
        accept_license=settings.accept_insightface_license,
        memory_bytes=settings.decode_memory_bytes,
        limits=limits,
        scratch=str(scratch),
        sandbox=settings.sandbox,
        trust=trust,
    )
    return DecoderPool(
        config,
        size=settings.decoders,
        clips=settings.decoder_clips,
        decode_timeout_s=settings.decode_timeout_s,
        on_restart=lambda reason: metrics.decoder_restarts.labels(reason).inc(),
    )
