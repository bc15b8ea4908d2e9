"""Figures from raw results: what the document and the plots both show."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.stages import SHARED, STAGES
from benchmarks.summary import Spread, percentile

Json = dict[str, Any]
LONG_S = 30
"""Seconds from which on memory must not grow any more."""


LEAST_ROUNDS = 3
"""By turns, before one server may be called faster than another."""


@dataclass(frozen=True, slots=True)
class StageCost:
    """Spreads over the rounds of one stage, in seconds."""

    wall: Spread
    cpu: Spread


@dataclass(frozen=True, slots=True)
class Limit:
    """The service against its stages; ratios are taken within a round. Times in seconds."""

    stages: dict[str, StageCost]
    shared: StageCost
    whole: StageCost
    floor: Spread
    cost: Spread
    idle: Spread
    latency_ratio: Spread
    capacity: Spread
    rate: Spread
    rate_ratio: Spread
    cpu_per_request: Spread
    p50: float
    p95: float
    p99: float


def limit(r: Json) -> Limit:
    """Of the results of `limit`."""
    rounds: list[Json] = r["rounds"]

    def over(value: Callable[[Json], float]) -> Spread:
        return Spread.of([value(one) for one in rounds])

    def of(stage: str) -> StageCost:
        return StageCost(
            over(lambda x: x["floor"][stage]["wall_s"]), over(lambda x: x["floor"][stage]["cpu_s"])
        )

    def floor(x: Json) -> float:
        return sum(float(x["floor"][s]["wall_s"]) for s in STAGES)

    def cost(x: Json) -> float:
        return sum(float(x["floor"][s]["cpu_s"]) for s in (*STAGES[:-1], SHARED))

    def idle(x: Json) -> float:
        return percentile(x["idle_s"], 0.5)

    def rate(x: Json) -> float:
        return float(x["load"]["requests_per_s"])

    cores = int(r["cores"])
    latencies = [s for x in rounds for s in x["load"]["latency_s"]]
    return Limit(
        stages={s: of(s) for s in STAGES},
        shared=of(SHARED),
        whole=of("whole"),
        floor=over(floor),
        cost=over(cost),
        idle=over(idle),
        latency_ratio=over(lambda x: idle(x) / floor(x)),
        capacity=over(lambda x: cores / cost(x)),
        rate=over(rate),
        rate_ratio=over(lambda x: rate(x) * cost(x) / cores),
        cpu_per_request=over(lambda x: x["load"]["cpu_s_per_request"]),
        p50=percentile(latencies, 0.5),
        p95=percentile(latencies, 0.95),
        p99=percentile(latencies, 0.99),
    )


@dataclass(frozen=True, slots=True)
class Growth:
    """spread_from_30_s: the highest peak memory by the lowest, of clips of 30 s and more; None for fewer
    than two of them."""

    spread_from_30_s: float | None


def growth(r: Json) -> Growth:
    """Of the results of `growth`."""
    peaks = [float(c["peak_bytes"]) for c in r["lengths"] if c["seconds"] >= LONG_S]
    return Growth(max(peaks) / min(peaks) if len(peaks) > 1 else None)


@dataclass(frozen=True, slots=True)
class ClipCost:
    """One kind of clip under load, spreads over the rounds. cpu: seconds of CPU of one clip; per_face_second:
    these by its faces and seconds; rate: clips a second; busy: share of the cores that the service took."""

    seconds: float
    faces: int
    width: int
    height: int
    bytes: int
    frames_used: int
    cpu: Spread
    per_face_second: Spread
    rate: Spread
    busy: Spread


def cost(r: Json) -> list[ClipCost]:
    """Of the results of `cost`."""
    return [_clip_cost(c, int(r["cores"])) for c in r["clips"]]


def _clip_cost(c: Json, cores: int) -> ClipCost:
    cpu = [float(one["cpu_s_per_request"]) for one in c["rounds"]]
    rates = [float(one["requests_per_s"]) for one in c["rounds"]]
    return ClipCost(
        c["seconds"],
        c["faces"],
        c["width"],
        c["height"],
        c["bytes"],
        c["frames_used"],
        Spread.of(cpu),
        Spread.of([s / (c["faces"] * c["seconds"]) for s in cpu]),
        Spread.of(rates),
        Spread.of([s * rate / cores for s, rate in zip(cpu, rates, strict=True)]),
    )


@dataclass(frozen=True, slots=True)
class Serving:
    """One server under load. rates: of each round; slowest_first: of the requests that meet it idle, all at
    once; times in seconds, memory the median of the rounds."""

    name: str
    version: str | None
    how: str
    rates: list[float]
    p50: float
    p95: float
    slowest_first: float
    cpu: Spread
    idle_bytes: float
    peak_bytes: float

    @property
    def rate(self) -> Spread:
        """Over the rounds."""
        return Spread.of(self.rates)

    def ahead_of(self, other: "Serving") -> bool:
        """More requests a second in every round, of three at least, at an equal or better p95."""
        faster = all(a > b for a, b in zip(self.rates, other.rates, strict=True))
        return len(self.rates) >= LEAST_ROUNDS and faster and self.p95 <= other.p95


def peers(r: Json) -> list[Serving]:
    """Of the results of `peers`, this project's service first."""
    return [_serving(s) for s in r["servers"]]


def _serving(s: Json) -> Serving:
    rounds: list[Json] = s["rounds"]
    latencies = [x for one in rounds for x in one["latency_s"]]
    return Serving(
        s["name"],
        s["version"],
        s["how"],
        [float(one["requests_per_s"]) for one in rounds],
        percentile(latencies, 0.5),
        percentile(latencies, 0.95),
        max(x for one in rounds for x in one["first_latency_s"]),
        Spread.of([one["cpu_s_per_request"] for one in rounds]),
        percentile([one["idle_bytes"] for one in rounds], 0.5),
        percentile([one["peak_bytes"] for one in rounds], 0.5),
    )


@dataclass(frozen=True, slots=True)
class Sparse:
    """Sparse against dense. low: the IoU that 5% of the frames do not reach; alone: share of frames whose
    dense partner has no box; detections: frames searched, sparse and dense."""

    clips: int
    iou: float
    iou_between: float | None
    low: float
    same: int
    alone: float
    detections: tuple[int, int]


def sparse(r: Json) -> Sparse:
    """Of the results of `sparse`."""
    rows: list[Json] = r["rows"]
    overlaps = [v for row in rows for v in row["iou"]]
    between = [v for row in rows for v in row["iou_between"]]
    alone = sum(row["frames_alone"] for row in rows)
    return Sparse(
        clips=len(rows),
        iou=percentile(overlaps, 0.5),
        iou_between=percentile(between, 0.5) if between else None,
        low=percentile(overlaps, 0.05),
        same=sum(row["same_tracks"] for row in rows),
        alone=alone / (alone + len(overlaps)),
        detections=(
            sum(row["sparse_frames_detected"] for row in rows),
            sum(row["dense_frames_detected"] for row in rows),
        ),
    )


def number(value: float, *, binary: bool = False) -> str:
    """Three digits and a prefix, as `1.63 M`, or with powers of 1024 for `binary`."""
    base = 1024.0 if binary else 1000.0
    steps = int(min(4, max(0, np.log(max(value, 1)) // np.log(base))))
    return f"{value / base**steps:.3g} {['', 'k' if not binary else 'K', 'M', 'G', 'T'][steps]}"
