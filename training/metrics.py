"""Figures for a detector, each with its interval."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Statistic = Callable[[I64], float]

RESAMPLES = 2000
CALIPER = 0.25
"""Natural logarithm of the ratio up to which two clips count as equally sharp."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A value with the bounds of its 95% interval; None where nothing could be measured."""

    value: float | None
    low: float | None
    high: float | None

    def rounded(self) -> dict[str, float | None]:
        """For JSON: three digits."""
        return {
            k: None if v is None else round(v, 3)
            for k, v in zip(("value", "low", "high"), self._all(), strict=True)
        }

    def _all(self) -> tuple[float | None, float | None, float | None]:
        return self.value, self.low, self.high


def auc(fake: NDArray[np.bool_], scores: F64) -> float:
    """Area under the ROC curve: the share of (real, fake) pairs in which the fake scores higher, ties
    counting half (Mann & Whitney 1947). NaN when one class is missing."""
    return _concordance(scores[fake][:, None], scores[~fake][None, :], None)


def matched_auc(fake: NDArray[np.bool_], scores: F64, sharpness: F64, caliper: float = CALIPER) -> float:
    """The same over those pairs alone whose sharpness agrees within the caliper, so that no score can
    gain from sharpness itself. sharpness: positive. NaN when no pair agrees."""
    level = np.log(sharpness)
    near = np.abs(level[fake][:, None] - level[~fake][None, :]) <= caliper
    return _concordance(scores[fake][:, None], scores[~fake][None, :], near)


def _concordance(fake: F64, real: F64, counted: NDArray[np.bool_] | None) -> float:
    won = (fake > real) + 0.5 * (fake == real)
    if counted is not None:
        won = won[counted]
    return float(won.mean()) if won.size else float("nan")


def bootstrap(
    groups: Sequence[str], statistic: Statistic, *, resamples: int = RESAMPLES, seed: int = 0
) -> Figure:
    """95% percentile interval of a statistic of row indexes, resampling whole groups (people).

    Clips of one person are not independent; drawing people, not clips, keeps the interval honest.
    Resamples in which the statistic is undefined are left out.
    """
    value = statistic(np.arange(len(groups)))
    if not np.isfinite(value):
        return Figure(None, None, None)
    names, member = np.unique(np.array(groups), return_inverse=True)
    rows = [np.flatnonzero(member == g) for g in range(len(names))]
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        chosen = rng.integers(0, len(rows), len(rows))
        v = statistic(np.concatenate([rows[g] for g in chosen]))
        if np.isfinite(v):
            drawn.append(v)
    low, high = np.percentile(drawn, [2.5, 97.5]) if drawn else (value, value)
    return Figure(float(value), float(low), float(high))


def calibration_error(fake: NDArray[np.bool_], probabilities: F64, bins: int = 5) -> float:
    """Expected calibration error over bins of equally many clips (Nixon et al. 2019)."""
    order = np.argsort(probabilities, kind="stable")
    parts = [p for p in np.array_split(order, bins) if len(p)]
    gaps = [abs(float(fake[p].mean()) - float(probabilities[p].mean())) * len(p) for p in parts]
    return float(sum(gaps) / len(order)) if parts else float("nan")


def share(hits: NDArray[np.bool_]) -> float:
    """Mean of a boolean array; NaN when it is empty."""
    return float(hits.mean()) if hits.size else float("nan")
