"""What a run has to keep to. Times are held against those of the same clips sent alone, one after another."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.summary import percentile
from loadtests.judging import Outcome, Wanted
from loadtests.patience import ATTEMPTS
from loadtests.record import Sample, answered, steps

LONGEST_SHOWN = 3
"""Reasons of failures that are told."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is over. stages: seconds and users of each; alone_s: median seconds of each kind of clip
    when nothing else was asked, empty where that was not measured."""

    samples: Sequence[Sample]
    stages: Sequence[tuple[float, int]]
    alone_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """As planned."""
        return sum(seconds for seconds, _ in self.stages)

    @property
    def users(self) -> int:
        """The most at a time."""
        return max(users for _, users in self.stages)


@dataclass(frozen=True, slots=True)
class Check:
    """One threshold and what was found. timed: whether a busy machine alone can miss it."""

    name: str
    found: str
    wanted: str
    met: bool
    timed: bool = False


Threshold = Callable[[Run], Check]


def no_failures(run: Run) -> Check:
    """Nothing came out otherwise than it should; a refusal without Retry-After is among the failures."""
    why = Counter(f"{s.kind}: {s.why}" for s in run.samples if s.outcome is Outcome.failed)
    told = "; ".join(f"{n} x {w}" for w, n in why.most_common(LONGEST_SHOWN))
    found = f"{why.total()} of {len(run.samples)}{f' ({told})' if told else ''}"
    return Check("failed requests", found, "none", not why)


def some_answered(run: Run) -> Check:
    """A run in which nothing was answered shows nothing."""
    count = len(answered(run.samples))
    return Check("clips answered", str(count), "at least 1", count >= 1)


def retry_after(run: Run) -> Check:
    """Whoever is turned away hears when to come back."""
    without = sum("without Retry-After" in s.why for s in run.samples)
    away = without + sum(s.outcome is Outcome.away for s in run.samples)
    return Check("turned away without Retry-After", f"{without} of {away}", "none", not without)


def told_what_is_wrong(run: Run) -> Check:
    """Whatever should be refused is, with a 4xx and a problem, as soon as it is not turned away."""
    ours = [s for s in run.samples if s.wanted is Wanted.refusal]
    wrong = [s for s in ours if s.outcome not in {Outcome.told, Outcome.away}]
    found = f"{len(ours) - len(wrong)} of {len(ours)}"
    return Check("bad uploads refused with 4xx", found, "all, and at least 1", bool(ours) and not wrong)


def turned_away(most: float) -> Threshold:
    """The share of requests that are turned away with a Retry-After."""

    def check(run: Run) -> Check:
        away = sum(s.outcome is Outcome.away for s in run.samples)
        share = away / len(run.samples) if run.samples else 0.0
        return Check("turned away", f"{share:.0%}", f"at most {most:.0%}", share <= most)

    return check


def given_up(most: float) -> Threshold:
    """The share of clips that were turned away as often as their clients try."""

    def check(run: Run) -> Check:
        last = [s for s in run.samples if s.outcome is not Outcome.away or s.attempt == ATTEMPTS]
        lost = sum(s.outcome is Outcome.away for s in last)
        share = lost / len(last) if last else 0.0
        return Check(
            f"given up after {ATTEMPTS} attempts", f"{share:.0%}", f"at most {most:.0%}", share <= most
        )

    return check


def latency(most: float, *, share: float = 0.95, at_once: int | None = None) -> Threshold:
    """p95 of the answers: at most so many times what all clips in the works take one after another, if
    all are of the slowest kind.

    at_once: clips that the service works on at a time, where more users than that come.
    """

    def check(run: Run) -> Check:
        queue = min(run.users, at_once or run.users)
        found = {k: [s.seconds for s in answered(run.samples, k)] for k in run.alone_s}
        times = [t for own in found.values() for t in own]
        name, wanted = f"p{share * 100:.0f} of the answers", f"at most {most:g} times {queue} clips alone"
        if not times:
            return Check(name, "nothing to compare", wanted, met=False, timed=True)
        at, bound = percentile(times, share), most * queue * max(run.alone_s.values())
        return Check(name, f"{at:.2f} s", f"{wanted}, {bound:.2f} s", at <= bound, timed=True)

    return check


def recovered(most: float, users: int) -> Threshold:
    """p95 of the clips that began in the last third, when but `users` clients were left."""

    def check(run: Run) -> Check:
        late = [s for s in answered(run.samples) if s.at_s >= run.seconds * 2 / 3]
        name, wanted = "p95 in the last third", f"at most {most:g} times {users} clips alone"
        if not late or not run.alone_s:
            return Check(name, "nothing to compare", wanted, met=False, timed=True)
        at = percentile([s.seconds for s in late], 0.95)
        bound = most * users * max(run.alone_s.values())
        return Check(name, f"{at:.2f} s", f"{wanted}, {bound:.2f} s", at <= bound, timed=True)

    return check


def holds_its_rate(least: float) -> Threshold:
    """Answers a second with the most users, of the best of all stages: overload must not make it slower."""

    def check(run: Run) -> Check:
        rates = [step.rate for step in steps(run.samples, run.stages)]
        share = rates[-1] / max(rates) if any(rates) else 0.0
        found = f"{rates[-1]:.2f}/s, {share:.0%} of the best stage"
        return Check("rate in the last stage", found, f"at least {least:.0%}", share >= least, timed=True)

    return check
