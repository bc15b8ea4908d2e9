"""Figures: against scikit-learn, against cases done by hand, and their intervals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from training.calibrate import NotCalibratable, calibrate, lower_threshold, platt, upper_threshold
from training.metrics import auc, bootstrap, calibration_error, matched_auc, share
from training.recipe import Operating

labelled = st.lists(st.tuples(st.booleans(), st.integers(-5, 5)), min_size=2, max_size=60)


@given(labelled)
def test_auc_is_scikit_learns_ties_included(rows: list[tuple[bool, int]]) -> None:
    fake, scores = np.array([f for f, _ in rows]), np.array([float(s) for _, s in rows])
    if fake.all() or not fake.any():
        assert math.isnan(auc(fake, scores))
    else:
        assert auc(fake, scores) == pytest.approx(roc_auc_score(fake, scores))


def test_matched_auc_gives_no_credit_for_sharpness() -> None:
    rng = np.random.default_rng(0)
    fake = np.arange(400) % 2 == 1
    sharpness = np.exp(rng.normal(0, 1, 400) - fake)
    scores = -np.log(sharpness)
    assert auc(fake, scores) > 0.7
    assert matched_auc(fake, scores, sharpness, caliper=0.02) == pytest.approx(0.5, abs=0.06)


def test_matched_auc_keeps_what_is_no_sharpness() -> None:
    fake = np.array([False, True, False, True])
    sharpness = np.array([1.0, 1.0, 9.0, 9.0])
    assert matched_auc(fake, np.array([0.1, 0.2, 0.8, 0.9]), sharpness) == 1.0
    assert math.isnan(matched_auc(fake, np.zeros(4), np.array([1.0, 3.0, 9.0, 27.0])))


def test_an_interval_draws_people_not_clips() -> None:
    rng = np.random.default_rng(0)
    hits = np.repeat(rng.random(8) < 0.5, 50)
    by_person = bootstrap([f"p{i // 50}" for i in range(400)], lambda at: share(hits[at]), resamples=400)
    by_clip = bootstrap([str(i) for i in range(400)], lambda at: share(hits[at]), resamples=400)
    assert by_person.value == by_clip.value == hits.mean()
    assert by_person.high - by_person.low > 3 * (by_clip.high - by_clip.low)  # type: ignore[operator]
    assert by_person.low < by_person.value < by_person.high  # type: ignore[operator]


def test_what_can_not_be_measured_has_no_value() -> None:
    figure = bootstrap(["a", "b"], lambda at: auc(np.array([True, True])[at], np.zeros(2)[at]))
    assert figure.rounded() == {"value": None, "low": None, "high": None}


def test_calibration_error_of_honest_and_of_overconfident_probabilities() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random(5000)
    fake = rng.random(5000) < probabilities
    assert calibration_error(fake, probabilities) < 0.03
    assert calibration_error(fake, np.where(probabilities > 0.5, 1.0, 0.0)) > 0.2


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
