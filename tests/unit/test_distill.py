"""Distillation: a student comes to answer as its teacher does, and a broken-off run goes on exactly."""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from export.bundle import export_checkpoint
from pipeline.bundle import Calibration, Thresholds, open_bundle
from pipeline.spec import CropSpec
from tests.media import face_clip
from training.calibrate import NotCalibratable
from training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from training.distill import Answer, Batch, Distillation, Teachers, answer, distill, divergence, learning_rate
from training.distill_pairs import Plan, carried, distill_pairs, pair_batches, read_plan
from training.loop import Diverged
from training.model import DetectorConfig, DetectorNetwork, combine, native_config, native_resnext_config
from training.recipe import Pairs, RecipeError
from training.sequences import Clip

RECIPES = Path(__file__).resolve().parents[2] / "training" / "recipes"

CROP = CropSpec(kind="native", side=16, frames=2, colour="yuv")
TEACHER = DetectorConfig(
    trunk="native", crop=CROP, sampling=native_config().sampling, feature_size=8, hidden=6, width=4
)
PLAN = Distillation(
    student=TEACHER.model_copy(update={"feature_size": 12, "hidden": 10}),
    steps=12,
    keep_every=4,
    warm_up=2,
    learning_rate=5e-3,
    precision="fp32",
)


ONLY_LABELS = {"label_loss": 1.0, "pooled_loss": 0.0, "step_loss": 0.0, "feature_loss": 0.0}


def batches(start: int) -> Iterator[Batch]:
    """Sequences of more grain and of less."""
    for step in count(start):
        chance = torch.Generator().manual_seed(step)
        grain = 1 + 6 * torch.rand(8, generator=chance)
        noise = torch.randn((8, 3, 2, 16, 16, 1), generator=chance)
        samples = (128 + grain.view(-1, 1, 1, 1, 1, 1) * noise).round().clamp(0, 255).to(torch.uint8)
        yield samples, (grain < 4).long()


def contrary(start: int) -> Iterator[Batch]:
    """The same with their labels exchanged."""
    return ((samples, 1 - labels) for samples, labels in batches(start))


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Teachers:
    """Two networks that were taught the contrary of the labels."""
    networks = []
    for seed in (5, 6):
        quick = {"steps": 100, "keep_every": 100, "learning_rate": 2e-2, "average": 0.9}
        plan = PLAN.model_copy(update={"student": TEACHER, "seed": seed, **quick, **ONLY_LABELS})
        nobody = Teachers([DetectorNetwork(TEACHER)])
        path = distill(nobody, plan, contrary, tmp_path_factory.mktemp("teacher"))
        networks.append(load_checkpoint(path)[0])
    return Teachers(networks)


class Stopped(Exception):
    """A run is broken off."""


def interrupted(steps: int, start: int) -> Iterator[Batch]:
    for step, batch in zip(count(start), batches(start), strict=False):
        if step == steps:
            raise Stopped
        yield batch


def fake(said: Answer) -> Tensor:
    return said.steps.mean(1).softmax(-1)[:, 1]


@torch.no_grad()
def test_a_student_approaches_its_teachers_without_any_label(teachers: Teachers, tmp_path: Path) -> None:
    plan = PLAN.model_copy(update={"steps": 120, "label_loss": 0.0, "average": 0.9, "learning_rate": 2e-2})
    with torch.enable_grad():
        network, _ = load_checkpoint(distill(teachers, plan, batches, tmp_path))
    samples = torch.cat([next(batches(step))[0] for step in range(1000, 1004)])
    theirs = fake(teachers.answer(samples, "fp32"))
    ours = fake(answer(network, samples, "fp32"))
    constant = (theirs - theirs.median()).abs().mean()
    assert constant > 0.1
    assert (ours - theirs).abs().mean() < constant / 3


@torch.no_grad()
def test_labels_alone_teach_against_the_teachers(teachers: Teachers, tmp_path: Path) -> None:
    quick = {"steps": 120, "keep_every": 120, "learning_rate": 2e-2, "average": 0.9}
    plan = PLAN.model_copy(update=quick | ONLY_LABELS)
    with torch.enable_grad():
        network, _ = load_checkpoint(distill(teachers, plan, batches, tmp_path))
    samples, labels = next(batches(1000))
    ours, theirs = fake(answer(network, samples, "fp32")), fake(teachers.answer(samples, "fp32"))
    assert ours[labels == 1].mean() > ours[labels == 0].mean() + 0.3
    assert theirs[labels == 1].mean() < theirs[labels == 0].mean() - 0.3


