"""Training: recipes, splits, reproducible and resumable runs, and the whole way to a bundle."""

import csv
import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from export.bundle import export_checkpoint, verify_bundle
from pipeline.bundle import open_bundle
from pipeline.prepare import prepare
from pipeline.sampleclip import write_sample
from pipeline.spec import CropSpec
from tests.media import face_clip
from training.checkpoint import CheckpointError, load_checkpoint
from training.corpus import ClipRow, CorpusError, folds, kinship, read_corpus
from training.learner import Learner, learning_rate
from training.loader import PairTeacher, pair_exam
from training.loop import CHECKPOINT, CURVES, LOG, Diverged, counted, fit
from training.model import DetectorNetwork, native_config
from training.pool import PoolError
from training.recipe import Footage, Optimiser, Pairs, Recipe, RecipeError, Stopping
from training.sequences import Clip
from training.train import train
from training.transcode import transcode
from training.windows import LIMITS, detector, face_region, prepared_clips, training_clips

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """As quick as any for networks of this size, and kind to whatever else runs here."""
    torch.set_num_threads(1)


def tiny_recipe(steps: int = 4, **optimiser: object) -> Recipe:
    """Native pairs."""
    crop = native_config().crop.model_copy(update={"side": 16})
    network = native_config().model_copy(update={"crop": crop, "feature_size": 8, "hidden": 6, "width": 4})
    return Recipe.model_validate(
        {
            "seed": 5,
            "network": network.model_dump(),
            "footage": {"bursts": 2, "burst_frames": 6, "region": 48},
            "pairs": {"bursts": 1, "windows": 2, "region": 24},
            "optimiser": {"steps": steps, "batch": 2, "keep_every": 2, **optimiser},
        }
    )


def tiny_clips() -> list[Clip]:
    rng = np.random.default_rng(0)
    return [Clip(name, name, rng.normal(120, 6, (2, 6, 32, 32)).astype(np.uint8)) for name in ("a", "b", "c")]


def fit_pairs(recipe: Recipe, out: Path, **how: Any) -> Path:
    clips = tiny_clips()
    exam = pair_exam(clips, recipe) if recipe.optimiser.validate_every else None
    return fit(PairTeacher(clips, recipe), recipe, out, exam=exam, **how)


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def log(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / LOG).read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


class Stopped:
    """A report that interrupts the run after so many steps."""

    def __init__(self, after: int) -> None:
        self.after = after

    def __call__(self, step: int, steps: int, line: object) -> None:
        if step == self.after:
            raise KeyboardInterrupt


def test_the_learning_rate_warms_up_and_falls_to_a_fiftieth() -> None:
    o = Optimiser(steps=1000, warm_up=50, learning_rate=1.0)
    rates = [learning_rate(step, o) for step in range(1000)]
    assert rates[0] == pytest.approx(0.02, rel=0.01)
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert rates[-1] == pytest.approx(0.02, rel=0.01)
    assert all(a >= b for a, b in pairwise(rates[50:]))


def test_a_constant_learning_rate_is_constant() -> None:
    o = Optimiser(steps=10, warm_up=1, learning_rate=0.3, schedule="constant")
    assert {learning_rate(step, o) for step in range(10)} == {0.3}


def test_epochs_are_counted_in_steps() -> None:
    recipe = tiny_recipe().model_copy(update={"optimiser": Optimiser(epochs=3, batch=4, keep_every=7)})
    o = counted(recipe, 10).optimiser
    assert (o.steps, o.epochs, o.validate_every) == (8, 0, 3)
    assert Optimiser.model_validate(o.model_dump()) == o
    assert counted(tiny_recipe(), 0).optimiser.validate_every == 2


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tmp_path: Path) -> None:
    recipe = tiny_recipe()
    a, b = (weights(fit_pairs(recipe, tmp_path / n)) for n in "ab")
    other = weights(fit_pairs(recipe.model_copy(update={"seed": 6}), tmp_path / "c"))
    assert same(a, b)
    assert not same(a, other)


def test_how_many_processes_make_the_lessons_changes_nothing(tmp_path: Path) -> None:
    recipe = tiny_recipe(steps=3)
    alone, helped = (weights(fit_pairs(recipe, tmp_path / str(n), workers=n)) for n in (0, 2))
    assert same(alone, helped)


