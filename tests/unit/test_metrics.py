"""Figures: against scikit-learn, against cases done by hand, and their intervals."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn import metrics as sk

from training.metrics import (
    Statistic,
    area,
    auc,
    average_precision,
    balanced,
    bins_of,
    bootstrap,
    calibration_error,
    calibration_gap,
    detected,
    equal_error,
    exact_interval,
    lacking,
    log_losses,
    matched_area,
    matched_auc,
    mean_of,
    rate,
    roc,
    share,
)

labelled = st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=2, max_size=60)


def of(rows: list[tuple[bool, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities; ties are frequent."""
    return np.array([f for f, _ in rows]), np.array([s / 20 for _, s in rows])


@given(labelled)
def test_auc_is_scikit_learns_ties_included(rows: list[tuple[bool, int]]) -> None:
    fake, scores = of(rows)
    if fake.all() or not fake.any():
        assert math.isnan(auc(fake, scores))
    else:
        assert auc(fake, scores) == pytest.approx(sk.roc_auc_score(fake, scores))


@given(labelled)
def test_rates_are_scikit_learns(rows: list[tuple[bool, int]]) -> None:
    fake, scores = of(rows)
    assume(fake.any() and not fake.all())
    fpr, tpr, _ = sk.roc_curve(fake, scores, drop_intermediate=False)
    ours = roc(fake, scores)
    assert np.allclose(ours[0][0], fpr)
    assert np.allclose(ours[1][0], tpr)
    equal = equal_error(*ours)[0]
    assert np.minimum(fpr, 1 - tpr).max() - 1e-9 <= equal <= np.maximum(fpr, 1 - tpr).min() + 1e-9
    for limit in (0.0, 0.1, 0.5):
        assert detected(*ours, limit)[0] == pytest.approx(tpr[fpr <= limit].max())


def test_equal_error_rate_by_hand() -> None:
    fake = np.array([False, False, False, False, True, True, True, True])
    scores = np.array([0.1, 0.2, 0.3, 0.8, 0.25, 0.7, 0.9, 0.95])
    assert equal_error(*roc(fake, scores))[0] == pytest.approx(0.25)
    assert equal_error(*roc(fake, fake * 1.0))[0] == 0
    assert equal_error(*roc(fake, np.zeros(8)))[0] == pytest.approx(0.5)
    assert equal_error(*roc(fake, -1.0 * fake))[0] == 1


@given(labelled, st.sampled_from([0.01, 0.3, 0.5]))
def test_average_precision_is_scikit_learns_with_clips_weighed_to_the_prevalence(
    rows: list[tuple[bool, int]], prevalence: float
) -> None:
    fake, scores = of(rows)
    assume(fake.any() and not fake.all())
    weights = np.where(fake, prevalence / fake.sum(), (1 - prevalence) / (~fake).sum())
    expected = sk.average_precision_score(fake, scores, sample_weight=weights)
    assert average_precision(*roc(fake, scores), prevalence)[0] == pytest.approx(expected)


@given(labelled)
def test_losses_are_scikit_learns(rows: list[tuple[bool, int]]) -> None:
    fake, p = of(rows)
    one = np.ones((1, len(p)))
    clipped = np.clip(p, 1e-6, 1 - 1e-6)
    assert mean_of(log_losses(fake, p))(one)[0] == pytest.approx(
        sk.log_loss(fake, clipped, labels=[False, True]), abs=1e-5
    )
    assert mean_of((p - fake) ** 2)(one)[0] == pytest.approx(np.mean((p - fake) ** 2))
    if fake.any() and not fake.all():
        right = ((p >= 0.5) == fake) * 1.0
        assert balanced(fake, right)(one)[0] == pytest.approx(sk.balanced_accuracy_score(fake, p >= 0.5))


def statistics(fake: np.ndarray, p: np.ndarray, sharpness: np.ndarray) -> dict[str, Statistic]:
    return {
        "auc": lambda w: area(*roc(fake, p, w)),
        "equal error": lambda w: equal_error(*roc(fake, p, w)),
        "detected": lambda w: detected(*roc(fake, p, w), 0.2),
        "average precision": lambda w: average_precision(*roc(fake, p, w), 0.1),
        "matched": matched_area(fake, p, sharpness),
        "mean": mean_of(p),
        "balanced": balanced(fake, p),
    }


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 3)), min_size=3, max_size=30))
def test_a_weight_counts_a_clip_so_many_times(rows: list[tuple[bool, int, int]]) -> None:
    fake, p, times = (np.array(column) for column in zip(*rows, strict=True))
    p, sharpness = p / 10, 1 + (7 * np.arange(len(p)) % 5) / 2
    again = np.repeat(np.arange(len(p)), times)
    assume(fake[again].any() and not fake[again].all())
    repeated = statistics(fake[again], p[again], sharpness[again])
    for name, statistic in statistics(fake, p, sharpness).items():
        weighed = statistic(times[None].astype(float))[0]
        counted = repeated[name](np.ones((1, len(again))))[0]
        assert weighed == pytest.approx(counted, nan_ok=True), name


