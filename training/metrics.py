"""Figures for a detector, each with its interval.

Figures take the weight of each clip, so that a bootstrap needs one sort and no copies: a resample of
people is a row of whole numbers that say how often each clip was drawn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta  # type: ignore[import-untyped]

F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]
Statistic = Callable[[F64], F64]
"""From weights [R, N] of N clips to R values, NaN where a value is undefined."""

RESAMPLES = 2000
AT_ONCE = 1 << 22
"""Weights held at a time, so that a large set needs no large memory."""
CALIPER = 0.25
"""Natural logarithm of the ratio up to which two clips count as equally sharp."""
LEAST_PEOPLE = 3
"""People that a class must have before an area or a rate across classes is given."""
LEAST_PROBABILITY = 1e-6


@dataclass(frozen=True, slots=True)
class Figure:
    """A value with the bounds of its 95% interval; all None where nothing could be measured, and why."""

    value: float | None
    low: float | None
    high: float | None
    why: str = ""

    def rounded(self) -> dict[str, float | str | None]:
        """For JSON: four digits; `why` only where there is no value."""
        if self.value is None or self.low is None or self.high is None:
            return {"value": None, "low": None, "high": None, "why": self.why}
        return {"value": round(self.value, 4), "low": round(self.low, 4), "high": round(self.high, 4)}


def unmeasured(why: str) -> Figure:
    """The figure that could not be measured."""
    return Figure(None, None, None, why)


def roc(fake: Bools, scores: F64, weights: F64 | None = None) -> tuple[F64, F64]:
    """False and true positive rates [R, K], from (0, 0) to (1, 1), one point a distinct score.

    weights: [R, N], all one with R = 1 unless given. NaN where a class is missing.
    """
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
    w = _ones(fake) if weights is None else weights
    w = w[:, order]
    start = np.zeros((len(w), 1))
    positive = np.concatenate([start, np.cumsum(w * fake[order], axis=1)[:, last]], axis=1)
    negative = np.concatenate([start, np.cumsum(w * ~fake[order], axis=1)[:, last]], axis=1)
    with np.errstate(invalid="ignore"):
        return negative / negative[:, -1:], positive / positive[:, -1:]


def area(fpr: F64, tpr: F64) -> F64:
    """Area under ROC curves [R, K]: the share of (real, fake) pairs in which the fake scores higher,
    ties counting half (Mann & Whitney 1947)."""
    return np.asarray((np.diff(fpr, axis=1) * (tpr[:, 1:] + tpr[:, :-1])).sum(axis=1) / 2, np.float64)


def equal_error(fpr: F64, tpr: F64) -> F64:
    """The rate at which as many real clips pass for fakes as fakes for real, between points of the ROC
    on a straight line."""
    gap = fpr + tpr - 1
    after = np.maximum(1, np.argmax(gap >= 0, axis=1))
    rows = np.arange(len(gap))
    rise = gap[rows, after] - gap[rows, after - 1]
    share_of_step = np.divide(-gap[rows, after - 1], rise, out=np.full(len(gap), np.nan), where=rise > 0)
    step = fpr[rows, after] - fpr[rows, after - 1]
    return np.asarray(fpr[rows, after - 1] + share_of_step * step, np.float64)


def detected(fpr: F64, tpr: F64, limit: float) -> F64:
    """The highest true positive rate of any threshold whose false positive rate is at most `limit`."""
    missing = np.isnan(fpr[:, -1]) | np.isnan(tpr[:, -1])
    best = np.where(fpr <= limit, tpr, 0.0).max(axis=1)
    return np.asarray(np.where(missing, np.nan, best), np.float64)


def average_precision(fpr: F64, tpr: F64, prevalence: float) -> F64:
    """Area under precision over recall, in steps, where a share `prevalence` of all clips is fake."""
    caught = prevalence * tpr[:, 1:]
    called = caught + (1 - prevalence) * fpr[:, 1:]
    precision = np.divide(caught, called, out=np.zeros_like(called), where=called > 0)
    return np.asarray((np.diff(tpr, axis=1) * precision).sum(axis=1) + 0 * fpr[:, -1], np.float64)


def auc(fake: Bools, scores: F64) -> float:
    """Area under the ROC curve; NaN when one class is missing."""
    return float(area(*roc(fake, scores))[0])


def matched_area(fake: Bools, scores: F64, sharpness: F64, caliper: float = CALIPER) -> Statistic:
    """The share of pairs that are in order, over those pairs alone whose sharpness agrees within the
    caliper, so that no score can gain from sharpness itself. sharpness: positive."""
    level = np.log(sharpness)
    fakes, reals = np.flatnonzero(fake), np.flatnonzero(~fake)
    blocks = np.array_split(fakes, max(1, len(fakes) * max(1, len(reals)) // AT_ONCE))

    def statistic(weights: F64) -> F64:
        won, counted = np.zeros(len(weights)), np.zeros(len(weights))
        w_real = weights[:, reals]
        for block in blocks:
            near = np.abs(level[block][:, None] - level[reals][None, :]) <= caliper
            above, ties = (
                (scores[block][:, None] > scores[reals]),
                scores[block][:, None] == scores[reals],
            )
            w_fake = weights[:, block]
            won += ((w_fake @ (near * (above + 0.5 * ties))) * w_real).sum(axis=1)
            counted += ((w_fake @ near.astype(np.float64)) * w_real).sum(axis=1)
        with np.errstate(invalid="ignore"):
            return np.asarray(won / counted, np.float64)

    return statistic


def matched_auc(fake: Bools, scores: F64, sharpness: F64, caliper: float = CALIPER) -> float:
    """`matched_area` of all clips; NaN when no pair agrees."""
    return float(matched_area(fake, scores, sharpness, caliper)(_ones(fake))[0])


def mean_of(values: F64) -> Statistic:
    """The weighted mean of a number of each clip: an accuracy, a Brier score, a log loss."""

    def statistic(weights: F64) -> F64:
        return np.asarray((weights @ values) / weights.sum(axis=1), np.float64)

    return statistic


def balanced(fake: Bools, values: F64) -> Statistic:
    """The mean of both classes' means of a number of each clip."""

    def statistic(weights: F64) -> F64:
        with np.errstate(invalid="ignore"):
            of_class = [(weights[:, c] @ values[c]) / weights[:, c].sum(axis=1) for c in (fake, ~fake)]
        return np.asarray((of_class[0] + of_class[1]) / 2, np.float64)

    return statistic


