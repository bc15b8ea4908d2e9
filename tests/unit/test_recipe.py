"""Recipes: what they hold, and that nothing else is taken."""

import re
import tomllib
from pathlib import Path

import pytest

from cli.main import app
from training.model import DetectorConfig, paper_config
from training.recipe import Recipe, RecipeError, pairs_in, read_recipe
from training.recipe_docs import recipe_table

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "training" / "recipes"
WEIGHTS = Path("weights.pth")

ALIGNED = """
[network]
trunk = "resnext50_32x4d"
feature_size = 2048
hidden = 8
crop = { kind = "aligned", side = 64 }
sampling = { bursts = 4, burst_frames = 1 }
"""
NATIVE = """
[network]
trunk = "native"
feature_size = 8
hidden = 8
crop = { kind = "native", side = 32, frames = 4, colour = "yuv" }
sampling = { bursts = 4, burst_frames = 4 }
"""
STEPS = "[optimiser]\nsteps = 3\n"


def read(path: Path, text: str) -> Recipe:
    path = path / "recipe.toml"
    path.write_text(text)
    return read_recipe(path)


TRAININGS = [p for p in sorted(RECIPES.glob("*.toml")) if "network" in tomllib.loads(p.read_text())]


@pytest.mark.parametrize("path", TRAININGS, ids=lambda p: p.stem)
def test_recipes_that_come_with_the_project_can_be_read(path: Path) -> None:
    starts = "start" in tomllib.loads(path.read_text())
    assert read_recipe(path, start=WEIGHTS if starts else None).seed >= 0


def test_the_paper_is_followed_to_the_letter() -> None:
    recipe = read_recipe(RECIPES / "paper.toml", start=WEIGHTS)
    network, o = recipe.network, recipe.optimiser
    assert network == paper_config()
    assert (network.trunk, network.feature_size, network.hidden) == ("resnext50_32x4d", 2048, 2048)
    assert network.dropout == 0.4
    assert (network.crop.kind, network.crop.side, network.crop.colour) == ("aligned", 112, "rgb")
    assert (network.sampling.bursts, network.sampling.burst_frames) == (150, 1)
    assert network.sampling.spread == "head"
    assert (o.method, o.learning_rate, o.weight_decay) == ("adam", 1e-5, 1e-3)
    assert (o.batch, o.epochs, o.schedule, o.warm_up) == (4, 20, "constant", 1)
    assert o.label_smoothing == o.average == o.step_loss == o.sample_loss == 0
    assert not o.freeze_trunk
    assert not o.freeze_norms
    assert recipe.start is not None
    assert recipe.start.format == "torchvision"
    assert recipe.clips is not None
    assert recipe.clips.pseudofakes == 0
    assert not any(v for k, v in recipe.clips.augment if isinstance(v, float) and k != "least_scale")
    assert recipe.stopping is None


@pytest.mark.parametrize(
    "line",
    [
        "sede = 1",
        "[optimizer]",
        "[optimiser]\nstep = 3",
        "[network.crop]\ncolor = 'yuv'",
        "[clips.augment]\nflips = 1",
    ],
)
def test_an_unknown_key_is_an_error(tmp_path: Path, line: str) -> None:
    with pytest.raises(RecipeError, match="Extra inputs"):
        read(tmp_path, line)


def test_a_recipe_that_is_not_toml_or_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="not a recipe"):
        read(tmp_path, "= =")
    with pytest.raises(RecipeError, match="missing"):
        read_recipe(tmp_path / "missing.toml")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (ALIGNED + STEPS, "either a table clips or a table pairs"),
        (ALIGNED + STEPS + "[clips]\n[pairs]\n", "either a table clips or a table pairs"),
        (ALIGNED + STEPS + "[pairs]\n", "native yuv windows"),
        (NATIVE + STEPS + "[clips]\n", "aligned rgb crops"),
        (NATIVE + "[pairs]\n[optimiser]\nepochs = 2\n", "steps, not epochs"),
        (ALIGNED + STEPS + "[clips]\n[operating]\n", "operating goes with pairs"),
        (ALIGNED + "[clips]\n[optimiser]\n", "either epochs or steps"),
        (ALIGNED + "[clips]\n[optimiser]\nsteps = 1\nepochs = 1\n", "either epochs or steps"),
        (ALIGNED + "[clips]\npseudofakes = 0.2\n[optimiser]\nsteps = 1\nbatch = 4\n", "no room for a pair"),
        (ALIGNED + STEPS + "[clips]\n[clips.augment]\njpeg_quality = [90, 40]\n", "jpeg_quality is no range"),
        (ALIGNED + STEPS + "[clips]\n[clips.augment]\ncrf = [10, 60]\n", "crf is no range"),
    ],
)
def test_what_does_not_go_together_is_an_error(tmp_path: Path, text: str, wrong: str) -> None:
    with pytest.raises(RecipeError, match=wrong):
        read(tmp_path, text)


def test_weights_to_start_from_are_named_in_the_recipe_or_on_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(ALIGNED + STEPS + "[clips]\n[start]\nformat = 'torchvision'\n")
    with pytest.raises(RecipeError, match="torchvision: name it with --start"):
        read_recipe(path)
    named = read_recipe(path, start=WEIGHTS)
    assert named.start is not None
    assert named.start.checkpoint == WEIGHTS
    path.write_text(ALIGNED + STEPS + "[clips]\n")
    with pytest.raises(RecipeError, match="no table start"):
        read_recipe(path, start=WEIGHTS)


def test_a_recipe_survives_its_checkpoint() -> None:
    """As JSON, which is how checkpoints carry it."""
    recipe = read_recipe(RECIPES / "finetune.toml", start=WEIGHTS)
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe
    assert recipe.clips is not None
    assert pairs_in(recipe.clips, recipe.optimiser.batch) == 2
    assert isinstance(recipe.network, DetectorConfig)


def test_the_table_of_keys_is_the_recipe() -> None:
    """`make docs` writes it; the keys of a network are described in training/recipe_docs.py."""
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert f"-->\n{recipe_table()}\n<!-- /recipe -->" in text


def test_the_docs_name_commands_and_recipes_that_exist() -> None:
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    known = {c.callback.__name__ for c in app.registered_commands if c.callback}
    assert set(re.findall(r"^(?:\S+=\S+ )?deepfake-detect ([a-z]+)", text, re.MULTILINE)) <= known
    assert all((ROOT / path).is_file() for path in re.findall(r"training/recipes/[a-z-]+\.toml", text))
    for name in re.findall(r"\]\(([a-z]+\.md)\)", text):
        assert (ROOT / "docs" / name).is_file()
