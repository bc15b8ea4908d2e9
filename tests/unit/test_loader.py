"""Lessons: pure functions of the step, drawn fairly, and without a trace of who made them."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from pipeline.frames import U8
from pipeline.spec import CropSpec, SamplingSpec
from tests.shards import shard_clip, toy_faces, write_shards
from training import loader
from training.augment import jpeg
from training.checkpoint import CheckpointError
from training.distributed import World
from training.loader import ClipTeacher, Lesson, NoFootage, Prepared, clip_exam, lessons, real_faces
from training.metrics import auc
from training.model import DetectorConfig
from training.recipe import Recipe, RecipeError
from training.reconstruct import AutoencoderConfig, train_autoencoders
from training.shards import open_shards

SIDE = 48
CROP = CropSpec(kind="aligned", side=SIDE)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    """As quick as any for networks of this size, and kind to whatever else runs here."""
    torch.set_num_threads(1)


def recipe(batch: int = 4, **clips: Any) -> Recipe:
    network = DetectorConfig(
        trunk="resnext50_32x4d",
        crop=CROP,
        sampling=SamplingSpec(bursts=4, burst_frames=1),
        feature_size=2048,
        hidden=4,
    )
    table = {"network": network, "clips": clips, "optimiser": {"steps": 5, "batch": batch}}
    return Recipe.model_validate(table)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Prepared]:
    made = toy_faces(10, SIDE, frames=6)
    shards = open_shards(write_shards(tmp_path_factory.mktemp("data") / "shards", made, CROP))
    return [Prepared(shards, clip) for clip in shards.clips]


def equal(a: Lesson, b: Lesson) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_lesson_is_a_function_of_its_step_alone(clips: list[Prepared]) -> None:
    plan = recipe(pseudofakes=0.5, augment={"flip": 0.5, "noise": 0.5, "h264": 0.5})
    one, two = ClipTeacher(clips, plan), ClipTeacher(clips, plan)
    for step in (3, 0):
        assert equal(one.lesson(step), two.lesson(step))
    assert not equal(one.lesson(0), one.lesson(1))
    ahead = list(lessons(two, range(3), workers=2))
    assert all(equal(a, one.lesson(step)) for step, a in enumerate(ahead))


def test_a_sequence_is_what_the_service_would_look_at(clips: list[Prepared]) -> None:
    lesson = clip_exam(clips, recipe(batch=3)).lesson(1)
    assert lesson.samples.shape == (12, 1, SIDE, SIDE, 3)
    assert lesson.lengths.tolist() == [4, 4, 4]
    assert lesson.labels.tolist() == [int(c.clip.fake) for c in clips[3:6]]
    # Four frames, evenly spread over six.
    assert np.array_equal(lesson.samples[:4, 0].numpy(), clips[3].frames()[[0, 2, 3, 5]])


def test_an_exam_has_each_clip_once_whoever_takes_it(clips: list[Prepared]) -> None:
    plan, device = recipe(batch=3), torch.device("cpu")
    whole = list(lessons(clip_exam(clips, plan), clip_exam(clips, plan).mine))
    exams = [clip_exam(clips, plan, World(device, rank, 2)) for rank in range(2)]
    parts = [lesson for exam in exams for lesson in lessons(exam, exam.mine)]
    assert sum(len(lesson.labels) for lesson in whole) == len(clips)
    assert sorted(x.samples.sum().item() for x in whole) == sorted(x.samples.sum().item() for x in parts)


def test_an_epoch_has_each_clip_once(clips: list[Prepared], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[str] = Counter()

    def remembered(clip: Prepared) -> U8:
        seen[clip.clip.file] += 1
        return clip.shards.frames(clip.clip)

    monkeypatch.setattr(Prepared, "frames", remembered)
    teacher = ClipTeacher(clips, recipe(batch=4))
    for step in range(5):
        teacher.lesson(step)
    assert seen == {c.clip.file: 2 for c in clips}


@given(st.integers(0, 3), st.integers(1, 9), st.integers(1, 30), st.integers(0, 30))
def test_draws_are_one_row_of_whole_packs(seed: int, count: int, length: int, start: int) -> None:
    row = loader._drawn(seed, 2, count, 0, start + length)
    assert row[start:] == loader._drawn(seed, 2, count, start, start + length)
    for pack in range(len(row) // count):
        assert sorted(row[pack * count : (pack + 1) * count]) == list(range(count))


@pytest.mark.parametrize("batch", [3, 4])
def test_balance_draws_both_classes_evenly(clips: list[Prepared], batch: int) -> None:
    lopsided = [c for k, c in enumerate(clips) if not c.clip.fake or k < 3]
    teacher = ClipTeacher(lopsided, recipe(batch=batch, balance=True))
    labels = torch.cat([teacher.lesson(step).labels for step in range(8)])
    assert labels.sum() * 2 == len(labels)


def test_each_pseudo_fake_is_in_one_batch_with_its_source(
    clips: list[Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of eight sequences are pairs; strangers are other people."""
    asked: list[tuple[U8, U8 | None]] = []

    def make(clip: U8, rng: np.random.Generator, *, other: U8 | None, **_: object) -> U8:
        asked.append((clip, other))
        return 255 - clip

    monkeypatch.setattr(loader.pseudofakes, "make", make)
    lesson = ClipTeacher(clips, recipe(batch=8, pseudofakes=0.5)).lesson(0)
    sequences = lesson.samples.split(lesson.lengths.tolist())
    assert len(asked) == 2
    for pair in (0, 1):
        a, b = sequences[2 * pair], sequences[2 * pair + 1]
        assert torch.equal(a, 255 - b)
        assert sorted(lesson.labels[2 * pair : 2 * pair + 2].tolist()) == [0, 1]
    by_content = {c.frames().tobytes(): c.clip for c in clips}
    for real, other in asked:
        assert not by_content[real.tobytes()].fake
        assert other is not None
        assert by_content[other.tobytes()].identity != by_content[real.tobytes()].identity


