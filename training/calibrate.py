"""From scores to probabilities and thresholds, on clips that the scoring network never saw."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from pipeline.bundle import Calibration, Thresholds
from pipeline.errors import DetectError
from pipeline.scores import PROBABILITY_DIGITS, calibrated
from pipeline.verdict import cut, widened
from training.metrics import F64, Bools

FOLDS = 5
Method = Literal["platt", "temperature"]


class NotCalibratable(DetectError):
    """The scores do not rise with the label, or there are too few clips for what is asked."""


class Rates(Protocol):
    """Shares of clips that the thresholds may call wrongly."""

    @property
    def false_positives(self) -> float:
        """Of real clips called manipulated."""

    @property
    def false_negatives(self) -> float:
        """Of fake clips called authentic."""


@dataclass(frozen=True, slots=True)
class Platt:
    """logit' = scale * logit + bias (Platt 1999); a temperature is 1 / scale, without a bias."""

    scale: float
    bias: float

    def __call__(self, logits: F64) -> F64:
        """Probabilities of `fake`."""
        return np.asarray(1 / (1 + np.exp(-(self.scale * logits + self.bias))), np.float64)


def platt(fake: NDArray[np.bool_], logits: F64) -> Platt:
    """Logistic regression of the label on the logit, both classes weighing the same, so that the
    probabilities are those of an even prior. Raises NotCalibratable."""
    return _regression(fake, logits, bias=True)


def temperature(fake: NDArray[np.bool_], logits: F64) -> Platt:
    """The same with the scale alone (Guo et al. 2017): what the network holds for even stays even."""
    return _regression(fake, logits, bias=False)


METHODS: dict[Method, Callable[[NDArray[np.bool_], F64], Platt]] = {
    "platt": platt,
    "temperature": temperature,
}


def _regression(fake: NDArray[np.bool_], logits: F64, *, bias: bool) -> Platt:
    if fake.all() or not fake.any():
        raise NotCalibratable("calibration needs both real and fake clips")
    model = LogisticRegression(C=1e4, class_weight="balanced", fit_intercept=bias)
    fitted = model.fit(logits[:, None], fake)
    scale = float(fitted.coef_[0, 0])
    if scale <= 0:
        raise NotCalibratable(f"fakes do not score higher than real clips: slope {scale:.3f}")
    return Platt(scale, float(fitted.intercept_[0]) if bias else 0.0)


def upper_threshold(real: F64, share: float) -> float:
    """Lowest cut at which at most `share` of the real probabilities lie at or above it."""
    falling = np.sort(real)[::-1]
    allowed = int(share * len(falling))
    above = falling[allowed - 1] if allowed else 1.0
    return float(
        np.nextafter(falling[allowed], 2) if above == falling[allowed] else (above + falling[allowed]) / 2
    )


def lower_threshold(fake: F64, share: float) -> float:
    """Highest cut at which at most `share` of the fake probabilities lie below it."""
    return float(np.sort(fake)[int(share * len(fake))])


def calibrate(
    name: str,
    fake: NDArray[np.bool_],
    logits: F64,
    operating: Rates,
    data: str,
    *,
    method: Method = "platt",
) -> Calibration:
    """Scale, bias and thresholds. Where the two thresholds would cross, nothing is uncertain.

    fake: bool [N]; logits: [N], out of fold. The thresholds cut probabilities rounded as the service
    rounds them. Raises NotCalibratable.
    """
    found = METHODS[method](fake, logits)
    fitted = Platt(round(found.scale, 4) or found.scale, round(found.bias, 4))
    probabilities = np.round(fitted(logits), PROBABILITY_DIGITS)
    real = probabilities[~fake]
    upper = min(1.0, _rounded_up(upper_threshold(real, operating.false_positives), real))
    lower = min(upper, lower_threshold(probabilities[fake], operating.false_negatives))
    thresholds = Thresholds(authentic_below=lower, manipulated_above=upper)
    return Calibration(id=name, scale=fitted.scale, bias=fitted.bias, thresholds=thresholds, data=data)


def _rounded_up(threshold: float, real: F64) -> float:
    """The next threshold in the digits of the probabilities that lets no more of them through."""
    unit = 10.0**PROBABILITY_DIGITS
    up = math.ceil(round(threshold * unit, 6))
    more = (real >= up / unit).sum() > (real >= threshold).sum()
    return (up + int(more)) / unit


def check_enough(fake: Bools, people: Sequence[str], rates: Rates) -> None:
    """Raise NotCalibratable when there are too few clips for the rates that are asked for.

    A rate r needs at least 1 / r clips: with fewer, no threshold but one that lets none through can keep
    it, and none can be told from a worse one. Cross-fitting needs FOLDS people of each class.
    """
    for what, option, of, rate in (
        ("real", "--fpr", ~fake, rates.false_positives),
        ("fake", "--fnr", fake, rates.false_negatives),
    ):
        count, least = int(of.sum()), math.ceil(1 / rate - 1e-9)
        if count < least:
            offer = (
                f"ask for {option} {math.ceil(1000 / count) / 1000:g} or more, or give" if count else "give"
            )
            raise NotCalibratable(
                f"a rate of {rate:g} needs at least {least} {what} clips with a usable face; there are "
                f"{count}: {offer} more clips"
            )
        known = len({p for p, chosen in zip(people, of, strict=True) if chosen})
        if known < FOLDS:
            raise NotCalibratable(
                f"cross-fitting needs {what} clips of at least {FOLDS} people; there are {known}"
            )


def cross_fitted(
    fake: Bools,
    probabilities: F64,
    logits: F64,
    *,
    doubts: Sequence[int],
    people: Sequence[str],
    rates: Rates,
    method: Method = "platt",
) -> tuple[F64, list[str]]:
    """Each clip's calibrated probability and verdict by a calibration that was fitted without its person.

    fake: bool [N]; probabilities and logits: [N], of the network alone; doubts: remarks on each clip
    that widen `uncertain`. Raises NotCalibratable.
    """
    out = np.empty(len(fake), np.float64)
    verdicts = [""] * len(fake)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    for fitting, judged in folds.split(logits[:, None], fake, np.array(people, str)):
        found = calibrate("fold", fake[fitting], logits[fitting], rates, "", method=method)
        for i in judged:
            out[i] = calibrated(float(probabilities[i]), found)
            verdicts[i] = cut(out[i], widened(found.thresholds, doubts[i]))
    return out, verdicts
