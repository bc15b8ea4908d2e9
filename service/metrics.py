"""Metrics for Prometheus: base units, bounded labels, a registry of their own."""

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.process_collector import ProcessCollector

from pipeline.answer import Answer, Verdict
from pipeline.credentials import Unchecked
from service.child import Reason
from service.problems import PROBLEMS

Item = TypeVar("Item")
Stage = Literal["upload", "queue", "decode", "encode", "temporal", "explain"]
"""Where a clip can be given up; `queue` is the wait for a decoder."""
Cause = Literal["client", "deadline"]
Result = Literal["right", "wrong", "unanswered", "unknown"]
Found = Literal["valid", "invalid", Unchecked]
"""What a manifest is, or why it was not looked into."""

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
LAGS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SCORES = tuple(k / 20 for k in range(1, 21))
FACES = (0, 1, 2, 3, 4, 6, 8, 16, 32, 64)
FILLS = (0.25, 0.5, 0.625, 0.75, 0.875, 1)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nothing here reads


class Metrics:
    """All metrics of one service.

    A series of which all values are known is there from the start: one that begins at 1 shows no increase.
    """

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
        self.batch_fill = Histogram(
            "detector_batch_fill_ratio",
            "Share of one run of a graph that is no padding.",
            ["graph"],
            buckets=FILLS,
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
        self.queue_age = Gauge(
            "detector_queue_oldest_age_seconds",
            "Time that what has waited longest has waited by now; 0 while nothing waits.",
            ["queue"],
            registry=r,
        )
        self.loop_lag = Histogram(
            "detector_event_loop_lag_seconds",
            "How late the event loop was, looked at four times a second.",
            buckets=LAGS,
            registry=r,
        )
        self.verdicts = Counter("detector_verdicts", "Clips answered.", ["model", "verdict"], registry=r)
        self.manifests = Counter(
            "detector_manifests",
            "C2PA manifests in answered clips, by what they are.",
            ["result"],
            registry=r,
        )
        self.clip_score = Histogram(
            "detector_clip_score",
            "Probability of `fake` that clips were answered with.",
            ["model"],
            buckets=SCORES,
            registry=r,
        )
        self.clip_faces = Histogram(
            "detector_clip_faces", "Faces followed in an answered clip.", buckets=FACES, registry=r
        )
        self.cancellations = Counter(
            "detector_cancellations",
            "Clips given up before their answer, by where they were and why.",
            ["stage", "cause"],
            registry=r,
        )
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
        for problem in PROBLEMS:
            self.rejections.labels(problem)
        for reason in get_args(Reason):
            self.decoder_restarts.labels(reason)
        for found in get_args(Found):
            self.manifests.labels(found)
        for stage in get_args(Stage):
            for cause in get_args(Cause):
                self.cancellations.labels(stage, cause)

    def serve(self, model: str) -> None:
        """Begin the series of a bundle."""
        for verdict in get_args(Verdict):
            self.verdicts.labels(model, verdict)
        for result in get_args(Result):
            self.canary_runs.labels(model, result)
        self.clip_score.labels(model)

    def on_batch(
        self, graph: str, fill: Callable[[Sequence[Item]], float]
    ) -> Callable[[Sequence[Item], float], None]:
        """What a batcher tells of each run. fill: the share of a run of such items that is no padding."""
        sizes, fills, durations = (
            metric.labels(graph) for metric in (self.batch_size, self.batch_fill, self.batch_duration)
        )

        def observe(items: Sequence[Item], seconds: float) -> None:
            sizes.observe(len(items))
            fills.observe(fill(items))
            durations.observe(seconds)

        return observe

    def judged(self, answer: Answer) -> None:
        """Count one clip that a client has sent and gets an answer to."""
        model = answer.model.id
        self.verdicts.labels(model, answer.verdict).inc()
        self.clip_faces.observe(len(answer.faces))
        found = answer.media.provenance
        if found.c2pa == "present":
            self.manifests.labels(found.unchecked or ("valid" if found.valid else "invalid")).inc()
        if answer.probabilities is not None:
            self.clip_score.labels(model).observe(answer.probabilities.fake)

    def cancelled(self, stage: Stage, cause: Cause) -> None:
        """Count one clip that gets no answer since its client has gone, or since it would come too late."""
        self.cancellations.labels(stage, cause).inc()

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
