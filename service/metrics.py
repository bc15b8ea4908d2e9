"""Metrics for Prometheus: base units, bounded labels, a registry of their own."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.process_collector import ProcessCollector

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nothing here reads


class Metrics:
    """All metrics of one service."""

    def __init__(self) -> None:
        self.registry = r = CollectorRegistry()
        ProcessCollector(registry=r)
        self.requests = Counter(
            "detector_http_requests", "Requests answered.", ["method", "route", "status"], registry=r
        )
        self.request_duration = Histogram(
            "detector_http_request_duration_seconds",
            "From the header of a request to the end of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=r,
        )
        self.in_flight = Gauge("detector_requests_in_flight", "Clips being worked on.", registry=r)
        self.stage_duration = Histogram(
            "detector_stage_duration_seconds",
            "Time of one clip in one stage.",
            ["stage"],
            buckets=SECONDS,
            registry=r,
        )
        self.queue_wait = Histogram(
            "detector_queue_wait_seconds",
            "Time of one clip before a decoder or a graph took it.",
            ["queue"],
            buckets=SECONDS,
            registry=r,
        )
        self.batch_size = Histogram(
            "detector_batch_size",
            "Items in one run of a graph: the count is that of runs, the sum that of items.",
            ["graph"],
            buckets=SIZES,
            registry=r,
        )
        self.batch_duration = Histogram(
            "detector_batch_duration_seconds",
            "Time of one run of a graph.",
            ["graph"],
            buckets=SECONDS,
            registry=r,
        )
        self.queued_samples = Gauge(
            "detector_queued_samples", "Samples that wait for an encoder.", registry=r
        )
        self.verdicts = Counter("detector_verdicts", "Clips answered.", ["verdict"], registry=r)
        self.rejections = Counter(
            "detector_rejections", "Requests answered with a problem, by its type.", ["reason"], registry=r
        )
        self.key_requests = Counter(
            "detector_key_requests",
            "Requests with a known key, by its name and the class of their status.",
            ["key", "status"],
            registry=r,
        )
        self.decoder_restarts = Counter(
            "detector_decoder_restarts", "Decoder processes replaced.", ["reason"], registry=r
        )
        self.upload_bytes = Counter("detector_upload_bytes", "Bytes of clips received.", registry=r)
        self.canary_runs = Counter(
            "detector_canary_runs",
            "Self-tests: right, wrong, unanswered, or of a bundle that knows no answer.",
            ["model", "result"],
            registry=r,
        )
        self.canary_score = Gauge(
            "detector_canary_score",
            "Probability of `fake` that was last answered to the golden clip.",
            ["model"],
            registry=r,
        )
        self.canary_expected = Gauge(
            "detector_canary_expected", "The one that the bundle's manifest knows.", ["model"], registry=r
        )
        self.bundle = Info("detector_bundle", "Bundles served.", ["id"], registry=r)
        self.sandbox = Info("detector_sandbox", "What decoder processes are confined by.", registry=r)

    def on_batch(self, graph: str) -> Callable[[int, float], None]:
        """What a batcher tells of each run."""

        def observe(items: int, seconds: float) -> None:
            self.batch_size.labels(graph).observe(items)
            self.batch_duration.labels(graph).observe(seconds)

        return observe

    def answered(self, method: str, route: str, status: int, seconds: float, key: str | None = None) -> None:
        """Count one request. key: the name of the key that it came with."""
        known = method if method in METHODS else "other"
        self.requests.labels(known, route, str(status)).inc()
        self.request_duration.labels(route).observe(seconds)
        if key is not None:
            self.key_requests.labels(key, f"{status // 100}xx").inc()

    def keep_keys(self, names: frozenset[str]) -> None:
        """Forget the counts of all other keys."""
        for metric in list(self.key_requests.collect()):
            for sample in metric.samples:
                if sample.labels["key"] not in names:
                    self.key_requests.remove(sample.labels["key"], sample.labels["status"])
