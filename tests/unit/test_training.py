"""Training: recipes, splits, reproducible and resumable runs, and the whole way to a bundle."""

import csv
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from export.bundle import export_checkpoint, verify_bundle
from pipeline.bundle import open_bundle
from pipeline.prepare import prepare
from pipeline.spec import CropSpec
from tests.media import face_clip
from training import evaluate as evaluation
from training.checkpoint import CheckpointError
from training.corpus import ClipRow, CorpusError, folds, kinship, read_corpus
from training.model import native_config
from training.recipe import Footage, Optimiser, Recipe, RecipeError, read_recipe
from training.sequences import Clip
from training.train import CHECKPOINT, fit, learning_rate, train
from training.transcode import transcode
from training.windows import LIMITS, detector, face_region

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "training" / "recipes").glob("*.toml"))


def tiny_recipe(steps: int = 4) -> Recipe:
    crop = native_config().crop.model_copy(update={"side": 16})
    network = native_config().model_copy(update={"crop": crop, "feature_size": 8, "hidden": 6, "width": 4})
    return Recipe.model_validate(
        {
            "seed": 5,
            "network": network.model_dump(),
            "footage": {"bursts": 2, "burst_frames": 6, "region": 48},
            "pairs": {"bursts": 1, "windows": 2, "region": 24},
            "optimiser": {"steps": steps, "batch": 2, "keep_every": 2},
        }
    )


def tiny_clips() -> list[Clip]:
    rng = np.random.default_rng(0)
    return [Clip(name, name, rng.normal(120, 6, (2, 6, 32, 32)).astype(np.uint8)) for name in ("a", "b", "c")]


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_recipes_that_come_with_the_project_can_be_read() -> None:
    assert RECIPES
    for path in RECIPES:
        read_recipe(path)


@pytest.mark.parametrize(
    "line", ["sede = 1", "[optimizer]", "[optimiser]\nstep = 3", "[network.crop]\ncolor = 'yuv'"]
)
def test_an_unknown_key_is_an_error(tmp_path: Path, line: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(line)
    with pytest.raises(RecipeError, match="Extra inputs"):
        read_recipe(path)


def test_a_recipe_that_is_not_toml_or_not_there_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("= =")
    for name in ("broken", "missing"):
        with pytest.raises(RecipeError, match=name):
            read_recipe(tmp_path / f"{name}.toml")


def test_the_learning_rate_warms_up_and_falls_to_a_fiftieth() -> None:
    o = Optimiser(steps=1000, warm_up=50, learning_rate=1.0)
    rates = [learning_rate(step, o) for step in range(1000)]
    assert rates[0] == pytest.approx(0.02, rel=0.01)
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert rates[-1] == pytest.approx(0.02, rel=0.01)
    assert all(a >= b for a, b in pairwise(rates[50:]))


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tmp_path: Path) -> None:
    recipe = tiny_recipe()
    a, b = (weights(fit(tiny_clips(), recipe, tmp_path / n)) for n in "ab")
    other = weights(fit(tiny_clips(), recipe.model_copy(update={"seed": 6}), tmp_path / "c"))
    assert same(a, b)
    assert not same(a, other)


def test_a_resumed_run_ends_like_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny_recipe(steps=5)
    unbroken = weights(fit(tiny_clips(), recipe, tmp_path / "unbroken"))
    import training.train as module

    honest = module.training_batch
    calls = []

    def dies_at_the_fourth(*args: object, **kwargs: object) -> object:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return honest(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "training_batch", dies_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_clips(), recipe, tmp_path / "broken")
    assert torch.load(tmp_path / "broken" / CHECKPOINT, weights_only=True)["training"]["step"] == 2
    monkeypatch.setattr(module, "training_batch", honest)
    assert same(unbroken, weights(fit(tiny_clips(), recipe, tmp_path / "broken")))


def test_a_run_of_another_recipe_is_not_resumed(tmp_path: Path) -> None:
    fit(tiny_clips(), tiny_recipe(steps=2), tmp_path)
    with pytest.raises(CheckpointError, match="another recipe"):
        fit(tiny_clips(), tiny_recipe(steps=3), tmp_path)


def test_training_learns_to_tell_altered_copies(tmp_path: Path) -> None:
    recipe = tiny_recipe(steps=60)
    easy = recipe.model_copy(
        update={
            "pairs": recipe.pairs.model_copy(update={"encoded": 0.0, "rescaled": 0.0}),
            "optimiser": recipe.optimiser.model_copy(
                update={"warm_up": 5, "learning_rate": 0.01, "batch": 4}
            ),
        }
    )
    fit(tiny_clips(), easy, tmp_path)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:3])


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
    sampling = native_config().sampling.model_copy(update={"bursts": 2})
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


def test_transcoding_scales_and_keeps_the_frames(tmp_path: Path) -> None:
    import av

    from tests.media import pattern, write_clip

    source = write_clip(tmp_path / "a.mp4", pattern(10, 96, 64))
    again = transcode(source, tmp_path / "b.mp4", crf=28, scale=2 / 3)
    with av.open(str(again)) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 10
    assert (frames[0].width, frames[0].height) == (64, 42)


def test_from_footage_to_a_verified_and_measured_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """train, export, verify and evaluate on clips made here; the figures land in card and manifest."""
    data = tmp_path / "data"
    data.mkdir()
    table = []
    for i, (label, split) in enumerate([(a, b) for b in ("train", "measure") for a in ("real", "fake")] * 2):
        name = f"{i}.mp4"
        fine = face_clip(tmp_path / name, seconds=0.6)
        transcode(fine, data / name, crf=36 if label == "fake" else 18, scale=1 - 0.05 * (i // 4))
        table.append(clip_row(name, label, split, f"{label}-{i // 4}-{split}"))
    measured = [r["file"] for r in table if r["split"] == "measure"]
    pair = {
        "split": "measure",
        "family": "faceswap",
        "identity": "p",
        "real_file": measured[0],
        "fake_file": measured[1],
    }
    write_corpus(data, table, [pair])
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        """
        seed = 1
        [network]
        trunk = "native"
        feature_size = 8
        hidden = 6
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
        """
    )
    # The slope of a network that has hardly been trained is a matter of luck; what is tested is the way.
    monkeypatch.setattr(
        "training.train.logits", lambda p: np.arange(len(p)) - 9.0 * (np.arange(len(p)) % 2 == 0)
    )
    checkpoint = train(recipe, data, tmp_path / "run")
    bundle = export_checkpoint(checkpoint, tmp_path / "tiny-1")
    verify_bundle(bundle)
    evaluation.main([str(bundle), "--data", str(data), "--card", "--workers", "1"])
    opened = open_bundle(bundle)
    verify_bundle(bundle)
    figures = opened.manifest.summary["evaluation"]
    assert figures["clips"] == 4
    assert figures["auc"]["as published"]["real"] == figures["auc"]["as published"]["fake"] == 2
    assert figures["pairs"]["measure, all"]["pairs"] == 1
    assert opened.manifest.calibration.id == "out-of-fold-1"
    assert "scaled to 2/3" in opened.card
    assert "2 real clips" in opened.card
