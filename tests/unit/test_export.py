"""Export: two graphs that agree with PyTorch, a manifest that tells the truth, and nothing left behind."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from export import bundle as exporting
from export.agreement import LIMITS, compare, recorded, textures
from export.bundle import export_checkpoint, export_untrained, export_untrained_config, verify_bundle
from export.graphs import parity
from export.precision import quantise
from pipeline.bundle import bundles, default_models, open_bundle, sha256
from pipeline.engine import Engine
from pipeline.errors import BundleCorrupt, BundleError, BundleUntrained
from pipeline.selfcheck import selfcheck
from training.card import card, headline
from training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from training.model import DetectorConfig, DetectorNetwork, native_config, native_resnext_config

MEDIUM = native_config().model_copy(
    update={"crop": native_config().crop.model_copy(update={"side": 16}), "members": 2, "feature_size": 128}
)
"""Large enough that most of its bytes are weights."""


def small_config() -> DetectorConfig:
    crop = native_config().crop.model_copy(update={"side": 16})
    return native_config().model_copy(update={"crop": crop, "feature_size": 8, "hidden": 6, "width": 4})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    network = DetectorNetwork(small_config())
    path = tmp_path_factory.mktemp("checkpoint") / "model.pt"
    calibration = {
        "id": "made-up",
        "scale": 2.0,
        "bias": -0.5,
        "thresholds": {"authentic_below": 0.2, "manipulated_above": 0.8},
        "data": "none",
    }
    save_checkpoint(path, network.config, network.state_dict(), {"calibration": calibration, "summary": {}})
    return path


@pytest.fixture(scope="module")
def made(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_checkpoint(checkpoint, tmp_path_factory.mktemp("bundles") / "tiny-1")


def rewritten(bundle: Path, **changes: object) -> None:
    """Change the manifest and let its digests fit again."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"] = {name: sha256(bundle / name) for name in manifest["files"]}
    (bundle / "manifest.json").write_text(json.dumps(manifest | changes))


def copied(bundle: Path, to: Path) -> Path:
    to.mkdir()
    for file in bundle.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_untrained_config(MEDIUM, tmp_path_factory.mktemp("original") / "medium")


@pytest.fixture(scope="module", params=["fp16", "int8"])
def reduced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp(request.param) / "medium"
    return export_untrained_config(MEDIUM, out, precision=request.param)


def graphs_size(bundle: Path) -> int:
    return sum((bundle / name).stat().st_size for name in ("encoder.onnx", "temporal.onnx"))


def test_the_papers_network_on_native_windows_fits_in_int8(tmp_path: Path) -> None:
    config = native_resnext_config()
    crop = config.crop.model_copy(update={"side": 32})
    path = export_untrained_config(config.model_copy(update={"crop": crop}), tmp_path / "x", precision="int8")
    manifest = open_bundle(path, allow_untrained=True).manifest
    assert (manifest.trained, manifest.feature_size, manifest.precision) == (False, 2048, "int8")
    assert max(manifest.parity.values()) <= 1e-4
    assert set(manifest.parity) == {"features", "steps", "pooled"}
    (lstm,) = (n for n in onnx.load(path / "temporal.onnx").graph.node if n.op_type == "LSTM")
    assert {a.name: a.i for a in lstm.attribute}["hidden_size"] == 2048
    assert graphs_size(path) < 60e6
    with pytest.raises(BundleUntrained):
        open_bundle(path)


def test_fewer_bits_make_smaller_files_and_say_what_they_cost(original: Path, reduced: Path) -> None:
    measured = verify_bundle(reduced)
    manifest = open_bundle(reduced, allow_untrained=True).manifest
    share = {"fp16": 0.6, "int8": 0.4}[manifest.precision]
    assert graphs_size(reduced) < share * graphs_size(original)
    assert manifest.parity == open_bundle(original, allow_untrained=True).manifest.parity
    found = recorded(manifest)
    assert found is not None
    assert 0 < found.mean < found.largest <= LIMITS[manifest.precision]
    assert (found.samples, found.sequences) == (192, 24)
    assert found.spread > found.largest
    assert measured["encoder_batch"] <= 1e-5


def test_loss_of_precision_can_be_measured_again(original: Path, reduced: Path) -> None:
    a, b = (open_bundle(p, allow_untrained=True) for p in (original, reduced))
    assert compare(a, b) == recorded(b.manifest)
    with pytest.raises(BundleError, match="not the fp32 original"):
        compare(b, b)


def test_fewer_bits_do_not_make_an_answer_depend_on_its_company(reduced: Path) -> None:
    engine = Engine(open_bundle(reduced, allow_untrained=True))
    samples = textures(MEDIUM.crop, 9)
    alone = np.concatenate([engine.encode(samples[i : i + 1]) for i in range(9)])
    np.testing.assert_allclose(engine.encode(samples), alone, atol=1e-5, rtol=0)