def test_a_resumed_run_ends_like_an_unbroken_one(tmp_path: Path) -> None:
    recipe = tiny_recipe(steps=6, validate_every=3)
    unbroken = weights(fit_pairs(recipe, tmp_path / "unbroken"))
    for after in (3, 5):
        with pytest.raises(KeyboardInterrupt):
            fit_pairs(recipe, tmp_path / "broken", report=Stopped(after))
    at = torch.load(tmp_path / "broken" / CHECKPOINT, weights_only=True)["training"]["step"]
    assert at == 4
    assert same(unbroken, weights(fit_pairs(recipe, tmp_path / "broken")))
    assert log(tmp_path / "broken") == log(tmp_path / "unbroken")
    assert [line["step"] for line in log(tmp_path / "broken")] == [2, 3, 4, 6]


def test_a_killed_run_ends_like_an_unbroken_one(tmp_path: Path) -> None:
    """SIGKILL, most likely in the middle of writing one of its checkpoints."""
    recipe = tiny_recipe(steps=30, keep_every=1)
    code = (
        "import pathlib, sys, torch; torch.set_num_threads(1)\n"
        "from tests.unit.test_training import fit_pairs, tiny_recipe\n"
        "fit_pairs(tiny_recipe(steps=30, keep_every=1), pathlib.Path(sys.argv[1]))"
    )
    broken = tmp_path / "broken"
    run = subprocess.Popen([sys.executable, "-c", code, str(broken)], cwd=ROOT)
    try:
        while not (broken / CHECKPOINT).exists():
            assert run.poll() is None, "the run ended before it kept anything"
            time.sleep(0.01)
    finally:
        run.kill()
        run.wait()
    done = torch.load(broken / CHECKPOINT, weights_only=True)["training"]["step"]
    assert 1 <= done < 30
    resumed, unbroken = (weights(fit_pairs(recipe, out)) for out in (broken, tmp_path / "unbroken"))
    assert same(resumed, unbroken)
    assert log(broken) == log(tmp_path / "unbroken")


def test_lines_of_steps_that_come_again_are_dropped(tmp_path: Path) -> None:
    recipe = tiny_recipe(steps=4)
    with pytest.raises(KeyboardInterrupt):
        fit_pairs(recipe, tmp_path, report=Stopped(3))
    with (tmp_path / LOG).open("a") as f:
        f.write('{"step": 4, "loss": 9.0}\n{"step": 4, "lo')
    fit_pairs(recipe, tmp_path)
    assert [line["step"] for line in log(tmp_path)] == [2, 4]
    assert log(tmp_path)[-1]["loss"] != 9.0


def test_a_run_of_another_recipe_or_of_other_clips_is_not_resumed(tmp_path: Path) -> None:
    fit_pairs(tiny_recipe(steps=2), tmp_path)
    with pytest.raises(CheckpointError, match="another recipe"):
        fit_pairs(tiny_recipe(steps=3), tmp_path)
    recipe = tiny_recipe(steps=2)
    with pytest.raises(CheckpointError, match="other clips"):
        fit(PairTeacher(tiny_clips()[:2], recipe), recipe, tmp_path)


def test_training_learns_to_tell_altered_copies(tmp_path: Path) -> None:
    recipe = tiny_recipe(steps=100, warm_up=5, learning_rate=0.01, batch=4, validate_every=20)
    easy = {"pairs": Pairs(bursts=1, windows=2, region=24, encoded=0, rescaled=0)}
    fit_pairs(recipe.model_copy(update=easy), tmp_path)
    lines = log(tmp_path)
    losses = [line["loss"] for line in lines]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:3])
    assert lines[-1]["validation_auc"] > 0.7
    assert (tmp_path / CURVES).read_bytes().startswith(b"\x89PNG")


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    recipe = tiny_recipe(steps=4)
    with pytest.raises(KeyboardInterrupt):
        fit_pairs(recipe, tmp_path, report=Stopped(2))
    spoilt = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    spoilt["training"]["live"]["head.linear.bias"].fill_(float("nan"))
    torch.save(spoilt, tmp_path / CHECKPOINT)
    kept = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(Diverged, match="step 4"):
        fit_pairs(recipe, tmp_path)
    assert (tmp_path / CHECKPOINT).read_bytes() == kept


