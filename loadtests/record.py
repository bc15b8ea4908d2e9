"""What happened in a run: a line for each request, and what they come to."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.summary import percentile
from loadtests.judging import Outcome, Wanted

SHARES = {"p50_s": 0.5, "p95_s": 0.95, "p99_s": 0.99}


@dataclass(frozen=True, slots=True)
class Sample:
    """One request. at_s: when it began, in seconds of the run; users: of the stage in which that was."""

    at_s: float
    seconds: float
    users: int
    kind: str
    wanted: Wanted
    outcome: Outcome
    status: int
    attempt: int
    why: str = ""

    @property
    def end_s(self) -> float:
        """When it was over."""
        return self.at_s + self.seconds


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of a run. rate: answers a second that came while it lasted; latencies are those of answers to
    requests that began in it, None without any; away: requests of it that were turned away."""

    users: int
    seconds: float
    rate: float
    answered: int
    away: int
    p50_s: float | None
    p95_s: float | None


def answered(samples: Iterable[Sample], kind: str | None = None) -> list[Sample]:
    """Those that were answered, of one kind or of all."""
    return [s for s in samples if s.outcome is Outcome.answered and kind in {None, s.kind}]


def by_kind(samples: Sequence[Sample]) -> dict[str, dict[str, Any]]:
    """Outcomes and latencies of each kind of upload, in the order of their first requests."""
    kinds: dict[str, dict[str, Any]] = {}
    for kind in dict.fromkeys(s.kind for s in samples):
        own = [s for s in samples if s.kind == kind]
        outcomes = Counter(str(s.outcome) for s in own)
        kinds[kind] = {"requests": len(own), "outcomes": dict(outcomes), **latencies(answered(own))}
    return kinds


def latencies(samples: Sequence[Sample]) -> dict[str, float]:
    """Percentiles by their names; empty without samples."""
    times = [s.seconds for s in samples]
    return {name: percentile(times, share) for name, share in SHARES.items()} if times else {}


def steps(samples: Sequence[Sample], stages: Sequence[tuple[float, int]]) -> list[Step]:
    """Of each stage, given as its seconds and its users."""
    found, begun = [], 0.0
    for seconds, users in stages:
        end = begun + seconds
        own = [s for s in samples if begun <= s.at_s < end]
        good = answered(own)
        times = latencies(good)
        rate = sum(begun <= s.end_s < end for s in answered(samples)) / seconds
        away = sum(s.outcome is Outcome.away for s in own)
        found.append(Step(users, seconds, rate, len(good), away, times.get("p50_s"), times.get("p95_s")))
        begun = end
    return found