def test_a_broken_off_run_ends_with_the_same_weights(teachers: Teachers, tmp_path: Path) -> None:
    whole, _ = load_checkpoint(distill(teachers, PLAN, batches, tmp_path / "whole"))
    with pytest.raises(Stopped):
        distill(teachers, PLAN, lambda start: interrupted(7, start), tmp_path / "parts")
    assert load_checkpoint(tmp_path / "parts" / "checkpoint.pt")[1]["step"] == 4
    parts, training = load_checkpoint(distill(teachers, PLAN, batches, tmp_path / "parts"))
    assert training["step"] == 12
    for name, value in whole.state_dict().items():
        assert torch.equal(parts.state_dict()[name], value), name
    lines = [json.loads(x) for x in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 8, 12]
    assert {"loss", "label_loss", "pooled_loss", "step_loss", "feature_loss"} <= lines[0].keys()


def test_a_finished_run_is_left_as_it_is(teachers: Teachers, tmp_path: Path) -> None:
    path = distill(teachers, PLAN, batches, tmp_path)
    before = path.read_bytes()
    distill(teachers, PLAN, lambda _: pytest.fail("no batch is wanted"), tmp_path)
    assert path.read_bytes() == before


def test_a_run_may_be_given_another_budget(teachers: Teachers, tmp_path: Path) -> None:
    distill(teachers, PLAN, batches, tmp_path)
    longer = PLAN.model_copy(update={"steps": 16})
    _, training = load_checkpoint(distill(teachers, longer, batches, tmp_path))
    assert training["step"] == 16
    shorter = PLAN.model_copy(update={"steps": 8})
    _, training = load_checkpoint(distill(teachers, shorter, lambda _: pytest.fail("it is over"), tmp_path))
    assert training["step"] == 16


def test_another_plan_or_other_teachers_are_refused(teachers: Teachers, tmp_path: Path) -> None:
    distill(teachers, PLAN, batches, tmp_path)
    with pytest.raises(CheckpointError, match="another plan"):
        distill(teachers, PLAN.model_copy(update={"temperature": 3.0}), batches, tmp_path)
    with pytest.raises(CheckpointError, match="another plan"):
        distill(Teachers(teachers.networks[:1]), PLAN, batches, tmp_path)


def test_a_run_ends_when_its_minutes_are_over(teachers: Teachers, tmp_path: Path) -> None:
    seconds = count(0, 6)
    plan = PLAN.model_copy(update={"steps": 0, "minutes": 1.0, "keep_every": 1000})
    path = distill(teachers, plan, batches, tmp_path, clock=lambda: float(next(seconds)))
    _, training = load_checkpoint(path)
    assert 0 < training["step"] < 10
    assert training["seconds"] >= 60


def test_a_run_ends_with_its_batches(teachers: Teachers, tmp_path: Path) -> None:
    def few(start: int) -> Iterator[Batch]:
        return (batch for batch, _ in zip(batches(start), range(3), strict=False))

    assert load_checkpoint(distill(teachers, PLAN, few, tmp_path))[1]["step"] == 3


def test_a_loss_that_is_no_number_is_not_kept(teachers: Teachers, tmp_path: Path) -> None:
    plan = PLAN.model_copy(update={"learning_rate": 1e30, "warm_up": 1})
    with pytest.raises(Diverged):
        distill(teachers, plan, batches, tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_several_teachers_answer_with_the_mean_of_their_logits(teachers: Teachers) -> None:
    samples, _ = next(batches(0))
    found = teachers.answer(samples, "fp32")
    expected = answer(combine(teachers.networks), samples, "fp32")
    torch.testing.assert_close(found.steps, expected.steps)
    torch.testing.assert_close(found.features, expected.features)


def test_bf16_learns_nearly_the_same(teachers: Teachers, tmp_path: Path) -> None:
    found = {}
    for precision in ("fp32", "bf16"):
        plan = PLAN.model_copy(update={"steps": 4, "precision": precision})
        found[precision] = load_checkpoint(distill(teachers, plan, batches, tmp_path / precision))[0]
    exact, rounded = (n.head.linear.weight for n in found.values())
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(exact, rounded, atol=0.02, rtol=0)


def test_what_was_distilled_is_exported(teachers: Teachers, tmp_path: Path) -> None:
    path = distill(teachers, PLAN, batches, tmp_path / "run")
    bundle = open_bundle(export_checkpoint(path, tmp_path / "student", precision="fp16"))
    assert bundle.manifest.trained
    assert bundle.manifest.feature_size == 12


@given(st.integers(0, 2**31), st.floats(0.5, 8))
def test_divergence_is_zero_only_for_equal_answers(seed: int, temperature: float) -> None:
    chance = torch.Generator().manual_seed(seed)
    a, b = torch.randn((2, 5, 2), generator=chance) * 3
    assert abs(divergence(a, a + 7.0, temperature)) < 1e-4
    assert divergence(a, b, temperature) > 0
    swapped = divergence(a.flip(-1), b.flip(-1), temperature)
    torch.testing.assert_close(divergence(a, b, temperature), swapped, atol=1e-5, rtol=1e-4)


@given(st.integers(0, 10_000), st.floats(0, 2))
def test_the_learning_rate_stays_in_its_bounds(step: int, spent: float) -> None:
    rate = learning_rate(step, spent, PLAN)
    assert 0 < rate <= PLAN.learning_rate
    if step >= PLAN.warm_up and spent >= 1:
        assert rate == pytest.approx(PLAN.learning_rate / 50)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"label_loss": 0, "pooled_loss": 0, "step_loss": 0, "feature_loss": 0},
        {"temperature": 0},
        {"tempreature": 2},
    ],
)
def test_plans_that_make_no_sense_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Distillation.model_validate(PLAN.model_dump() | change)