def test_early_stopping_keeps_the_best_weights(tmp_path: Path) -> None:
    """At a learning rate that spoils the network, validation gets worse, and the run ends early."""
    spoiling = tiny_recipe(steps=40, validate_every=2, learning_rate=3.0, warm_up=1, average=0)
    recipe = spoiling.model_copy(update={"stopping": Stopping(figure="loss", patience=3)})
    best = fit_pairs(recipe, tmp_path)
    lines = log(tmp_path)
    losses = [line["validation_loss"] for line in lines]
    assert best.name == "best.pt"
    assert lines[-1]["step"] < 40
    at = int(np.argmin(losses))
    assert len(losses) - 1 - at == 3
    assert torch.load(best, weights_only=True)["training"]["step"] == lines[at]["step"]
    before = best.read_bytes()
    assert fit_pairs(recipe, tmp_path).read_bytes() == before
    assert log(tmp_path) == lines


def test_stopping_by_a_figure_needs_clips_to_validate_on(tmp_path: Path) -> None:
    recipe = tiny_recipe().model_copy(update={"stopping": Stopping()})
    with pytest.raises(RecipeError, match="no validation clips"):
        fit(PairTeacher(tiny_clips(), recipe), recipe, tmp_path)


@pytest.mark.parametrize("freeze", ["freeze_trunk", "freeze_norms"])
def test_what_is_frozen_does_not_move(tmp_path: Path, freeze: str) -> None:
    recipe = tiny_recipe(steps=2, sample_loss=0, average=0, **{freeze: True})
    torch.manual_seed(recipe.seed)
    before, after = DetectorNetwork(recipe.network).state_dict(), weights(fit_pairs(recipe, tmp_path))
    moved = {k for k in before if not torch.equal(before[k], after[k])}
    assert any(k.startswith("head.") for k in moved)
    norms = [f"trunk.body.{k}." for k in (1, 4, 8)]
    frozen = ["trunk."] if freeze == "freeze_trunk" else norms
    assert not [k for k in moved if k.startswith(tuple(frozen))]
    assert any(k.startswith("trunk.") for k in moved) == (freeze == "freeze_norms")


def test_adam_adds_the_decay_to_the_gradient() -> None:
    """Plain Adam with L2, as the paper has it, moves a weight without gradient by about the rate."""
    recipe = tiny_recipe(method="adam", weight_decay=0.1, learning_rate=0.01)
    optimiser = Learner(recipe, 4).optimiser
    assert type(optimiser) is torch.optim.Adam
    assert optimiser.param_groups[0]["weight_decay"] == 0.1
    assert not optimiser.param_groups[0]["decoupled_weight_decay"]
    assert type(Learner(tiny_recipe(), 4).optimiser) is torch.optim.AdamW


def test_the_loss_of_padded_sequences_is_the_mean_over_each_ones_own_steps() -> None:
    recipe = tiny_recipe(label_smoothing=0, precision="fp32", step_loss=0.7, sample_loss=0)
    learner = Learner(recipe, 2)
    pupil = learner.pupil.eval()
    rng = np.random.default_rng(0)
    samples = torch.from_numpy(rng.integers(0, 256, (5, 4, 16, 16, 1), dtype=np.uint8))
    lengths, labels = torch.tensor([2, 3]), torch.tensor([0, 1])
    with torch.no_grad():
        together = pupil(samples, lengths, labels)
        alone = [pupil(samples[:2], lengths[:1], labels[:1]), pupil(samples[2:], lengths[1:], labels[1:])]
    assert together.item() == pytest.approx(torch.stack(alone).mean().item(), abs=1e-6)


rows = st.lists(
    st.builds(
        ClipRow,
        file=st.uuids().map(str),
        fake=st.booleans(),
        split=st.just("train"),
        family=st.just("tv"),
        identity=st.sampled_from("pqrstuv"),
        source=st.sampled_from("abcdefgh"),
    ),
    max_size=30,
)


@given(rows, st.integers(2, 4))
def test_folds_part_no_person_and_no_origin(clips: list[ClipRow], count: int) -> None:
    fold = folds(kinship(clips), count, seed=0)
    assert fold.keys() == {c.file for c in clips}
    for what in ("identity", "source"):
        for name in {getattr(c, what) for c in clips}:
            assert len({fold[c.file] for c in clips if getattr(c, what) == name}) == 1


