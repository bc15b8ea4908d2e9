"""Small deterministic bundles whose probabilities can be computed by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.bundle import CARD, ENCODER, TEMPORAL, sha256
from pipeline.golden import GOLDEN

OPSET = 18
GAIN = 4.0
"""Logit of `fake` minus that of `real`, for each unit of (first minus third channel mean)."""


def tiny_bundle(
    path: Path,
    *,
    name: str = "tiny",
    trained: bool = True,
    kind: str = "aligned",
    side: int = 32,
    frames: int = 1,
    grid: int = 1,
    bursts: int = 4,
    burst_frames: int = 2,
    thresholds: tuple[float, float] = (0.4, 0.6),
    golden: float | None = None,
) -> Path:
    """Write a bundle to `path` and return it. golden: what it is to answer to the golden clip.

    Encoder: the mean of each channel of a sample, 0 to 1. Temporal graph: step logits are 0 and
    GAIN * (first - third channel); pooled logits are their mean over the steps that count.
    """
    path.mkdir(parents=True, exist_ok=True)
    _save(_encoder(frames, side), path / ENCODER)
    _save(_temporal(), path / TEMPORAL)
    (path / CARD).write_text(f"# {name}\n\nA bundle for tests.\n", encoding="utf-8")
    manifest: dict[str, Any] = {
        "schema_version": 1,
        "id": name,
        "trained": trained,
        "architecture": {"name": "channel-means"},
        "precision": "fp32",
        "opset": OPSET,
        "feature_size": 3,
        "classes": ["real", "fake"],
        "crop": {"kind": kind, "side": side, "frames": frames, "grid": grid, "colour": "rgb", "margin": 1.3},
        "sampling": {"bursts": bursts, "burst_frames": burst_frames, "spread": "even", "detect_every": 1},
        "calibration": {
            "id": "tests",
            "scale": 1.0,
            "bias": 0.0,
            "thresholds": {"authentic_below": thresholds[0], "manipulated_above": thresholds[1]},
            "data": "none",
        },
        "files": {file: sha256(path / file) for file in (ENCODER, TEMPORAL, CARD)},
        "parity": {},
        "summary": {"data": "none"}
        | ({} if golden is None else {"golden": {"clip": sha256(GOLDEN), "fake": golden}}),
    }
    (path / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return path


def expected_scores(samples: "np.ndarray[Any, Any]") -> tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
    """What a tiny bundle says of samples uint8 [T, F, S, S, 3]: steps [T, 2] and pooled [2]."""
    means = samples.astype(np.float64).mean(axis=(1, 2, 3)) / 255
    logits = GAIN * (means[:, 0] - means[:, 2])
    fake = 1 / (1 + np.exp(-logits))
    pooled = 1 / (1 + np.exp(-logits.mean()))
    return np.stack([1 - fake, fake], axis=1), np.array([1 - pooled, pooled])


def _encoder(frames: int, side: int) -> onnx.GraphProto:
    return helper.make_graph(
        [
            helper.make_node("Cast", ["samples"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["pixels", "axes"], ["means"], keepdims=0),
            helper.make_node("Div", ["means", "white"], ["features"]),
        ],
        "encoder",
        [helper.make_tensor_value_info("samples", TensorProto.UINT8, ["N", frames, side, side, 3])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 3])],
        [_constant("axes", np.array([1, 2, 3], np.int64)), _constant("white", np.array(255.0, np.float32))],
    )


def _temporal() -> onnx.GraphProto:
    weight = np.array([[0, GAIN], [0, 0], [0, -GAIN]], np.float32)
    return helper.make_graph(
        [
            helper.make_node("MatMul", ["features", "weight"], ["logits"]),
            helper.make_node("Shape", ["features"], ["steps_long"], start=1, end=2),
            helper.make_node("Squeeze", ["steps_long", "first"], ["count"]),
            helper.make_node("Range", ["zero", "count", "one"], ["numbers"]),
            helper.make_node("Unsqueeze", ["lengths", "second"], ["limits"]),
            helper.make_node("Less", ["numbers", "limits"], ["inside"]),
            helper.make_node("Cast", ["inside"], ["mask_flat"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask_flat", "third"], ["mask"]),
            helper.make_node("Softmax", ["logits"], ["all_steps"], axis=2),
            helper.make_node("Mul", ["all_steps", "mask"], ["steps"]),
            helper.make_node("Mul", ["logits", "mask"], ["counted"]),
            helper.make_node("ReduceSum", ["counted", "second"], ["sums"], keepdims=0),
            helper.make_node("Cast", ["limits"], ["divisors"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["sums", "divisors"], ["mean_logits"]),
            helper.make_node("Softmax", ["mean_logits"], ["pooled"], axis=1),
        ],
        "temporal",
        [
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["B", "T", 3]),
            helper.make_tensor_value_info("lengths", TensorProto.INT64, ["B"]),
        ],
        [
            helper.make_tensor_value_info("steps", TensorProto.FLOAT, ["B", "T", 2]),
            helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["B", 2]),
        ],
        [
            _constant("weight", weight),
            _constant("first", np.array([0], np.int64)),
            _constant("second", np.array([1], np.int64)),
            _constant("third", np.array([2], np.int64)),
            _constant("zero", np.array(0, np.int64)),
            _constant("one", np.array(1, np.int64)),
        ],
    )


def _constant(name: str, value: "np.ndarray[Any, Any]") -> onnx.TensorProto:
    return numpy_helper.from_array(value, name)


def _save(graph: onnx.GraphProto, path: Path) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
