"""Weights to start from: those of a checkpoint, of torchvision and of the common implementation."""

from pathlib import Path

import pytest
import torch

from pipeline.spec import CropSpec, SamplingSpec
from tests.shards import toy_faces, write_shards
from training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from training.loader import NoFootage
from training.model import DetectorConfig, DetectorNetwork
from training.recipe import RecipeError, Start
from training.shards import ShardsError
from training.start import begin
from training.train import train

CONFIG = DetectorConfig(
    trunk="resnext50_32x4d",
    crop=CropSpec(kind="aligned", side=32),
    sampling=SamplingSpec(bursts=3, burst_frames=1, spread="head"),
    feature_size=2048,
    hidden=4,
)
RECIPE = """
seed = 3
[network]
trunk = "resnext50_32x4d"
feature_size = 2048
hidden = 4
crop = { kind = "aligned", side = 32 }
sampling = { bursts = 3, burst_frames = 1, spread = "head" }
[start]
format = "torchvision"
[clips]
[optimiser]
method = "adam"
schedule = "constant"
warm_up = 1
learning_rate = 1e-5
weight_decay = 1e-3
batch = 2
steps = 1
average = 0
step_loss = 0
sample_loss = 0
label_smoothing = 0
precision = "fp32"
"""


@pytest.fixture(scope="module")
def made() -> DetectorNetwork:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    return DetectorNetwork(CONFIG)


@pytest.fixture(scope="module")
def torchvision(made: DetectorNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as torchvision publishes it, classifier and all."""
    path = tmp_path_factory.mktemp("weights") / "resnext50_32x4d.pth"
    classifier = {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    torch.save(made.trunk.state_dict() | classifier, path)
    return path


def differing(a: DetectorNetwork, b: DetectorNetwork) -> set[str]:
    """The parts of two networks that differ."""
    other = b.state_dict()
    return {
        name.split(".")[0] for name, value in a.state_dict().items() if not torch.equal(value, other[name])
    }


def test_torchvision_gives_the_trunk_alone(made: DetectorNetwork, torchvision: Path) -> None:
    network = DetectorNetwork(CONFIG)
    begin(network, Start(format="torchvision", checkpoint=torchvision))
    assert differing(network, made) == {"head"}


def test_a_checkpoint_gives_the_whole_network(made: DetectorNetwork, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model.pt", CONFIG, made.state_dict(), {})
    network = DetectorNetwork(CONFIG)
    begin(network, Start(format="checkpoint", checkpoint=tmp_path / "model.pt"))
    assert not differing(network, made)


def test_a_checkpoint_of_another_network_is_refused(made: DetectorNetwork, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model.pt", CONFIG, made.state_dict(), {})
    start = Start(format="checkpoint", checkpoint=tmp_path / "model.pt")
    wider = CONFIG.model_copy(update={"crop": CropSpec(kind="aligned", side=32, margin=1.5)})
    with pytest.raises(CheckpointError, match="another kind"):
        begin(DetectorNetwork(wider), start)
    with pytest.raises(CheckpointError, match="other sizes"):
        begin(DetectorNetwork(CONFIG.model_copy(update={"hidden": 5})), start)


def test_files_that_hold_no_weights_are_refused(tmp_path: Path) -> None:
    network = DetectorNetwork(CONFIG)
    (tmp_path / "text").write_text("no weights")
    torch.save({"a": 1}, tmp_path / "number")
    torch.save({"conv1.weight": torch.zeros(2)}, tmp_path / "foreign")
    for name in ("text", "number", "foreign", "missing"):
        for kind in ("torchvision", "common"):
            with pytest.raises(CheckpointError):
                begin(network, Start.model_validate({"format": kind, "checkpoint": tmp_path / name}))


def test_training_on_clips_starts_from_the_weights_that_were_named(
    made: DetectorNetwork, torchvision: Path, tmp_path: Path
) -> None:
    """One step of 1e-5 from torchvision's weights leaves the trunk within that of them."""
    shards = [
        write_shards(tmp_path / s, toy_faces(4, 32, split=s), CONFIG.crop) for s in ("train", "validation")
    ]
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    model = train(recipe, shards, tmp_path / "run", start=torchvision, threads=1)
    network, training = load_checkpoint(model)
    parameters = dict(made.trunk.named_parameters())
    moved = [(p - parameters[n]).abs().max().item() for n, p in network.trunk.named_parameters()]
    assert 0 < max(moved) < 2e-5
    summary = training["summary"]
    assert (summary["clips"], summary["real"], summary["fake"], summary["steps"]) == (4, 2, 2, 1)
    assert summary["start"] == "torchvision"
    assert summary["data"] == "2 real and 2 fake clips of people, as face crops, of train, validation."
    assert f"--start {torchvision.name}" in summary["commands"][0]
    assert '"validation_auc"' in (tmp_path / "run" / "metrics.jsonl").read_text()
    with pytest.raises(RecipeError, match="another kind"):
        train(
            recipe,
            [write_shards(tmp_path / "x", toy_faces(2, 48), CropSpec(kind="aligned", side=48))],
            tmp_path / "y",
            start=torchvision,
        )
    with pytest.raises(NoFootage, match="4 validation"):
        train(recipe, shards[1:], tmp_path / "z", start=torchvision)
    with pytest.raises(ShardsError):
        train(recipe, [tmp_path], tmp_path / "z", start=torchvision)