def test_a_reduced_bundle_agrees_with_the_network_that_it_was_made_from(reduced: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DetectorNetwork(MEDIUM)
    verify_bundle(reduced, network=network)
    with torch.no_grad():
        network.head.linear.bias[1] += 0.5
    with pytest.raises(BundleCorrupt, match="differs from PyTorch"):
        verify_bundle(reduced, network=network)


def test_a_reduced_bundle_must_say_how_exact_it_is(reduced: Path, tmp_path: Path) -> None:
    silent = copied(reduced, tmp_path / "silent")
    rewritten(silent, summary={})
    with pytest.raises(BundleCorrupt, match="how exact"):
        verify_bundle(silent)
    bad = copied(reduced, tmp_path / "bad")
    summary = open_bundle(reduced, allow_untrained=True).manifest.summary
    rewritten(bad, summary={"precision": summary["precision"] | {"largest": 0.3, "limit": 1.0}})
    with pytest.raises(BundleCorrupt, match=r"3\.0e-01"):
        verify_bundle(bad)


def test_fp32_weights_under_another_name_are_found(original: Path, reduced: Path, tmp_path: Path) -> None:
    swapped = copied(reduced, tmp_path / "swapped")
    (swapped / "temporal.onnx").write_bytes((original / "temporal.onnx").read_bytes())
    rewritten(swapped)
    with pytest.raises(BundleCorrupt, match="in fp32"):
        verify_bundle(swapped)


def test_convolutions_that_bear_no_int8_are_stored_in_fp16(
    reduced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = recorded(open_bundle(reduced, allow_untrained=True).manifest)
    assert found is not None
    assert found.encoder == open_bundle(reduced, allow_untrained=True).manifest.precision
    tried = iter([1.0, 0.0, 0.0])
    monkeypatch.setattr(exporting, "difference", lambda *_: next(tried))
    path = export_untrained_config(MEDIUM, tmp_path / "mixed", precision="int8")
    found = recorded(open_bundle(path, allow_untrained=True).manifest)
    assert found is not None
    assert found.encoder == "fp16"
    kinds = {
        name: {i.data_type for i in onnx.load(path / name).graph.initializer if len(i.dims) > 2}
        for name in ("encoder.onnx", "temporal.onnx")
    }
    assert onnx.TensorProto.FLOAT16 in kinds["encoder.onnx"]
    assert onnx.TensorProto.INT8 not in kinds["encoder.onnx"]
    assert onnx.TensorProto.INT8 in kinds["temporal.onnx"]


def test_too_much_loss_is_no_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIMITS, "int8", 1e-7)
    with pytest.raises(BundleCorrupt, match="over 1e-07"):
        export_untrained_config(MEDIUM, tmp_path / "never", precision="int8")
    assert list(tmp_path.iterdir()) == []


def test_speed_is_recorded_only_when_asked_for(made: Path, checkpoint: Path, tmp_path: Path) -> None:
    assert "speed" not in open_bundle(made).manifest.summary
    timed = open_bundle(export_checkpoint(checkpoint, tmp_path / "timed", measure_speed=True))
    found = timed.manifest.summary["speed"]
    assert found["samples_per_second"] > 0
    assert (found["threads"], found["batch"]) == (1, 32)
    assert found["machine"]


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([((8, 3, 5, 5), 0), ((1, 24, 7), 1), ((6, 4), 1)]),
    st.floats(-30, 4),
)
def test_integers_are_at_most_half_a_step_off(
    seed: int, form: tuple[tuple[int, ...], int], size: float
) -> None:
    shape, axis = form
    weight = (np.random.default_rng(seed).standard_normal(shape) * 10.0**size).astype(np.float32)
    np.moveaxis(weight, axis, 0)[0] = 0
    integers, scale = quantise(weight, axis)
    assert scale.shape == tuple(n if a == axis else 1 for a, n in enumerate(shape))
    error = np.abs(integers.astype(np.float64) * scale - weight)
    assert (error <= 0.5001 * scale).all()
    assert not integers[weight == 0].any()
    assert np.abs(integers.astype(int)).max() == 127


def test_textures_move_differ_and_are_the_same_each_time() -> None:
    crop = native_config().crop
    samples = textures(crop, 16)
    assert samples.shape == (16, crop.frames, crop.side, crop.side, 3)
    np.testing.assert_array_equal(samples, textures(crop, 16))
    detail = np.abs(np.diff(samples[..., 0].astype(int), axis=3)).mean((1, 2, 3))
    assert detail.max() > 4 * detail.min()
    assert (samples[:, 0] != samples[:, 1]).any(axis=(1, 2, 3)).all()


def test_signatures_are_free_in_batch_and_time_alone(made: Path) -> None:
    encoder = ort.InferenceSession(made / "encoder.onnx", providers=["CPUExecutionProvider"])
    temporal = ort.InferenceSession(made / "temporal.onnx", providers=["CPUExecutionProvider"])
    ((samples,), (features,)) = encoder.get_inputs(), encoder.get_outputs()
    assert (samples.name, samples.type, samples.shape) == ("samples", "tensor(uint8)", ["N", 3, 16, 16, 3])
    assert (features.name, features.type, features.shape[1]) == ("features", "tensor(float)", 8)
    assert [(i.name, i.type, i.shape) for i in temporal.get_inputs()] == [
        ("features", "tensor(float)", ["B", "T", 8]),
        ("lengths", "tensor(int64)", ["B"]),
    ]
    assert [o.name for o in temporal.get_outputs()] == ["steps", "pooled"]