@given(labelled)
def test_where_all_clips_are_equally_sharp_matched_auc_is_auc(rows: list[tuple[bool, int]]) -> None:
    fake, scores = of(rows)
    assert matched_auc(fake, scores, np.full(len(fake), 2.0)) == pytest.approx(auc(fake, scores), nan_ok=True)


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
    by_person = bootstrap([f"p{i // 50}" for i in range(400)], mean_of(hits * 1.0), resamples=400)
    by_clip = bootstrap([str(i) for i in range(400)], mean_of(hits * 1.0), resamples=400)
    assert by_person.value == by_clip.value == hits.mean()
    assert by_person.high - by_person.low > 3 * (by_clip.high - by_clip.low)  # type: ignore[operator]
    assert by_person.low < by_person.value < by_person.high  # type: ignore[operator]


def test_copies_of_a_clip_leave_the_interval_as_it_is() -> None:
    """A person's clips come into each resample together, so ten copies of everything tell nothing new."""
    rng = np.random.default_rng(1)
    fake, p = np.arange(40) % 2 == 1, rng.random(40)
    people = [f"p{i}" for i in range(40)]
    once = bootstrap(people, lambda w: area(*roc(fake, p, w)))
    ten = bootstrap(
        [n for n in people for _ in range(10)], lambda w: area(*roc(np.repeat(fake, 10), np.repeat(p, 10), w))
    )
    assert once.rounded() == ten.rounded()


def test_the_bootstrap_does_not_depend_on_how_much_is_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    p = np.random.default_rng(2).random(50)
    people = [str(i) for i in range(50)]
    whole = bootstrap(people, mean_of(p))
    monkeypatch.setattr("training.metrics.AT_ONCE", 170)
    assert bootstrap(people, mean_of(p)) == whole


def test_what_can_not_be_measured_has_no_value_but_a_reason() -> None:
    fake = np.array([True, True])
    figure = bootstrap(["a", "b"], lambda w: area(*roc(fake, np.zeros(2), w)))
    assert figure.rounded() == {
        "value": None,
        "low": None,
        "high": None,
        "why": "needs clips of both classes",
    }
    assert "2 people" in bootstrap(["a", "a"], mean_of(np.ones(2))).why
    assert rate([], np.zeros(0, bool)).value is None


def test_what_is_lacking_is_said() -> None:
    assert "no fake" in lacking(np.zeros(5, bool), list("abcde"))
    assert "no real" in lacking(np.ones(5, bool), list("abcde"))
    fake = np.array([False, False, False, True, True, True])
    assert "there are 2" in lacking(fake, list("abcdde"))
    assert lacking(fake, list("abcdef")) == ""


def test_the_exact_interval_is_clopper_and_pearsons() -> None:
    assert exact_interval(0.0, 10) == (0.0, pytest.approx(1 - 0.025 ** (1 / 10)))
    assert exact_interval(1.0, 10) == (pytest.approx(0.025 ** (1 / 10)), 1.0)
    low, high = exact_interval(0.3, 10)
    assert (round(low, 4), round(high, 4)) == (0.0667, 0.6525)


def test_none_of_ten_is_no_proof_of_never() -> None:
    people = [str(i) for i in range(10)]
    figure = rate(people, np.zeros(10, bool))
    assert (figure.value, figure.low) == (0.0, 0.0)
    assert figure.high == pytest.approx(0.3085, abs=1e-3)
    perfect = bootstrap(people, lambda w: area(*roc(np.arange(10) > 4, np.arange(10.0), w)), smallest=5)
    assert perfect.value == perfect.high == 1.0
    assert perfect.low == pytest.approx(0.025 ** (1 / 5))


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=40))
def test_an_interval_of_a_share_holds_it_and_stays_within_0_and_1(rows: list[tuple[int, bool]]) -> None:
    hits = np.array([h for _, h in rows])
    figure = rate([str(p) for p, _ in rows], hits)
    assert figure.value == share(hits)
    assert 0 <= figure.low <= figure.value <= figure.high <= 1  # type: ignore[operator]
    low, high = exact_interval(share(hits), len({p for p, _ in rows}))
    assert figure.low <= low  # type: ignore[operator]
    assert figure.high >= high  # type: ignore[operator]


def test_calibration_error_of_honest_and_of_overconfident_probabilities() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random(5000)
    fake = rng.random(5000) < probabilities
    assert calibration_error(fake, probabilities) < 0.03
    assert calibration_error(fake, np.where(probabilities > 0.5, 1.0, 0.0)) > 0.2
    assert (bins_of(96), bins_of(5000)) == (5, 15)


def test_calibration_error_by_hand() -> None:
    fake = np.array([False, True, True, True])
    p = np.array([0.2, 0.4, 0.6, 0.8])
    assert calibration_error(fake, p, bins=2) == pytest.approx((abs(0.5 - 0.3) + abs(1 - 0.7)) / 2)
    assert calibration_gap(fake, p, 1)(np.array([[1.0, 0, 0, 0]]))[0] == pytest.approx(0.2)