def log_losses(fake: Bools, probabilities: F64) -> F64:
    """Minus the natural logarithm of the probability of what is true, for each clip."""
    p = np.clip(np.where(fake, probabilities, 1 - probabilities), LEAST_PROBABILITY, 1)
    return np.asarray(-np.log(p), np.float64)


def bins_of(count: int) -> int:
    """Bins of a reliability diagram: 5, and 15 (Guo et al. 2017) from 500 clips on."""
    return 15 if count >= 500 else 5


def binned(probabilities: F64, bins: int) -> list[NDArray[np.int64]]:
    """Indexes of the clips of each bin, bins of equally many clips (Nixon et al. 2019); none is empty."""
    order = np.argsort(probabilities, kind="stable")
    return [p for p in np.array_split(order, bins) if len(p)]


def calibration_gap(fake: Bools, probabilities: F64, bins: int) -> Statistic:
    """Expected calibration error: the mean gap between the probability of `fake` and the share of fakes
    in bins of equally many clips."""
    parts = binned(probabilities, bins)
    off = fake - probabilities

    def statistic(weights: F64) -> F64:
        gaps = sum(np.abs(weights[:, p] @ off[p]) for p in parts)
        return np.asarray(gaps / weights.sum(axis=1), np.float64)

    return statistic


def calibration_error(fake: Bools, probabilities: F64, bins: int = 5) -> float:
    """`calibration_gap` of all clips; NaN without any."""
    return float(calibration_gap(fake, probabilities, bins)(_ones(fake))[0]) if len(fake) else float("nan")


def share(hits: Bools) -> float:
    """Mean of a boolean array; NaN when it is empty."""
    return float(hits.mean()) if hits.size else float("nan")


def bootstrap(
    people: Sequence[str],
    statistic: Statistic,
    *,
    smallest: int | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Figure:
    """95% percentile interval of a statistic, resampling whole people.

    Clips of one person are not independent; drawing people, not clips, keeps the interval honest.
    Resamples in which the statistic is undefined are left out. smallest: people of the smaller class,
    all unless given. Where every resample says 0 or every one says 1, few people leave room that no
    resampling of them can show; the bound is then the exact binomial one for `smallest` trials.
    """
    names, member = np.unique(np.array(people, str), return_inverse=True)
    if len(names) < 2:
        return unmeasured("needs clips of at least 2 people")
    value = float(statistic(np.ones((1, len(member))))[0])
    if not np.isfinite(value):
        return unmeasured("needs clips of both classes")
    rng = np.random.default_rng(seed)
    chunk = max(1, AT_ONCE // len(member))
    drawn = []
    for start in range(0, resamples, chunk):
        count = min(chunk, resamples - start)
        times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=count)
        drawn.append(statistic(times[:, member].astype(np.float64)))
    values = np.concatenate(drawn)
    values = values[np.isfinite(values)]
    if len(values) < resamples // 2:
        return unmeasured("undefined in most resamples of the people")
    low, high = (float(v) for v in np.percentile(values, [2.5, 97.5]))
    if low == high and value in (0.0, 1.0):
        low, high = exact_interval(value, smallest or len(names))
    return Figure(value, low, high)


def exact_interval(rate: float, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Exact binomial interval (Clopper & Pearson 1934) of a share of so many trials."""
    hits, tail = rate * trials, (1 - level) / 2
    low = 0.0 if hits <= 0 else float(beta.ppf(tail, hits, trials - hits + 1))
    high = 1.0 if hits >= trials else float(beta.ppf(1 - tail, hits + 1, trials - hits))
    return low, high


def rate(people: Sequence[str], hits: Bools, *, seed: int = 0) -> Figure:
    """A share of clips. Its interval is the wider one of the bootstrap by person and the exact binomial
    one in which each person is one trial: none of ten clips is no proof of never."""
    if not len(hits):
        return unmeasured("there is no such clip")
    value = share(hits)
    low, high = exact_interval(value, len(set(people)))
    drawn = bootstrap(people, mean_of(hits.astype(np.float64)), seed=seed)
    if drawn.low is not None and drawn.high is not None:
        low, high = min(low, drawn.low), max(high, drawn.high)
    return Figure(value, low, high)


def lacking(fake: Bools, people: Sequence[str]) -> str:
    """Why figures across classes can not be given for these clips; empty when they can."""
    names = np.array(people, str)
    for what, of in (("real", ~fake), ("fake", fake)):
        if not of.any():
            return f"needs both classes; there is no {what} clip"
    for what, of in (("real", ~fake), ("fake", fake)):
        if (count := len(set(names[of]))) < LEAST_PEOPLE:
            return f"needs {what} clips of at least {LEAST_PEOPLE} people; there are {count}"
    return ""


def _ones(fake: Bools) -> F64:
    return np.ones((1, len(fake)))
