"""From scores to probabilities and thresholds, on clips that the scoring network never saw."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from pipeline.bundle import Calibration, Thresholds
from pipeline.errors import DetectError
from training.metrics import F64
from training.recipe import Operating


class NotCalibratable(DetectError):
    """The scores do not rise with the label, or one class is missing."""


@dataclass(frozen=True, slots=True)
class Platt:
    """logit' = scale * logit + bias (Platt 1999)."""

    scale: float
    bias: float

    def __call__(self, logits: F64) -> F64:
        """Probabilities of `fake`."""
        return np.asarray(1 / (1 + np.exp(-(self.scale * logits + self.bias))), np.float64)


def platt(fake: NDArray[np.bool_], logits: F64) -> Platt:
    """Logistic regression of the label on the logit, both classes weighing the same, so that the
    probabilities are those of an even prior. Raises NotCalibratable."""
    if fake.all() or not fake.any():
        raise NotCalibratable("calibration needs both real and fake clips")
    fitted = LogisticRegression(C=1e4, class_weight="balanced").fit(logits[:, None], fake)
    scale, bias = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    if scale <= 0:
        raise NotCalibratable(f"fakes do not score higher than real clips: slope {scale:.3f}")
    return Platt(scale, bias)


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
    name: str, fake: NDArray[np.bool_], logits: F64, operating: Operating, data: str
) -> Calibration:
    """Scale, bias and thresholds. Where the two thresholds would cross, nothing is uncertain.

    fake: bool [N]; logits: [N], out of fold. Raises NotCalibratable.
    """
    fitted = platt(fake, logits)
    probabilities = fitted(logits)
    upper = min(1.0, upper_threshold(probabilities[~fake], operating.false_positives))
    lower = min(upper, lower_threshold(probabilities[fake], operating.false_negatives))
    thresholds = Thresholds(authentic_below=round(lower, 4), manipulated_above=round(upper, 4))
    return Calibration(
        id=name, scale=round(fitted.scale, 4), bias=round(fitted.bias, 4), thresholds=thresholds, data=data
    )
