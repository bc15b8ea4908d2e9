"""Calibration: scale, bias and thresholds, and what they promise."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cli.main import main
from pipeline.bundle import Calibration, Manifest, Thresholds, open_bundle
from pipeline.engine import Engine
from pipeline.errors import BundleError
from pipeline.scores import calibrated
from pipeline.selfcheck import selfcheck
from pipeline.verdict import widened
from tests.bundles import tiny_bundle
from tests.unit.test_app import Running
from tests.unit.test_evaluate import clip, tinted_clips, write_table
from training.calibrate import (
    FOLDS,
    NotCalibratable,
    Platt,
    calibrate,
    check_enough,
    cross_fitted,
    lower_threshold,
    platt,
    temperature,
    upper_threshold,
)
from training.labelled import Labelled
from training.recalibrate import Wanted, check_kept, fit, upper_bound, well_known, write_bundle
from training.recipe import Operating
from training.scoring import Scored


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


def test_a_temperature_leaves_even_odds_even() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, 20000)
    fake = rng.random(20000) < 1 / (1 + np.exp(-true))
    fitted = temperature(fake, true / 3)
    assert fitted.scale == pytest.approx(3, rel=0.1)
    assert fitted.bias == 0
    assert fitted(np.zeros(1))[0] == 0.5


def test_a_temperature_is_the_best_scale_there_is_without_a_bias() -> None:
    rng = np.random.default_rng(0)
    fake = np.arange(2000) % 4 == 0
    logits = rng.normal(1, 1, 2000) + 1.5 * fake

    def loss(scale: float) -> float:
        p = Platt(scale, 0.0)(logits)
        return float(-(np.log(p[fake]).mean() + np.log(1 - p[~fake]).mean()))

    best = temperature(fake, logits).scale
    assert loss(best) < min(loss(1.03 * best), loss(best / 1.03))


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


@settings(max_examples=40)
@given(
    st.lists(st.floats(-13, 13), min_size=4, max_size=60),
    st.floats(0.1, 3),
    st.sampled_from([0.05, 0.2, 0.4]),
)
@example([0.0] * 9, 1.0, 0.2)
def test_what_the_service_rounds_keeps_the_promise_too(logits: list[float], gap: float, rate: float) -> None:
    """Calibrated by the service's own function, no more clips than asked for lie beyond a threshold."""
    fake = np.arange(len(logits)) % 2 == 1
    scores = np.array(logits) + gap * fake
    try:
        found = calibrate("x", fake, scores, Wanted(rate, rate), "")
    except NotCalibratable:
        return
    p = np.array([calibrated(1 / (1 + np.exp(-float(x))), found) for x in scores])
    top = (p[~fake] == 1).mean()
    assert (p[~fake] >= found.thresholds.manipulated_above).mean() <= max(rate, top)
    widened(found.thresholds, 0)
    assert (p[fake] < found.thresholds.authentic_below).mean() <= rate


# What a user's clips can carry


def people(count: int) -> list[str]:
    return [f"p{i}" for i in range(count)]


def test_a_rate_needs_as_many_clips_as_its_inverse() -> None:
    fake = np.arange(150) >= 99
    with pytest.raises(NotCalibratable, match=r"0\.01 needs at least 100 real clips.* there are 99.*0\.011"):
        check_enough(fake, people(150), Wanted(0.01))
    check_enough(np.arange(150) >= 100, people(150), Wanted(0.01))
    with pytest.raises(
        NotCalibratable, match=r"0\.01 needs at least 100 fake clips.* there are 50.*--fnr 0\.02"
    ):
        check_enough(np.arange(150) >= 100, people(150), Wanted(0.01, 0.01))
    with pytest.raises(NotCalibratable, match="there are 0: give more"):
        check_enough(np.ones(9, bool), people(9), Wanted(0.2))


