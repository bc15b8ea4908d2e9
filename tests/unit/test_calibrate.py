"""Calibration: scale, bias and thresholds, and what they promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.calibrate import NotCalibratable, calibrate, lower_threshold, platt, upper_threshold
from training.recipe import Operating


def test_platt_recovers_scale_and_bias() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, 20000)
    fake = rng.random(20000) < 1 / (1 + np.exp(-true))
    fitted = platt(fake, (true + 1) / 3)
    assert fitted.scale == pytest.approx(3, rel=0.1)
    assert fitted.bias == pytest.approx(-1, abs=0.15)


def test_scores_that_fall_with_the_label_are_refused() -> None:
    fake = np.array([True, False] * 10)
    with pytest.raises(NotCalibratable, match="slope"):
        platt(fake, np.where(fake, -1.0, 1.0) + np.linspace(-2, 2, 20))
    with pytest.raises(NotCalibratable, match="both"):
        platt(np.ones(4, bool), np.zeros(4))


probabilities = st.lists(st.floats(0.01, 0.99), min_size=1, max_size=80).map(np.array)


@given(probabilities, st.sampled_from([0.01, 0.05, 0.2, 0.5]))
def test_thresholds_keep_their_promise(scores: np.ndarray, allowed: float) -> None:
    assert (scores >= upper_threshold(scores, allowed)).mean() <= allowed
    assert (scores < lower_threshold(scores, allowed)).mean() <= allowed


def test_thresholds_never_cross() -> None:
    rng = np.random.default_rng(0)
    fake = np.arange(200) % 2 == 1
    for gap in (0.2, 8.0):
        calibration = calibrate("x", fake, rng.normal(0, 1, 200) + gap * fake, Operating(), "none")
        assert calibration.thresholds.authentic_below <= calibration.thresholds.manipulated_above
        assert calibration.scale > 0
