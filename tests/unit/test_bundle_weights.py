"""A network that is read back from its bundle answers as it did before it was exported."""

import json
from pathlib import Path

import onnx
import pytest
import torch

from export.agreement import Precision
from export.bundle import export_untrained_config
from pipeline.bundle import default_models, sha256
from pipeline.errors import BundleCorrupt
from pipeline.spec import CropSpec, SamplingSpec
from training.bundle_weights import load_bundle, load_network
from training.checkpoint import CheckpointError, save_checkpoint
from training.model import DetectorConfig, DetectorNetwork, native_config
from training.recipe import Recipe, Start
from training.start import begin

SMALL = native_config().model_copy(
    update={
        "crop": native_config().crop.model_copy(update={"side": 16}),
        "feature_size": 48,
        "hidden": 40,
        "width": 8,
    }
)
CONFIGS = {
    "native": SMALL,
    "ensemble": SMALL.model_copy(update={"members": 2}),
    "resnext": DetectorConfig(
        trunk="resnext50_32x4d",
        crop=CropSpec(kind="aligned", side=32),
        sampling=SamplingSpec(bursts=3, burst_frames=1, spread="head"),
        feature_size=2048,
        hidden=8,
    ),
}


def untrained(config: DetectorConfig) -> DetectorNetwork:
    """What `export_untrained_config` exports."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DetectorNetwork(config).eval()


def answers(network: DetectorNetwork) -> torch.Tensor:
    chance = torch.Generator().manual_seed(5)
    samples = torch.randint(0, 256, (2, 4, *network.config.sample_shape), generator=chance, dtype=torch.uint8)
    with torch.no_grad():
        return network(samples, torch.tensor([4, 3]))[0]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_network_answers_as_before_its_export(name: str, tmp_path: Path) -> None:
    bundle = export_untrained_config(CONFIGS[name], tmp_path / "made")
    network, known = load_network(bundle)
    assert network.config == CONFIGS[name]
    assert not network.training
    assert known["calibration"]["id"] is None
    torch.testing.assert_close(answers(network), answers(untrained(CONFIGS[name])), rtol=0, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_weights_of_fewer_bits_are_read_as_they_are_served(precision: Precision, tmp_path: Path) -> None:
    bundle = export_untrained_config(CONFIGS["ensemble"], tmp_path / "made", precision=precision)
    network, _ = load_bundle(bundle)
    torch.testing.assert_close(answers(network), answers(untrained(CONFIGS["ensemble"])), rtol=0, atol=2e-2)


def test_the_embedded_bundle_can_teach() -> None:
    network, known = load_network(default_models() / "native-lstm-2")
    assert network.config.members == 4
    assert known["calibration"]["id"] == "out-of-fold-7"


def test_graphs_that_are_not_the_manifests_network_are_refused(tmp_path: Path) -> None:
    bundle = export_untrained_config(SMALL, tmp_path / "made")
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["architecture"]["members"] = 2
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="3 convolutions instead of 6"):
        load_bundle(bundle)
    manifest["architecture"] = {"members": 1}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="does not say which network"):
        load_bundle(bundle)


def test_a_graph_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    bundle = export_untrained_config(SMALL, tmp_path / "made")
    graph = onnx.load(bundle / "temporal.onnx")
    relu = next(node for node in graph.graph.node if node.op_type == "Relu")
    relu.op_type = "Tanh"
    onnx.save(graph, bundle / "temporal.onnx")
    with pytest.raises(BundleCorrupt):
        load_bundle(bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["temporal.onnx"] = sha256(bundle / "temporal.onnx")
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="answers otherwise"):
        load_bundle(bundle)


def test_training_goes_on_from_a_bundle(tmp_path: Path) -> None:
    bundle = export_untrained_config(SMALL, tmp_path / "made")
    network = DetectorNetwork(SMALL).eval()
    begin(network, Start(format="bundle", checkpoint=bundle))
    torch.testing.assert_close(answers(network), answers(untrained(SMALL)), rtol=0, atol=1e-5)
    with pytest.raises(CheckpointError, match="other sizes"):
        begin(
            DetectorNetwork(SMALL.model_copy(update={"hidden": 5})), Start(format="bundle", checkpoint=bundle)
        )


def test_normalisations_that_were_folded_away_stay_frozen() -> None:
    recipe = {
        "network": SMALL.model_dump(),
        "start": {"format": "bundle"},
        "pairs": {},
        "optimiser": {"steps": 1, "freeze_norms": True},
    }
    assert Recipe.model_validate(recipe).start is not None
    recipe["optimiser"] = {"steps": 1}
    with pytest.raises(ValueError, match="freeze_norms = true"):
        Recipe.model_validate(recipe)


def test_a_file_is_read_as_a_checkpoint(tmp_path: Path) -> None:
    network = untrained(SMALL)
    save_checkpoint(tmp_path / "model.pt", SMALL, network.state_dict(), {"summary": {"steps": 1}})
    read, known = load_network(tmp_path / "model.pt")
    assert known == {"summary": {"steps": 1}}
    assert torch.equal(answers(read), answers(network))
