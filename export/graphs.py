"""Tracing of the two graphs of a bundle, and their agreement with PyTorch."""

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn

from pipeline.bundle import ENCODER, TEMPORAL
from pipeline.errors import BundleCorrupt
from pipeline.runtime import CPU, session_options
from training.model import DetectorNetwork

OPSET = 18
PARITY_LIMIT = 1e-4
UNSEEN_BATCHES = (1, 3)
UNSEEN_SEQUENCES = ((1, (1,)), (3, (7, 1, 4)), (2, (13, 12)))
"""Batch sizes with their lengths; none of them is a size that the graphs were traced with."""


def trace(network: DetectorNetwork, out: Path, metadata: dict[str, str]) -> None:
    """Write `encoder.onnx` and `temporal.onnx` into a directory, each with `metadata` in its props.

    encoder: samples uint8 [N, F, S, S, 3] -> features float32 [N, D]. temporal: features float32
    [B, T, D], lengths int64 [B] -> steps float32 [B, T, 2], pooled float32 [B, 2]. N, B and T are
    free.
    """
    network.eval()
    samples = torch.zeros((2, *network.config.sample_shape), dtype=torch.uint8)
    features = torch.zeros((2, 5, network.config.feature_size))
    lengths = torch.tensor([5, 3])
    _trace(network.trunk, (samples,), out / ENCODER, {"samples": ["N"]}, {"features": ["N"]})
    _trace(
        network.head,
        (features, lengths),
        out / TEMPORAL,
        {"features": ["B", "T"], "lengths": ["B"]},
        {"steps": ["B", "T"], "pooled": ["B"]},
    )
    for name in (ENCODER, TEMPORAL):
        graph = onnx.load(out / name)
        onnx.helper.set_model_props(graph, metadata)
        onnx.checker.check_model(graph, full_check=True)
        onnx.save(graph, out / name)


def check_graph(path: Path) -> None:
    """ONNX's own checker, shapes included. Raises BundleCorrupt."""
    try:
        onnx.checker.check_model(onnx.load(path), full_check=True)
    except Exception as e:  # the checker and protobuf raise several classes without a common base
        raise BundleCorrupt(f"{path} is not a valid ONNX graph: {e}") from e


def parity(network: DetectorNetwork, path: Path, seed: int = 0) -> dict[str, float]:
    """Largest difference between PyTorch and ONNX Runtime, for each output, relative to its largest value
    where that is over 1: fp32 rounds relatively, and features have no bound.

    Measured on random samples in batch sizes and lengths that the graphs were not traced with.
    """
    network.eval()
    encoder, temporal = (
        ort.InferenceSession(str(path / name), session_options(0), providers=[CPU])
        for name in (ENCODER, TEMPORAL)
    )
    rng = np.random.default_rng(seed)
    worst = {"features": 0.0, "steps": 0.0, "pooled": 0.0}

    def compare(name: str, ours: Tensor, theirs: np.ndarray) -> None:
        scale = max(1.0, float(ours.abs().max()))
        worst[name] = max(worst[name], float(np.abs(ours.numpy() - theirs).max()) / scale)

    with torch.no_grad():
        seen = []
        for n in UNSEEN_BATCHES:
            samples = rng.integers(0, 256, (n, *network.config.sample_shape), dtype=np.uint8)
            features = network.trunk(torch.from_numpy(samples))
            compare("features", features, encoder.run(["features"], {"samples": samples})[0])
            seen.append(features.numpy())
        pool = np.concatenate(seen)
        for b, lengths in UNSEEN_SEQUENCES:
            sequence = pool[rng.integers(0, len(pool), (b, max(lengths)))]
            steps, pooled = network.head(torch.from_numpy(sequence), torch.tensor(lengths))
            fed = {"features": sequence, "lengths": np.array(lengths, np.int64)}
            got = temporal.run(["steps", "pooled"], fed)
            compare("steps", steps, got[0])
            compare("pooled", pooled, got[1])
    return worst


def _trace(
    module: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    inputs: dict[str, list[str]],
    outputs: dict[str, list[str]],
) -> None:
    free = {name: dict(enumerate(axes)) for name, axes in (inputs | outputs).items()}
    with warnings.catch_warnings():
        # The tracing exporter is deprecated in favour of one that writes the traced length into the
        # shape of `steps`; the state of the LSTM that it warns about is built from the batch's size.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            example,
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=free,
        )