def test_a_pair_is_changed_as_one_and_each_pair_otherwise(
    clips: list[Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader.pseudofakes, "make", lambda clip, rng, **_: np.array(clip))
    plan = recipe(batch=4, pseudofakes=1.0, augment={"colour": 1.0, "affine": 1.0})
    lesson = ClipTeacher(clips[:1], plan).lesson(0)
    a, b, c, d = lesson.samples.split(lesson.lengths.tolist())
    assert torch.equal(a, b)
    assert torch.equal(c, d)
    assert not torch.equal(a, c)


def test_pseudo_fakes_are_forgeries_of_their_sources(clips: list[Prepared]) -> None:
    """The real thing: labels are right, and a pair differs, but not everywhere."""
    lesson = ClipTeacher(clips, recipe(batch=2, pseudofakes=1, kinds=("self_blended",))).lesson(0)
    assert sorted(lesson.labels.tolist()) == [0, 1]
    difference = (lesson.samples[:4].int() - lesson.samples[4:].int()).abs()
    assert 0 < (difference > 0).float().mean() < 0.98


@pytest.mark.parametrize("size", [2, 3])
def test_processes_share_out_the_lesson_of_one(clips: list[Prepared], size: int) -> None:
    plan = recipe(batch=6, pseudofakes=0.4, augment={"colour": 1.0})
    whole = ClipTeacher(clips, plan).lesson(2)
    parts = [
        ClipTeacher(clips, plan, World(torch.device("cpu"), rank, size)).lesson(2) for rank in range(size)
    ]
    sums = [
        sorted(s.sum().item() for x in of for s in x.samples.split(x.lengths.tolist()))
        for of in ([whole], parts)
    ]
    assert sums[0] == sums[1]
    assert sum(len(part.labels) for part in parts) == 6


def test_what_can_not_teach_is_refused(clips: list[Prepared]) -> None:
    real = [c for c in clips if not c.clip.fake]
    with pytest.raises(NoFootage, match="5 real and 0 fake"):
        ClipTeacher(real, recipe())
    assert ClipTeacher(real, recipe(pseudofakes=1.0)).lesson(0).labels.sum() == 2
    with pytest.raises(NoFootage):
        ClipTeacher([c for c in clips if c.clip.fake], recipe(pseudofakes=1.0))
    with pytest.raises(RecipeError, match="no pseudo-fakes are called drawn_by_hand"):
        ClipTeacher(clips, recipe(pseudofakes=1.0, kinds=("drawn_by_hand",)))
    with pytest.raises(RecipeError, match="too small for 5 processes"):
        ClipTeacher(clips, recipe(batch=4), World(torch.device("cpu"), 0, 5))


def people(tmp_path: Path, *identities: str, side: int = SIDE, frames: int = 6) -> list[Prepared]:
    """Real clips, one of each of these."""
    made = []
    for k, who in enumerate(identities):
        pixels = np.random.default_rng(k).integers(0, 256, (frames, side, side, 3), np.uint8)
        made.append((shard_clip(f"{k}", frames, who=who), pixels))
    crop = CropSpec(kind="aligned", side=side)
    shards = open_shards(write_shards(tmp_path / "people", made, crop))
    return [Prepared(shards, c) for c in shards.clips]


def test_the_only_stranger_is_always_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few draws among 40 clips of one person would often miss the only clip of another."""
    clips = people(tmp_path, *["Ann"] * 40, "Bob")
    strangers: list[U8 | None] = []

    def make(clip: U8, rng: np.random.Generator, *, other: U8 | None, **_: object) -> U8:
        strangers.append(other)
        return clip

    monkeypatch.setattr(loader.pseudofakes, "make", make)
    teacher = ClipTeacher(clips, recipe(batch=8, pseudofakes=1.0, kinds=("swapped",)))
    for step in range(4):
        teacher.lesson(step)
    assert len(strangers) == 16
    assert all(other is not None for other in strangers)


@pytest.mark.parametrize("identities", [("Ann",), ("Ann", "Ann"), ("Ann+Bob", "Ann", "Bob")])
def test_swaps_without_a_stranger_for_each_clip_are_refused(
    tmp_path: Path, identities: tuple[str, ...]
) -> None:
    clips = people(tmp_path, *identities)
    with pytest.raises(RecipeError, match=r"swapped: .* nobody else"):
        ClipTeacher(clips, recipe(pseudofakes=1.0, kinds=("self_blended", "swapped")))
    assert len(ClipTeacher(clips, recipe(pseudofakes=1.0)).lesson(0).labels) == 4


@pytest.fixture(scope="module")
def autoencoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("autoencoders"))


def trained(folder: Path, channels: Literal[1, 3] = 3, seed: int = 0) -> Path:
    """Two autoencoders that have hardly learnt anything."""
    rng = np.random.default_rng(seed)
    faces = rng.integers(0, 256, (4, 64, 64, 3) if channels == 3 else (4, 64, 64), np.uint8)
    configs = [AutoencoderConfig(channels=channels, width=4, latent=n) for n in (4, 5)]
    train_autoencoders([faces], folder, configs=configs, steps=2, seed=seed)
    return folder


RECONSTRUCTIONS = ("reconstructed", "redrawn_mouth")


def test_autoencoders_redraw_the_same_in_every_process(clips: list[Prepared], autoencoders: Path) -> None:
    teacher = ClipTeacher(
        clips, recipe(batch=2, pseudofakes=1.0, kinds=RECONSTRUCTIONS, autoencoders=autoencoders)
    )
    here = [teacher.lesson(step) for step in range(3)]
    for lesson in here:
        assert not torch.equal(lesson.samples[:4], lesson.samples[4:])
    torch.set_num_threads(2)
    try:
        assert equal(teacher.lesson(1), here[1])
    finally:
        torch.set_num_threads(1)
    assert all(equal(a, b) for a, b in zip(lessons(teacher, range(3), workers=1), here, strict=True))


def test_other_autoencoders_are_other_data(clips: list[Prepared], autoencoders: Path, tmp_path: Path) -> None:
    other = trained(tmp_path, seed=1)

    def digest(**plan: Any) -> str:
        return ClipTeacher(clips, recipe(**plan)).digest

    assert len({digest(pseudofakes=0.5, autoencoders=a) for a in (None, autoencoders, other)}) == 3
    assert digest(autoencoders=other) == digest()


def test_autoencoders_that_were_replaced_meanwhile_are_refused(autoencoders: Path) -> None:
    with pytest.raises(CheckpointError, match="have changed"):
        loader._autoencoders(autoencoders, "another digest")


def test_reconstructions_without_autoencoders_are_refused(clips: list[Prepared], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"reconstructed, redrawn_mouth: .* clips\.autoencoders"):
        ClipTeacher(clips, recipe(pseudofakes=1.0, kinds=("held", *RECONSTRUCTIONS)))
    for folder in (tmp_path / "absent", trained(tmp_path / "luma", channels=1)):
        with pytest.raises(RecipeError, match="holds no autoencoder of RGB pictures"):
            ClipTeacher(clips, recipe(pseudofakes=1.0, autoencoders=folder))


def test_autoencoders_learn_from_real_training_clips(tmp_path: Path) -> None:
    made = toy_faces(4, 64) + toy_faces(2, 64, split="validation")
    root = write_shards(tmp_path / "shards", made, CropSpec(kind="aligned", side=64))
    real = [pixels for clip, pixels in made if clip.split == "train" and not clip.fake]
    found = real_faces([root, root])
    assert len(found) == 4
    assert all(np.array_equal(a, b) for a, b in zip(found, real + real, strict=True))


@pytest.mark.parametrize(
    ("side", "split", "wrong"), [(64, "test", "no real clip"), (48, "train", "48 pixels")]
)
def test_faces_that_can_not_teach_autoencoders_are_refused(
    tmp_path: Path, side: int, split: str, wrong: str
) -> None:
    made = toy_faces(2, side, split=split)
    root = write_shards(tmp_path / "shards", made, CropSpec(kind="aligned", side=side))
    with pytest.raises(NoFootage, match=wrong):
        real_faces([root])


def test_a_photograph_is_filmed_to_make_a_pair(tmp_path: Path) -> None:
    """As many frames as a sequence has, moving, and as a labelled clip the one frame that it is."""
    clips = people(tmp_path, "Ann", "Bob", "Cy", frames=1)
    lesson = ClipTeacher(clips, recipe(batch=2, pseudofakes=1.0, kinds=("self_blended",))).lesson(0)
    assert lesson.lengths.tolist() == [4, 4]
    real = lesson.samples.split([4, 4])[lesson.labels.tolist().index(0)][:, 0].float()
    assert all(0 < (a - b).abs().mean() < 60 for a, b in pairwise(real))
    fake = lesson.samples.split([4, 4])[lesson.labels.tolist().index(1)][:, 0].float()
    assert 0 < (real - fake).abs().mean() < (real[0] - real[1]).abs().mean()
    assert clip_exam(clips, recipe()).lesson(0).lengths.tolist() == [1, 1, 1]


def bookkeeping(lesson: Lesson) -> list[list[float]]:
    """What a lazy learner could go by: place, length, mean, spread, edges in space and time, encoded size."""
    rows = []
    for k, sequence in enumerate(lesson.samples.split(lesson.lengths.tolist())):
        pixels = sequence[:, 0].numpy().astype(np.float64)
        smooth = jpeg(sequence[:, 0].numpy(), np.random.default_rng(0), (60, 60)).astype(np.float64)
        rows.append(
            [
                k % 2,
                k,
                len(pixels),
                pixels.mean(),
                pixels.std(),
                np.abs(np.diff(pixels, axis=0)).mean(),
                np.abs(np.diff(pixels, axis=2)).mean(),
                np.abs(pixels - smooth).mean(),
                np.abs(np.diff(pixels, axis=2))[:, :, 7::8].mean()
                / (1 + np.abs(np.diff(pixels, axis=2)).mean()),
            ]
        )
    return rows


@pytest.mark.parametrize("as_pairs", [True, False])
def test_bookkeeping_tells_no_class_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_pairs: bool
) -> None:
    """When a "fake" is a copy of its real clip, no probe finds out which is which: order, length,
    statistics and encoding are the same for both. Chance is 0.5; 200 sequences stray by 0.08."""
    monkeypatch.setattr(loader.pseudofakes, "make", lambda clip, rng, **_: np.array(clip))
    made = []
    for k in range(20):
        rng = np.random.default_rng(k)
        pixels = np.clip(rng.normal(100 + 2 * k, 10 + k, (5 + k % 4, SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
        made += [(shard_clip(f"{k} {f}", len(pixels), fake=f, who=str(k)), pixels) for f in (False, True)]
    shards = open_shards(write_shards(tmp_path / "shards", made, CROP))
    changes = dict.fromkeys(("flip", "colour", "blur", "noise", "retime", "jpeg", "h264"), 0.5)
    plan = recipe(batch=10, pseudofakes=float(as_pairs), augment=changes)
    teacher = ClipTeacher([Prepared(shards, c) for c in shards.clips], plan)
    taught = [teacher.lesson(step) for step in range(20)]
    features = np.concatenate([np.array(bookkeeping(lesson)) for lesson in taught])
    labels = np.concatenate([lesson.labels.numpy() for lesson in taught]).astype(bool)
    features = (features - features.mean(0)) / (features.std(0) + 1e-9)
    groups = np.arange(len(labels)) // 2 % 5
    folds = [(np.flatnonzero(groups != g), np.flatnonzero(groups == g)) for g in range(5)]
    scores = cross_val_predict(LogisticRegression(), features, labels, cv=folds, method="decision_function")
    assert len(labels) == 200
    assert abs(auc(labels, scores) - 0.5) < 0.12