@pytest.mark.parametrize("name", ["encoder.onnx", "temporal.onnx"])
def test_each_graph_says_what_it_is(made: Path, name: str) -> None:
    props = {p.key: p.value for p in onnx.load(made / name).metadata_props}
    assert props["bundle"] == "tiny-1"
    assert json.loads(props["classes"]) == ["real", "fake"]
    assert json.loads(props["crop"])["side"] == 16
    assert props["licence"] == "MIT"


def test_a_trained_bundle_opens_and_keeps_the_calibration(made: Path) -> None:
    manifest = open_bundle(made).manifest
    assert manifest.trained
    assert (manifest.calibration.id, manifest.calibration.scale) == ("made-up", 2.0)
    assert manifest.sampling == small_config().sampling
    assert "Not measured" in (made / "MODEL_CARD.md").read_text()


def test_parity_notices_another_network(made: Path, checkpoint: Path) -> None:
    network, _ = load_checkpoint(checkpoint)
    assert max(verify_bundle(made, network=network).values()) <= 1e-4
    with torch.no_grad():
        network.head.linear.bias[1] += 0.01
    assert parity(network, made)["pooled"] > 1e-4
    with pytest.raises(BundleCorrupt, match="differs from PyTorch"):
        verify_bundle(made, network=network)


def test_a_flipped_byte_is_found(made: Path, tmp_path: Path) -> None:
    broken = copied(made, tmp_path / "broken")
    graph = bytearray((broken / "encoder.onnx").read_bytes())
    graph[len(graph) // 2] ^= 1
    (broken / "encoder.onnx").write_bytes(graph)
    with pytest.raises(BundleCorrupt, match="digest"):
        verify_bundle(broken)


def test_weights_that_are_not_numbers_are_found(made: Path, tmp_path: Path) -> None:
    broken = copied(made, tmp_path / "broken")
    graph = onnx.load(broken / "temporal.onnx")
    bias = next(i for i in graph.graph.initializer if list(i.dims) == [2])
    bias.CopyFrom(onnx.numpy_helper.from_array(np.array([np.nan, 0], np.float32), bias.name))
    onnx.save(graph, broken / "temporal.onnx")
    rewritten(broken)
    with pytest.raises(BundleCorrupt, match="no probabilities"):
        selfcheck(open_bundle(broken))


def test_a_manifest_that_contradicts_the_graphs_is_found(made: Path, tmp_path: Path) -> None:
    renamed = copied(made, tmp_path / "renamed")
    rewritten(renamed, id="another")
    with pytest.raises(BundleCorrupt, match="disagree on bundle"):
        selfcheck(open_bundle(renamed))


def test_a_bundle_is_never_overwritten(made: Path, checkpoint: Path) -> None:
    before = sha256(made / "manifest.json")
    with pytest.raises(BundleError, match="exists"):
        export_checkpoint(checkpoint, made)
    assert sha256(made / "manifest.json") == before


def test_a_failed_export_leaves_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "PARITY_LIMIT", -1.0)
    with pytest.raises(BundleCorrupt):
        export_checkpoint(checkpoint, tmp_path / "never")
    assert list(tmp_path.iterdir()) == []


def test_untrained_networks_are_the_same_each_time(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    a = export_untrained_config(small_config(), tmp_path / "a" / "same")
    b = export_untrained_config(small_config(), tmp_path / "b" / "same")
    assert sha256(a / "manifest.json") == sha256(b / "manifest.json")
    assert torch.equal(torch.get_rng_state(), state)


def test_an_unknown_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="vgg"):
        export_untrained("vgg", tmp_path / "x")


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no checkpoint")
    torch.save({"config": small_config(), "state_dict": {}, "training": {}}, tmp_path / "object.pt")
    torch.save({"state_dict": {}}, tmp_path / "partial.pt")
    for name, why in (
        ("text", "text"),
        ("object", "more than tensors"),
        ("partial", "no config"),
        ("none", "none"),
    ):
        with pytest.raises(CheckpointError, match=why):
            export_checkpoint(tmp_path / f"{name}.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", bundles(default_models()).values(), ids=lambda p: p.name)
def test_embedded_bundles_are_trained_measured_and_say_so(path: Path) -> None:
    verify_bundle(path)
    manifest = open_bundle(path).manifest
    assert manifest.id == path.name
    assert manifest.calibration.id is not None
    plain = headline(manifest.summary["evaluation"])["auc"]
    assert plain["low"] < plain["value"] < plain["high"]
    size = sum((path / name).stat().st_size for name in ("encoder.onnx", "temporal.onnx"))
    assert (path / "MODEL_CARD.md").read_text(encoding="utf-8") == card(manifest, size)