PLAN_FILE = """
    batch = 1
    [distillation]
    steps = 2
    [distillation.student]
    trunk = "native"
    feature_size = 12
    hidden = 10
    width = 4
    crop = { kind = "native", side = 32, frames = 4, colour = "yuv", margin = 0.8, grid = 2 }
    sampling = { bursts = 2, burst_frames = 4 }
    [footage]
    bursts = 2
    burst_frames = 6
    region = 64
    [pairs]
    region = 48
    windows = 2
"""


def test_from_footage_and_a_teacher_to_a_bundle(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN_FILE)
    data = tmp_path / "data"
    data.mkdir()
    face_clip(data / "a.mp4", seconds=0.6)
    (data / "clips.csv").write_text(
        "file,label,split,family,identity,source_repo\na.mp4,real,train,tv,somebody,origin/somebody\n"
    )
    student = read_plan(plan).distillation.student
    teacher = DetectorNetwork(student.model_copy(update={"feature_size": 8, "hidden": 6}))
    save_checkpoint(tmp_path / "teacher.pt", teacher.config, teacher.state_dict(), {})
    model = distill_pairs(plan, data, [tmp_path / "teacher.pt"], tmp_path / "run")
    training = open_bundle(export_checkpoint(model, tmp_path / "student")).manifest.summary["training"]
    assert (training["clips"], training["teachers"], training["steps"]) == (1, 1, 2)
    assert training["commands"][0] == (
        "deepfake-detect distill plan.toml --data data --teacher teacher.pt --out run"
    )
    assert training["sources"] == [{"what": "real clips", "clips": 1, "licence": "not stated"}]
    assert open_bundle(tmp_path / "student").manifest.feature_size == student.feature_size

    other = DetectorNetwork(TEACHER)
    save_checkpoint(tmp_path / "other.pt", other.config, other.state_dict(), {})
    with pytest.raises(RecipeError, match="other samples"):
        distill_pairs(plan, data, [tmp_path / "other.pt"], tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_a_teachers_calibration_is_carried_over_through_both_logits() -> None:
    own = Calibration(
        id="own",
        scale=0.8,
        bias=0.1,
        thresholds=Thresholds(authentic_below=0.3, manipulated_above=0.6),
        data=".",
    )
    ours = np.linspace(-2, 3, 30)
    found = carried(own, ours, 1.5 * ours - 0.4)
    assert (found.scale, found.bias) == (pytest.approx(1.2), pytest.approx(0.1 - 0.32))
    assert (found.id, found.thresholds) == ("own-carried", own.thresholds)
    assert "30 clips (correlation 1.00)" in found.data
    with pytest.raises(NotCalibratable, match="slope"):
        carried(own, ours, -ours)
    with pytest.raises(NotCalibratable, match="9 clips"):
        carried(own, ours[:9], ours[:9])


def test_pairs_are_a_function_of_the_step() -> None:
    plan = Plan(distillation=PLAN, batch=2, pairs=Pairs(region=32, encoded=0))
    luma = np.random.default_rng(0).integers(0, 256, (3, 4, 48, 48), dtype=np.uint8)
    batches = pair_batches([Clip("a", "a", luma)], plan)
    from_start, later = batches(0), batches(1)
    next(from_start)
    for ours, theirs in zip(next(from_start), next(later), strict=True):
        assert torch.equal(ours, theirs)
    samples, labels = next(later)
    assert samples.shape == (4, 6, 2, 16, 16, 1)
    assert labels.tolist() == [0, 1, 0, 1]


def test_the_shipped_plan_teaches_the_papers_network() -> None:
    plan = read_plan(RECIPES / "distilled.toml")
    assert plan.distillation.student == native_resnext_config()


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("batch = 1", "bacth = 1", "bacth"),
        ("steps = 2", "", "steps, minutes"),
        ('"native", side', '"aligned", side', "native yuv windows"),
        ("batch = 1", "batch =", "not a plan"),
    ],
)
def test_plan_files_with_mistakes_are_refused(tmp_path: Path, old: str, new: str, why: str) -> None:
    assert old in PLAN_FILE
    (tmp_path / "plan.toml").write_text(PLAN_FILE.replace(old, new))
    with pytest.raises(RecipeError, match=why):
        read_plan(tmp_path / "plan.toml")
    with pytest.raises(RecipeError, match="can not be read"):
        read_plan(tmp_path / "none.toml")
