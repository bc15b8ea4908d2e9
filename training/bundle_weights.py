"""The network in an exported bundle, read back from its graphs.

Export folds each batch normalisation into the convolution before it, so what is read back computes what the
bundle computes, and its normalisations pass on what they are given. It can teach, or be taught further with
them frozen; taught with live ones it would not start where the bundle stands.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import GraphProto, NodeProto, numpy_helper
from pydantic import ValidationError
from torch import Tensor, nn

from pipeline.bundle import Bundle, Manifest, open_bundle
from pipeline.engine import Engine
from pipeline.frames import F32
from training.checkpoint import CheckpointError, load_checkpoint
from training.model import DetectorConfig, DetectorNetwork, TemporalHead

LARGEST_DIFFERENCE = 1e-3
"""Between what was read back and the bundle's own answers, relative where values are over 1."""
PROBED = (2, 3)
"""Sequences and steps that are compared."""


def load_network(path: Path) -> tuple[DetectorNetwork, dict[str, Any]]:
    """The network of a checkpoint or, if `path` is a directory, of a bundle, ready to infer, and what is
    known of its training. Raises CheckpointError, or BundleError for a bundle that is not sound."""
    return load_bundle(path) if path.is_dir() else load_checkpoint(path)


def load_bundle(path: Path) -> tuple[DetectorNetwork, dict[str, Any]]:
    """The network of a bundle, and its calibration and summary as a checkpoint holds them.

    Raises CheckpointError when its graphs were not exported from a network as its manifest describes,
    BundleError when it is not sound.
    """
    bundle = open_bundle(path, allow_untrained=True)
    network = DetectorNetwork(_config(bundle.manifest, path)).eval()
    try:
        with torch.no_grad():
            _fill_trunk(network, _graph(bundle.encoder))
            _fill_head(network.head, _graph(bundle.temporal))
    except (LookupError, ValueError, RuntimeError, StopIteration) as e:
        raise CheckpointError(f"{path} holds other graphs than its manifest describes: {e}") from e
    _compare(network, bundle)
    known = bundle.manifest.calibration.model_dump(mode="json")
    return network, {"calibration": known, "summary": bundle.manifest.summary.get("training", {})}


def _config(manifest: Manifest, path: Path) -> DetectorConfig:
    known = {"crop": manifest.crop.model_dump(), "sampling": manifest.sampling.model_dump()}
    try:
        return DetectorConfig.model_validate(manifest.architecture | known)
    except ValidationError as e:
        raise CheckpointError(f"{path} does not say which network it holds: {e}") from e


def _graph(path: Path) -> GraphProto:
    return onnx.load(path).graph


def _weights(graph: GraphProto) -> dict[str, F32]:
    """All weights of a graph by name, also those that it stores once for several or in fewer bits
    (`export.precision`)."""
    known = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    for node in graph.node:
        if node.op_type in {"Cast", "Mul", "Identity"} and all(name in known for name in node.input):
            values = [known[name].astype(np.float32) for name in node.input]
            known[node.output[0]] = values[0] * values[1] if node.op_type == "Mul" else values[0]
    return known


def _fill_trunk(network: DetectorNetwork, graph: GraphProto) -> None:
    weights = _weights(graph)
    nodes = [node for node in graph.node if node.op_type == "Conv"]
    layers = _layers(network)
    if len(nodes) != len(layers):
        raise ValueError(f"{len(nodes)} convolutions instead of {len(layers)}")
    for node, (convolution, norm) in zip(nodes, layers, strict=True):
        convolution.weight.copy_(_tensor(weights[node.input[1]]))
        _pass_on(norm, _tensor(weights[node.input[2]]))


def _layers(network: DetectorNetwork) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """The trunk's convolutions, each with the normalisation behind it, in the order in which they run, which
    is that of the graph."""
    ran: list[nn.Module] = []
    hooks = [
        module.register_forward_hook(lambda m, _inputs, _output: ran.append(m))
        for module in network.trunk.modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    ]
    network.trunk(torch.zeros((1, *network.config.sample_shape), dtype=torch.uint8))
    for hook in hooks:
        hook.remove()
    return list(zip(ran[::2], ran[1::2], strict=True))  # type: ignore[arg-type]


def _pass_on(norm: nn.BatchNorm2d, bias: Tensor) -> None:
    """A normalisation that adds `bias` and does nothing else."""
    assert norm.running_mean is not None  # noqa: S101 - every one here keeps statistics
    assert norm.running_var is not None  # noqa: S101
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)
    norm.weight.fill_(1)
    norm.bias.copy_(bias)


def _fill_head(head: TemporalHead, graph: GraphProto) -> None:
    weights = _weights(graph)
    lstm, product, total = (_only(graph, kind) for kind in ("LSTM", "MatMul", "Add"))
    _, inputs, states, biases = lstm.input[:4]
    of_inputs, of_states = np.split(weights[biases][0], 2)
    found = {
        "lstm.weight_ih_l0": _gates(weights[inputs][0]),
        "lstm.weight_hh_l0": _gates(weights[states][0]),
        "lstm.bias_ih_l0": _gates(of_inputs),
        "lstm.bias_hh_l0": _gates(of_states),
        "linear.weight": weights[product.input[1]].T,
        "linear.bias": next(weights[name] for name in total.input if name in weights),
    }
    head.load_state_dict({name: _tensor(values) for name, values in found.items()})


def _only(graph: GraphProto, kind: str) -> NodeProto:
    found: list[NodeProto] = [n for n in graph.node if n.op_type == kind]
    if len(found) != 1:
        raise ValueError(f"{len(found)} nodes of the kind {kind} instead of 1")
    return found[0]


def _gates(rows: F32) -> F32:
    """From the order of ONNX (input, output, forget, cell) to that of torch (input, forget, cell, output)."""
    i, o, f, c = np.split(rows, 4)
    return np.concatenate([i, f, c, o])


def _tensor(values: F32) -> Tensor:
    return torch.from_numpy(np.array(values, np.float32))


def _compare(network: DetectorNetwork, bundle: Bundle) -> None:
    """Raise CheckpointError unless the network answers as the bundle does."""
    rng = np.random.default_rng(0)
    sequences, steps = PROBED
    samples = rng.integers(0, 256, (sequences * steps, *network.config.sample_shape), dtype=np.uint8)
    engine = Engine(bundle, threads=1)
    theirs = engine.encode(samples)
    lengths = np.full(sequences, steps, np.int64)
    said = engine.temporal(theirs.reshape(sequences, steps, -1), lengths)[0]
    with torch.no_grad():
        ours = network.trunk(torch.from_numpy(samples))
        answered = network.head(ours.unflatten(0, PROBED), torch.from_numpy(lengths))[0]
    scale = max(1.0, float(np.abs(theirs).max()))
    worst = max(np.abs(ours.numpy() - theirs).max() / scale, np.abs(answered.numpy() - said).max())
    if not worst <= LARGEST_DIFFERENCE:
        raise CheckpointError(f"what was read from {bundle.path} answers otherwise than it, by {worst:.2g}")
