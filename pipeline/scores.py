"""Scores of a face track, and what calibration makes of them."""

import math
from dataclasses import dataclass

from pipeline.bundle import Calibration
from pipeline.frames import F32

LEAST_LOGIT_INPUT = 1e-6

PROBABILITY_DIGITS = 6
"""Finer differences are arithmetic, not evidence. What is cut by thresholds is what is shown."""


@dataclass(frozen=True, slots=True)
class TrackScores:
    """Uncalibrated probabilities of real and fake: steps float32 [T, 2], pooled float32 [2]."""

    steps: F32
    pooled: F32


def log_odds(fake: float, calibration: Calibration) -> float:
    """Platt scaling (Platt 1999) of a probability of `fake`, as log-odds; never falls as its input rises."""
    p = min(max(fake, LEAST_LOGIT_INPUT), 1 - LEAST_LOGIT_INPUT)
    return calibration.scale * math.log(p / (1 - p)) + calibration.bias


def calibrated(fake: float, calibration: Calibration) -> float:
    """The same as a probability, rounded."""
    logit = log_odds(fake, calibration)
    fake = 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))
    return round(fake, PROBABILITY_DIGITS)