def write_corpus(root: Path, clips: list[dict[str, str]], pairs: list[dict[str, str]] | None = None) -> Path:
    root.mkdir(exist_ok=True)
    for name, table in (("clips.csv", clips), ("pairs.csv", pairs)):
        if table:
            with (root / name).open("w", newline="") as f:
                writer = csv.DictWriter(f, list(table[0]))
                writer.writeheader()
                writer.writerows(table)
    return root


def clip_row(file: str, label: str, split: str, who: str) -> dict[str, str]:
    family = "tv" if label == "real" else "faceswap"
    return {
        "file": file,
        "label": label,
        "split": split,
        "family": family,
        "identity": who,
        "source_repo": f"origin/{who}",
    }


def test_teachers_are_real_clips_of_the_split_train_in_no_pair(tmp_path: Path) -> None:
    clips = [
        clip_row("a", "real", "train", "p"),
        clip_row("b", "fake", "train", "q"),
        clip_row("c", "real", "measure", "r"),
        clip_row("d", "real", "train", "s"),
    ]
    pair = {"split": "train", "family": "faceswap", "identity": "s", "real_file": "d", "fake_file": "x"}
    corpus = read_corpus(write_corpus(tmp_path, clips, [pair]))
    assert [c.file for c in corpus.teachers()] == ["a"]


@pytest.mark.parametrize(("column", "value"), [("label", "maybe"), ("split", "test")])
def test_a_malformed_table_names_its_row(tmp_path: Path, column: str, value: str) -> None:
    root = write_corpus(tmp_path, [clip_row("a", "real", "train", "p") | {column: value}])
    with pytest.raises(CorpusError, match=rf"row 2.*{value}"):
        read_corpus(root)
    with pytest.raises(CorpusError, match="can not be read"):
        read_corpus(tmp_path / "nowhere")


def test_regions_hold_the_very_bytes_that_the_service_is_served(tmp_path: Path) -> None:
    """No skew: each window that the service cuts lies, byte for byte, in the training region."""
    path = face_clip(tmp_path / "face.mp4", seconds=0.8)
    crop = CropSpec(kind="native", side=32, frames=4, colour="yuv", margin=0.8, grid=3)
    footage = Footage(bursts=2, burst_frames=4, region=192)
    faces = detector()
    region = face_region(path, crop, footage, faces)
    assert region is not None
    sampling = native_config().sampling.model_copy(update={"bursts": 2, "burst_frames": 4})
    (track,) = prepare(path, crop=crop, sampling=sampling, detector=faces, limits=LIMITS).tracks
    served = track.samples[..., 0].reshape(2, 9, 4, 32, 32)
    for burst, windows in zip(region, served, strict=True):
        places = np.lib.stride_tricks.sliding_window_view(burst[0], (32, 32))
        for window in (w for k, w in enumerate(windows) if k == 4):
            found = np.argwhere((places == window[0]).all(axis=(-1, -2)))
            assert len(found) == 1
            y, x = found[0]
            assert np.array_equal(burst[:, y : y + 32, x : x + 32], window)


def test_pictures_without_a_face_or_below_a_window_give_no_region(tmp_path: Path) -> None:
    from tests.media import pattern, write_clip

    crop, footage = native_config().crop, Footage(bursts=1, burst_frames=4)
    faceless = write_clip(tmp_path / "none.mp4", pattern(6, 128, 96))
    small = write_clip(tmp_path / "small.mp4", pattern(6, 48, 48))
    assert face_region(faceless, crop, footage, detector()) is None
    assert face_region(small, crop, footage, detector()) is None


def test_how_many_processes_cut_clips_changes_nothing(tmp_path: Path) -> None:
    from tests.media import pattern, write_clip

    write_sample(tmp_path / "face.mp4", seconds=1, size=320)
    write_clip(tmp_path / "none.mp4", pattern(6, 128, 96))
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    rows = [ClipRow(n, False, "train", "", n, n) for n in ("broken.mp4", "face.mp4", "none.mp4")]
    crop, footage = native_config().crop, Footage(bursts=2, burst_frames=4)
    sampling = native_config().sampling.model_copy(update={"bursts": 2})
    clips = [training_clips(tmp_path, rows, crop, footage, tmp_path / f"{n}", workers=n) for n in (0, 2)]
    assert [[c.name for c in some] for some in clips] == [["face.mp4"]] * 2
    assert np.array_equal(clips[0][0].luma, clips[1][0].luma)
    prepared = [
        {row.file: clip for row, clip in prepared_clips(tmp_path, rows, crop, sampling, workers=n)}
        for n in (0, 2)
    ]
    assert prepared[0].keys() == prepared[1].keys() == {"face.mp4", "none.mp4"}
    ((here,), (there,)) = (some["face.mp4"].tracks for some in prepared)
    assert np.array_equal(here.samples, there.samples)


