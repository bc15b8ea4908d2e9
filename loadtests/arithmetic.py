"""From measured costs to replicas, and to where a GPU pays off. Times are CPU seconds of one clip."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.clips import FILM_S, HEIGHT
from benchmarks.figures import ClipCost, Limit

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """What so many clips a second take. exact: replicas before rounding up; memory: bytes; ingress: bytes a
    second; balancer_cores: of CPU time."""

    rate: float
    exact: float
    replicas: int
    cores: int
    memory: float
    ingress: float
    balancer_cores: float


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica, as measured. rate: clips a second at most; headroom: share of it that is planned with;
    memory: bytes at its peak."""

    cores: int
    rate: float
    headroom: float
    memory: float

    def of(self, clip: ClipCost) -> "Replica":
        """The same one, for another kind of clip."""
        return replace(self, rate=clip.rate.median)

    def plan(self, rate: float, clip: ClipCost, balancer_s: float) -> Plan:
        """For so many clips a second of that kind; balancer_s: CPU time of the balancer for each."""
        exact = rate / (self.rate * self.headroom)
        count = math.ceil(exact)
        return Plan(
            rate,
            exact,
            count,
            count * self.cores,
            count * self.memory,
            rate * clip.bytes,
            rate * balancer_s,
        )


def replica(clip: ClipCost, cores: int, headroom: float, growth: Json) -> Replica:
    """As measured with clips of that kind; memory from the results of `growth`."""
    peak = next(c["peak_bytes"] for c in growth["heights"] if (c["height"], c["seconds"]) == (HEIGHT, FILM_S))
    return Replica(cores, clip.rate.median, headroom, peak)


def balancer_seconds(replicas: Json) -> float:
    """CPU time of the balancer for one request, the median over rounds and setups; 0 where there is none."""
    spent = [
        one["balancer_cpu_s_per_request"]
        for rounds in replicas.get("rounds", [])
        for one in rounds.values()
        if one["balancer_cpu_s_per_request"]
    ]
    return float(np.median(spent)) if spent else 0.0


@dataclass(frozen=True, slots=True)
class Split:
    """Where the CPU time of a clip goes. graphs: what a GPU takes over."""

    total: float
    graphs: float

    @property
    def host(self) -> float:
        """Decoding, finding faces, cutting, receiving and answering."""
        return self.total - self.graphs

    def break_even(self, price_ratio: float) -> float:
        """Clips a second above which a card pays off that costs as much as `price_ratio` cores.

        Without it X clips a second take X * total cores; with it X * host cores and the card: the card is
        cheaper when X * graphs > price_ratio.
        """
        return price_ratio / self.graphs

    def host_cores(self, rate: float) -> float:
        """Cores that must stand beside a card for so many clips a second."""
        return rate * self.host


def split(limit: Limit) -> Split:
    """Of the service and its stages, measured by turns."""
    graphs = limit.stages["encode"].cpu.median + limit.shared.cpu.median
    return Split(limit.cpu_per_request.median, graphs)