def test_cross_fitting_needs_people_of_each_class() -> None:
    fake = np.arange(40) % 2 == 1
    with pytest.raises(NotCalibratable, match=f"fake clips of at least {FOLDS} people; there are 1"):
        check_enough(fake, ["one" if f else f"p{i}" for i, f in enumerate(fake)], Wanted(0.1))


def test_the_upper_bound_is_clopper_and_pearsons() -> None:
    assert upper_bound(0, 299) == pytest.approx(0.01, abs=2e-4)
    assert upper_bound(0, 100) == pytest.approx(1 - 0.05 ** (1 / 100))
    assert upper_bound(1, 5) == 1.0


def table_of(count: int, gap: float, people_of: int = 1) -> tuple[Labelled, list[Scored]]:
    """Clips with scores that overlap; each person has `people_of` clips in a row."""
    rng = np.random.default_rng(3)
    clips = [clip(str(i), i % 2 == 1, person=f"p{i // (2 * people_of)} {i % 2}") for i in range(count)]
    logits = rng.normal(0, 1, count) + gap * (np.arange(count) % 2)
    answers = [Scored(round(float(1 / (1 + np.exp(-x))), 6), "uncertain", sharpness=1.0) for x in logits]
    return Labelled(Path(), clips, count), answers


def test_figures_are_not_taken_on_what_was_fitted() -> None:
    """No clip is judged by a calibration that has seen its person: changing a label moves all of the
    others' probabilities, and never that of the person's own clips."""
    table, answers = table_of(60, 1.0, people_of=3)
    fake = np.array([c.fake for c in table.clips])
    p = np.array([a.fake for a in answers], float)
    given = {"doubts": [0] * 60, "people": [c.person for c in table.clips], "rates": Wanted(0.2)}
    logits = np.log(p / (1 - p))
    before, verdicts = cross_fitted(fake, p, logits, **given)
    mine = np.array([c.person == table.clips[0].person for c in table.clips])
    moved = np.where(mine, logits + 3, logits)
    after, _ = cross_fitted(fake, p, moved, **given)
    assert mine.sum() == 3
    assert np.array_equal(before[mine], after[mine])
    assert (before[~mine] != after[~mine]).mean() > 0.5
    assert set(verdicts) <= {"authentic", "uncertain", "manipulated"}


def test_doubts_widen_the_verdicts_that_are_counted() -> None:
    table, answers = table_of(60, 1.5)
    fake = np.array([c.fake for c in table.clips])
    p = np.array([a.fake for a in answers], float)
    names = [c.person for c in table.clips]
    uncertain = [
        cross_fitted(fake, p, np.log(p / (1 - p)), doubts=[d] * 60, people=names, rates=Wanted(0.1))[1].count(
            "uncertain"
        )
        for d in (0, 3)
    ]
    assert uncertain[1] > uncertain[0]


def test_a_calibration_says_what_it_rests_on() -> None:
    table, answers = table_of(200, 2.0, people_of=2)
    answers[0] = Scored(None, "not_applicable")
    answers[1] = Scored(None, "unreadable", why="broken")
    found, summary = fit(table, answers, Wanted(0.02), "mine.csv")
    assert "198 clips of mine.csv" in found.data
    assert "99 real ones of 50 people" in found.data
    assert "at most 2.0% of these real clips" in found.data
    assert "with 95% confidence" in found.data
    assert (summary["clips"]["not_applicable"], summary["clips"]["unreadable"]) == (1, 1)
    for name in ("auc", "calibration_error", "false_positive_rate", "log_loss"):
        assert summary["figures"][name]["value"] is not None
    again, _ = fit(table, answers, Wanted(0.02), "mine.csv")
    other, _ = fit(table, answers, Wanted(0.05), "mine.csv")
    assert found.id == again.id != other.id
    assert str(found.id).startswith("cal-")
    given, _ = fit(table, answers, Wanted(0.02, name="studio"), "mine.csv")
    assert given.id == "studio"