def test_a_clip_that_costs_its_worker_ends_the_run_and_is_not_taken_for_one_without_a_face(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sample(tmp_path / "face.mp4", seconds=1, size=320)
    row = ClipRow("face.mp4", False, "train", "", "p", "o")
    crop, footage = native_config().crop, Footage(bursts=2, burst_frames=4)
    with monkeypatch.context() as patched:
        patched.setattr("training.windows.CLIP_S", 0.0)
        with pytest.raises(PoolError, match=r"face\.mp4 could not be cut \(timeout\)"):
            training_clips(tmp_path, [row], crop, footage, tmp_path / "cache", workers=1)
        with pytest.raises(PoolError, match=r"face\.mp4"):
            list(prepared_clips(tmp_path, [row], crop, native_config().sampling, workers=1))
    (clip,) = training_clips(tmp_path, [row], crop, footage, tmp_path / "cache", workers=1)
    assert clip.name == "face.mp4"


def test_transcoding_scales_and_keeps_the_frames(tmp_path: Path) -> None:
    import av

    from tests.media import pattern, write_clip

    source = write_clip(tmp_path / "a.mp4", pattern(10, 96, 64))
    again = transcode(source, tmp_path / "b.mp4", crf=28, scale=2 / 3)
    with av.open(str(again)) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 10
    assert (frames[0].width, frames[0].height) == (64, 42)


def test_from_footage_to_a_verified_and_calibrated_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    table = []
    for i, label in enumerate(["real", "fake"] * 2):
        name = f"{i}.mp4"
        fine = face_clip(tmp_path / name, seconds=0.6)
        transcode(fine, data / name, crf=36 if label == "fake" else 18, scale=1 - 0.05 * (i // 2))
        table.append(clip_row(name, label, "train", f"{label}-{i // 2}"))
    write_corpus(data, table)
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        """
        seed = 1
        [network]
        trunk = "native"
        members = 2
        feature_size = 16
        hidden = 12
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
        [optimiser]
        steps = 2
        batch = 1
        [operating]
        """
    )
    # The slope of a network that has hardly been trained is a matter of luck; what is tested is the way.
    monkeypatch.setattr(
        "training.train.logits", lambda p: np.arange(len(p)) - 9.0 * (np.arange(len(p)) % 2 == 0)
    )
    told: list[str] = []
    checkpoint = train(recipe, [data], tmp_path / "run", threads=1, tell=lambda what, *_: told.append(what))
    runs = [f"{run}, member {k}" for run in ("training", "fold 0", "fold 1") for k in (0, 1)]
    assert told == [run for run in runs for _ in range(2)]
    bundle = export_checkpoint(checkpoint, tmp_path / "tiny-1")
    verify_bundle(bundle)
    manifest = open_bundle(bundle).manifest
    assert manifest.architecture["members"] == 2
    parts = [load_checkpoint(tmp_path / "run" / f"member-{k}" / CHECKPOINT)[0] for k in (0, 1)]
    first, second = (p.state_dict()["trunk.body.0.weight"] for p in parts)
    assert not torch.equal(first, second), "each member starts from a seed of its own"
    whole, _ = load_checkpoint(checkpoint)
    assert torch.equal(whole.state_dict()["trunk.members.1.body.0.weight"], second)
    assert manifest.calibration.id == "out-of-fold-1"
    summary = manifest.summary["training"]
    assert (summary["clips"], summary["steps"], summary["threads"]) == (2, 4, 1)
    assert "2 real clips" in summary["data"]
    assert summary["commands"][0] == f"deepfake-detect train {recipe.name} --data {data.name} --out run"
    with pytest.raises(RecipeError, match="--data once"):
        train(recipe, [data, data], tmp_path / "twice")
