"""The networks: shapes and names of the paper's, and what its well-known public code gets wrong."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from training.checkpoint import CheckpointError
from training.keymap import load_common, load_torchvision, map_common
from training.model import (
    DetectorConfig,
    DetectorNetwork,
    TemporalHead,
    combine,
    native_config,
    native_resnext_config,
    paper_config,
)
from training.trunks import (
    RESNEXT_FEATURES,
    NativeTrunk,
    Residuals,
    ResNeXt50,
    Stem,
    residual_channels,
    residuals,
)

WITNESS = json.loads(
    (Path(__file__).parent.parent / "data" / "resnext50_32x4d_state_dict.json").read_text(encoding="utf-8")
)
TORCHVISION_PARAMETERS = 25_028_904


@pytest.fixture(scope="module")
def trunk() -> ResNeXt50:
    torch.manual_seed(0)
    return ResNeXt50().eval()


@pytest.fixture(scope="module")
def native() -> DetectorNetwork:
    torch.manual_seed(0)
    return DetectorNetwork(native_config()).eval()


@pytest.fixture(scope="module")
def head() -> TemporalHead:
    torch.manual_seed(0)
    return TemporalHead(6, 16, 0.4).eval()


def samples_for(config: DetectorConfig, *lead: int) -> torch.Tensor:
    return torch.randint(0, 256, (*lead, *config.sample_shape), dtype=torch.uint8)


def test_witness_counts_the_parameters_that_torchvision_publishes() -> None:
    learnt = {k: v for k, v in WITNESS.items() if "running_" not in k and "num_batches" not in k}
    assert sum(torch.Size(shape).numel() for shape in learnt.values()) == TORCHVISION_PARAMETERS


def test_trunk_has_torchvisions_names_and_shapes_in_its_order(trunk: ResNeXt50) -> None:
    expected = [(k, v) for k, v in WITNESS.items() if not k.startswith("fc.")]
    assert [(k, list(v.shape)) for k, v in trunk.state_dict().items()] == expected


def test_paper_config_is_the_papers() -> None:
    config = paper_config()
    with torch.device("meta"):
        network = DetectorNetwork(config)
    assert isinstance(network.trunk, ResNeXt50)
    assert (network.head.lstm.input_size, network.head.lstm.hidden_size) == (2048, 2048)
    assert (network.head.lstm.num_layers, network.head.lstm.bidirectional) == (1, False)
    assert network.head.dropout.p == 0.4
    assert network.head.linear.out_features == 2
    assert config.sample_shape == (1, 112, 112, 3)
    assert (config.sampling.bursts, config.sampling.spread) == (150, "head")


def test_trunk_normalises_as_imagenet_inside(trunk: ResNeXt50) -> None:
    seen: list[torch.Tensor] = []
    handle = trunk.conv1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    pixels = torch.zeros((1, 1, 32, 32, 3), dtype=torch.uint8)
    pixels[..., 0] = 255
    with torch.no_grad():
        trunk(pixels)
    handle.remove()
    expected = torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    torch.testing.assert_close(seen[0][0, :, 5, 5], expected)


def test_torchvision_checkpoint_loads_with_its_classifier(trunk: ResNeXt50) -> None:
    config = paper_config().model_copy(update={"hidden": 4})
    network = DetectorNetwork(config)
    state = trunk.state_dict() | {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    load_torchvision(network, state)
    assert torch.equal(network.trunk.state_dict()["layer3.4.conv2.weight"], state["layer3.4.conv2.weight"])
    del state["layer2.0.conv1.weight"]
    with pytest.raises(CheckpointError, match=r"layer2\.0\.conv1\.weight"):
        load_torchvision(network, state)


def common_state(trunk: ResNeXt50, hidden: int) -> dict[str, torch.Tensor]:
    """What `class Model` of the common implementation saves: numbered children, an LSTM without biases."""
    child = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    state = {}
    for key, value in trunk.state_dict().items():
        first, rest = key.split(".", 1)
        state[f"model.{child[first]}.{rest}"] = value
    state["lstm.weight_ih_l0"] = torch.randn(4 * hidden, 2048)
    state["lstm.weight_hh_l0"] = torch.randn(4 * hidden, hidden)
    state["linear1.weight"] = torch.stack([torch.full((hidden,), 1.0), torch.full((hidden,), -1.0)])
    state["linear1.bias"] = torch.tensor([2.0, -2.0])
    return state


def test_common_checkpoint_loads_with_its_classes_swapped(trunk: ResNeXt50) -> None:
    network = DetectorNetwork(paper_config().model_copy(update={"hidden": 4}))
    state = common_state(trunk, 4)
    load_common(network, {f"module.{k}": v for k, v in state.items()})
    # There 0 is FAKE and 1 is REAL; here it is the other way round.
    assert network.head.linear.bias.tolist() == [-2.0, 2.0]
    assert network.head.linear.weight[1].tolist() == [1.0] * 4
    assert torch.equal(network.trunk.state_dict()["layer4.2.bn3.weight"], state["model.7.2.bn3.weight"])
    assert torch.equal(network.head.lstm.weight_ih_l0, state["lstm.weight_ih_l0"])
    assert not network.head.lstm.bias_ih_l0.any()


def test_common_checkpoint_with_a_foreign_key_is_refused() -> None:
    with pytest.raises(CheckpointError, match="efficientnet"):
        map_common({"efficientnet.conv.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"model\.9"):
        map_common({"model.9.weight": torch.zeros(1)})


@torch.no_grad()
def test_an_answer_does_not_depend_on_its_batch(native: DetectorNetwork) -> None:
    samples = samples_for(native.config, 3, 5)
    lengths = torch.tensor([5, 5, 5])
    steps, pooled = native(samples, lengths)
    for i in range(3):
        alone_steps, alone_pooled = native(samples[i : i + 1], lengths[:1])
        torch.testing.assert_close(alone_steps[0], steps[i], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone_pooled[0], pooled[i], atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_order_of_time_matters(head: TemporalHead) -> None:
    features = torch.randn(1, 8, 6)
    lengths = torch.tensor([8])
    assert not torch.allclose(head(features, lengths)[1], head(features.flip(1), lengths)[1], atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    padding=st.sampled_from([0.0, 1e4, float("nan")]),
)
@torch.no_grad()
def test_padding_never_changes_an_answer(lengths: list[int], padding: float) -> None:
    torch.manual_seed(1)
    head = TemporalHead(6, 16, 0.4).eval()
    sequences = [torch.randn(n, 6) for n in lengths]
    batch = torch.full((len(lengths), 7, 6), padding)
    for i, sequence in enumerate(sequences):
        batch[i, : len(sequence)] = sequence
    steps, pooled = head(batch, torch.tensor(lengths))
    for i, sequence in enumerate(sequences):
        alone_steps, alone_pooled = head(sequence[None], torch.tensor([len(sequence)]))
        torch.testing.assert_close(pooled[i], alone_pooled[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(steps[i, : len(sequence)], alone_steps[0], atol=1e-5, rtol=0)
        assert not steps[i, len(sequence) :].any()


@torch.no_grad()
def test_pooled_is_the_mean_of_the_steps_logits_of_the_linear_layer_over_relu(head: TemporalHead) -> None:
    features = torch.randn(2, 5, 6)
    states, _ = head.lstm(features)
    expected = head.linear(states.clamp(min=0).mean(1)).softmax(-1)
    _, pooled = head(features, torch.tensor([5, 5]))
    torch.testing.assert_close(pooled, expected)
    assert (states < 0).any()


def test_dropout_acts_on_states_and_never_on_logits() -> None:
    torch.manual_seed(0)
    head = TemporalHead(6, 64, 0.9).train()
    dropped: list[torch.Size] = []
    head.dropout.register_forward_hook(lambda _, args, out: dropped.append(out.shape))
    logits = head.logits(torch.randn(2, 5, 6))
    assert dropped == [torch.Size([2, 5, 64])]
    assert (logits != 0).all()
    assert sum(isinstance(m, nn.Dropout) for m in head.modules()) == 1


@torch.no_grad()
def test_probabilities_are_of_real_then_fake(head: TemporalHead) -> None:
    sure = TemporalHead(6, 16, 0.4).eval()
    sure.load_state_dict(head.state_dict())
    sure.linear.weight.zero_()
    sure.linear.bias.copy_(torch.tensor([0.0, 3.0]))
    _, pooled = sure(torch.randn(1, 4, 6), torch.tensor([4]))
    assert pooled[0, 1] > 0.9


def test_residuals_of_a_flat_still_burst_are_zero_and_detail_is_clipped() -> None:
    assert not residuals(torch.full((1, 4, 8, 8), 90.0)).any()
    noise = torch.randint(0, 256, (1, 4, 8, 8)).float()
    found = residuals(noise)
    assert found.shape == (1, 7, 8, 8)
    assert found.abs().max() == 3
    torch.testing.assert_close(found[:, 1], ((noise[:, 2] - noise[:, 1]) / 2).clamp(-3, 3))


def test_residuals_of_space_see_neither_time_nor_strength() -> None:
    noise = torch.randint(-20, 21, (2, 3, 16, 16)).float()
    found = residuals(128 + noise, "space")
    assert found.shape == (2, residual_channels(3, "space"), 16, 16) == (2, 4, 16, 16)
    torch.testing.assert_close(residuals(128 + 3 * noise, "space"), found, atol=0.03, rtol=0)
    moved = noise.clone()
    moved[:, 1] = 0
    torch.testing.assert_close(residuals(128 + moved, "space"), found)
    assert not residuals(torch.full((1, 3, 8, 8), 90.0), "space").any()


@torch.no_grad()
def test_native_trunk_reads_the_luma_alone(native: DetectorNetwork) -> None:
    samples = samples_for(native.config, 2)
    grey = samples.clone()
    grey[..., 1:] = 128
    torch.testing.assert_close(native.trunk(samples), native.trunk(grey))


@torch.no_grad()
@pytest.mark.parametrize("stem", ["imagenet", "fine"])
def test_resnext_over_a_burst_sees_its_residuals(stem: Stem) -> None:
    torch.manual_seed(0)
    trunk = ResNeXt50(4, stem).eval()
    seen: list[torch.Tensor] = []
    first = next(m for m in trunk.modules() if isinstance(m, nn.Conv2d))
    first.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    samples = torch.randint(0, 256, (2, 4, 32, 32, 3), dtype=torch.uint8)
    assert trunk(samples).shape == (2, RESNEXT_FEATURES)
    torch.testing.assert_close(seen[0], residuals(samples[..., 0].float()))


def test_fine_stem_looks_at_every_pixel_and_costs_no_more_in_the_stages() -> None:
    trunk = ResNeXt50(4, "fine").eval()
    shapes: list[torch.Size] = []
    trunk.layer1.register_forward_pre_hook(lambda _, args: shapes.append(args[0].shape))
    trunk(torch.zeros((1, 4, 64, 64, 1), dtype=torch.uint8))
    assert shapes == [torch.Size([1, 64, 16, 16])]
    stem = trunk.fine
    assert stem is not None
    assert all(m.stride == (1, 1) for m in stem if isinstance(m, nn.Conv2d))


def test_native_resnext_is_the_papers_network_on_the_compact_ones_windows() -> None:
    config = native_resnext_config()
    with torch.device("meta"):
        network = DetectorNetwork(config)
    assert isinstance(network.trunk, ResNeXt50)
    assert network.trunk.fine is not None
    assert (config.crop, config.sampling) == (native_config().crop, native_config().sampling)
    assert (network.head.lstm.input_size, network.head.lstm.hidden_size) == (2048, 2048)


@torch.no_grad()
def test_constrained_filters_are_prediction_errors_whatever_was_learnt() -> None:
    torch.manual_seed(0)
    layer = Residuals("constrained")
    assert layer.weight is not None
    layer.weight.normal_(std=3)
    kernels = layer.kernels(layer.weight)
    assert (kernels[..., 2, 2] == -1).all()
    torch.testing.assert_close(kernels.sum((2, 3)), torch.zeros(2, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(layer.kernels(kernels), kernels)
    samples = torch.randint(0, 256, (2, 5, 16, 16, 1), dtype=torch.uint8)
    with torch.autocast("cpu", torch.bfloat16):
        flat = layer(torch.full_like(samples, 200))
        found = layer(samples)
    assert flat.abs().max() < 1e-3
    assert found.shape == (2, residual_channels(5), 16, 16)
    assert found.abs().max() == 3


def test_constrained_filters_learn() -> None:
    torch.manual_seed(0)
    config = native_config().model_copy(update={"filters": "constrained"})
    network = DetectorNetwork(config)
    network.step_logits(samples_for(config, 1, 2)).square().sum().backward()
    assert isinstance(network.trunk, NativeTrunk)
    weight = network.trunk.residuals.weight
    assert weight is not None
    assert weight.grad is not None
    assert weight.grad.abs().max() > 0


@torch.no_grad()
def test_members_each_give_their_part_of_the_features() -> None:
    torch.manual_seed(0)
    network = DetectorNetwork(native_config().model_copy(update={"members": 4})).eval()
    samples = samples_for(network.config, 3)
    parts = [member(samples) for member in network.trunk.members]
    assert [tuple(p.shape) for p in parts] == [(3, 24)] * 4
    torch.testing.assert_close(network.trunk(samples), torch.cat(parts, 1))


@torch.no_grad()
@pytest.mark.parametrize("k", [1, 3])
def test_combined_networks_answer_with_the_mean_of_their_logits(k: int) -> None:
    torch.manual_seed(0)
    small = native_config().model_copy(update={"feature_size": 8, "hidden": 6, "width": 4})
    networks = [DetectorNetwork(small).eval() for _ in range(k)]
    samples = samples_for(small, 2, 5)
    whole = combine(networks)
    expected = torch.stack([n.step_logits(samples) for n in networks]).mean(0)
    torch.testing.assert_close(whole.step_logits(samples), expected)
    assert (whole.config.members, whole.config.feature_size, whole.config.hidden) == (k, 8 * k, 6 * k)


def test_networks_of_two_kinds_are_not_combined(native: DetectorNetwork) -> None:
    other = DetectorNetwork(native.config.model_copy(update={"width": 4}))
    with pytest.raises(ValueError, match="one configuration"):
        combine([native, other])


@pytest.mark.parametrize(
    "change",
    [
        {"trunk": "resnet"},
        {"feature_size": 63},
        {"crop": {"kind": "native", "side": 64, "frames": 1, "colour": "yuv"}},
        {"heads": 2},
        {"members": 5},
        {"stem": "fine"},
        {"trunk": "resnext50_32x4d"},
        {"trunk": "resnext50_32x4d", "feature_size": 2048, "members": 2},
        {
            "trunk": "resnext50_32x4d",
            "feature_size": 2048,
            "crop": {"kind": "aligned", "side": 64, "frames": 2},
        },
        {
            "trunk": "resnext50_32x4d",
            "feature_size": 2048,
            "crop": {"kind": "aligned", "side": 64},
            "filters": "constrained",
        },
    ],
)
def test_configurations_that_make_no_sense_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DetectorConfig.model_validate(native_config().model_dump() | change)