def test_a_calibration_holds_for_the_codecs_that_it_has_seen_enough_of() -> None:
    table, answers = table_of(90, 2.0)
    names = ["hevc"] * 40 + ["h264"] * 20 + ["vp9"] * 19 + ["h264"] * 11
    answers = [replace(a, codec=name) for a, name in zip(answers, names, strict=True)]
    answers[0] = replace(answers[0], fake=None, verdict="not_applicable")
    found, _ = fit(table, answers, Wanted(0.1), "mine.csv")
    assert found.codecs == ("h264", "hevc")
    assert "Codecs: h264, hevc." in found.data
    assert well_known(["hevc"] * 5 + ["vp9"] * 4) == ("hevc",)


def test_scores_that_have_run_into_1_are_refused() -> None:
    """Half of the real clips score as high as a clip can, so no threshold keeps them out."""
    fake = np.arange(40) % 2 == 1
    p = np.where(fake | (np.arange(40) % 4 == 0), 1.0, 1e-6)
    found = Calibration(
        id=None, bias=20, thresholds=Thresholds(authentic_below=1, manipulated_above=1), data=""
    )
    with pytest.raises(NotCalibratable, match=r"50\.0% of the real clips .* no threshold keeps"):
        check_kept(fake, p, found, Wanted(0.1))


# Another bundle


def test_a_new_bundle_has_the_same_weights_and_another_identity(tmp_path: Path) -> None:
    old = open_bundle(tiny_bundle(tmp_path / "tiny"))
    thresholds = Thresholds(authentic_below=0.25, manipulated_above=0.75)
    found = Calibration(id="mine", scale=2.0, bias=-0.5, thresholds=thresholds, data="words")
    path = write_bundle(old, tmp_path / "tiny.mine", found, {"of": "tiny"})
    new = open_bundle(path)
    selfcheck(new)
    assert (new.manifest.id, new.manifest.calibration) == ("tiny.mine", found)
    assert new.digest != old.digest
    samples = np.random.default_rng(0).integers(0, 256, (3, 1, 32, 32, 3), dtype=np.uint8)
    assert np.array_equal(Engine(new).encode(samples), Engine(old).encode(samples))
    with pytest.raises(BundleError, match="never written over"):
        write_bundle(old, path, found, {})
    with pytest.raises(BundleError, match="can not be the id"):
        write_bundle(old, tmp_path / "Mine+1", found, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiny", "tiny.mine"]


def test_nothing_is_left_when_a_bundle_can_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = open_bundle(tiny_bundle(tmp_path / "tiny"))
    monkeypatch.setattr("training.recalibrate.selfcheck", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_bundle(old, tmp_path / "new", old.manifest.calibration, {})
    assert [p.name for p in tmp_path.iterdir()] == ["tiny"]


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six real and six fake people; the fakes are redder, but for one."""
    root = tmp_path_factory.mktemp("footage")
    reds = {f"r{i}": -60 + 6 * i for i in range(6)} | {f"f{i}": 6 * i for i in range(5)} | {"f5": -45}
    tinted_clips(root, reds)
    rows = [{"file": f"{n}.mp4", "label": "real" if n[0] == "r" else "fake", "identity": n} for n in reds]
    write_table(root / "clips.csv", rows)
    return root


def run(*args: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["deepfake-detect", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            main()
    printed = capsys.readouterr()
    return int(stop.value.code or 0), printed.out, printed.err


def skewed(path: Path) -> None:
    """Give a bundle a calibration by which all is fake, and that a new one has to leave out."""
    text = json.loads((path / "manifest.json").read_text())
    text["calibration"] |= {"scale": 0.2, "bias": 3.0}
    (path / "manifest.json").write_text(json.dumps(text))


def test_from_clips_to_a_bundle_that_is_served_with_its_thresholds(
    footage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    skewed(tiny_bundle(tmp_path / "old" / "tiny", bursts=2))
    made = tmp_path / "models" / "mine-1"
    made.parent.mkdir()
    code, out, err = run(
        "calibrate", tmp_path / "old" / "tiny", "--clips", footage / "clips.csv", "--fpr", 0.2, "--out", made,
        "--workers", 1, capsys=capsys,
    )  # fmt: skip
    assert code == 0, err
    bundle = open_bundle(made)
    manifest = bundle.manifest
    assert manifest.id == "mine-1"
    assert manifest.summary["calibration"]["of"] == "tiny"
    assert manifest.calibration.id is not None
    assert out.strip() == manifest.calibration.data
    assert manifest.calibration.data in bundle.card
    assert "Measured by cross-fitting" in bundle.card
    assert manifest.calibration != open_bundle(tmp_path / "old" / "tiny").manifest.calibration

    service = Running(made.parent, tmp_path / "scratch")
    service.scratch.mkdir()
    service.runner.run(service.start())
    try:
        shown = service.ask("GET", "/v1/models/mine-1").json()
        answers = [
            service.ask("POST", "/v1/detect", content=(footage / f"{n}.mp4").read_bytes(),
                        headers={"Content-Type": "video/mp4"}).json()
            for n in ("r0", "f4")
        ]  # fmt: skip
    finally:
        service.runner.run(service.stop())
        service.runner.close()
    assert shown["manifest"] == json.loads((made / "manifest.json").read_text())
    assert shown["card"] == bundle.card
    thresholds = manifest.calibration.thresholds
    for answer in answers:
        assert answer["model"]["calibration"] == manifest.calibration.id
        assert answer["model"]["thresholds"] == thresholds.model_dump()
    assert answers[0]["verdict"] == "authentic"
    assert answers[1]["verdict"] == "manipulated"
    assert answers[0]["probabilities"]["fake"] < thresholds.authentic_below
    assert answers[1]["probabilities"]["fake"] >= thresholds.manipulated_above


def test_too_few_clips_are_refused_in_one_line_and_leave_nothing(
    footage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tiny_bundle(tmp_path / "tiny", bursts=2)
    code, _, err = run(
        "calibrate", bundle, "--clips", footage / "clips.csv", "--fpr", 0.01, "--workers", 1, capsys=capsys
    )
    assert (code, len(err.splitlines())) == (3, 1)
    assert "needs at least 100 real clips with a usable face; there are 6: ask for --fpr 0.167" in err
    code, _, err = run("calibrate", bundle, "--clips", footage / "clips.csv", "--out", bundle, capsys=capsys)
    assert code == 3
    assert "never written over" in err
    assert [p.name for p in tmp_path.iterdir()] == ["tiny"]


def test_without_a_calibration_the_answer_says_so(footage: Path, tmp_path: Path) -> None:
    path = tiny_bundle(tmp_path / "models" / "tiny", bursts=2)
    manifest = Manifest.model_validate_json((path / "manifest.json").read_bytes())
    plain = Calibration(
        id=None, thresholds=Thresholds(authentic_below=0.3, manipulated_above=0.7), data="not calibrated"
    )
    text = manifest.model_copy(update={"calibration": plain}).model_dump_json()
    (path / "manifest.json").write_text(text)
    service = Running(path.parent, tmp_path / "scratch")
    service.scratch.mkdir()
    service.runner.run(service.start())
    try:
        content = (footage / "r0.mp4").read_bytes()
        answer = service.ask(
            "POST", "/v1/detect", content=content, headers={"Content-Type": "video/mp4"}
        ).json()
    finally:
        service.runner.run(service.stop())
        service.runner.close()
    assert answer["model"]["calibration"] is None
    assert answer["model"]["thresholds"] == {"authentic_below": 0.3, "manipulated_above": 0.7}
    assert any(reason.startswith("uncalibrated:") for reason in answer["reasons"])
