"""Weights stored in fewer bits, arithmetic in fp32.

fp16 halves the large weights; int8 quarters them, symmetrically and with a scale for each output
channel of a convolution and each row of an LSTM's gates (Krishnamoorthi, arXiv 1806.08342). The way
back to fp32 stands in the graph in front of each weight, and ONNX Runtime computes it once, while it
loads. So speed and memory are those of fp32, and activations are never quantised, whose scale would
depend on what else is in the batch.

The way back is Cast, and Cast and Mul for int8. Not DequantizeLinear, which ONNX Runtime keeps for
patterns of quantised arithmetic and so runs anew in each call: 0.46 s instead of 0.30 s for 32 windows
through ResNeXt-50 on one core. Arithmetic in fp16 is no gain on a CPU either: 0.48 s.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from export.agreement import Precision
from pipeline.errors import BundleCorrupt
from pipeline.frames import F32

LARGE = 4096
"""Elements from which a weight is worth storing in fewer bits."""
_ROWS = {"Conv": 0, "LSTM": 1, "MatMul": 1}
"""The axis of the weight that counts outputs, hence that has a scale of its own."""
_WEIGHTS = {"Conv": (1,), "LSTM": (1, 2), "MatMul": (1,)}
"""Which inputs are weights; biases stay in fp32."""


def store(path: Path, precision: Precision) -> None:
    """Rewrite an fp32 graph with its large weights stored in a precision."""
    if precision == "fp32":
        return
    model = onnx.load(path)
    graph = model.graph
    back: list[NodeProto] = []
    for initializer, axis in _large_weights(graph):
        weight = np.asarray(numpy_helper.to_array(initializer), np.float32)
        stored, nodes = _halved(weight, initializer.name)
        if precision == "int8":
            stored, nodes = _quantised(weight, axis, initializer.name)
        graph.initializer.remove(initializer)
        graph.initializer.extend(stored)
        back += nodes
    nodes = back + list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def check_stored(path: Path, precision: Precision) -> None:
    """That no large weight takes more bits than the precision says. Raises BundleCorrupt."""
    if precision != "fp32" and (wide := _large_weights(onnx.load(path).graph)):
        raise BundleCorrupt(f"{path} says {precision}, but stores {wide[0][0].name} in fp32")


def quantise(weight: F32, axis: int) -> tuple["np.ndarray[tuple[int, ...], np.dtype[np.int8]]", F32]:
    """Integers of -127 to 127 and their scales, whose product is at most half a scale off the weight.

    Scales are float32 with the weight's number of axes, one for each index of `axis`.
    """
    others = tuple(a for a in range(weight.ndim) if a != axis)
    scale = np.abs(weight).max(axis=others, keepdims=True) / np.float32(127)
    scale[scale == 0] = 1
    return np.rint(weight / scale).clip(-127, 127).astype(np.int8), scale


def _large_weights(graph: GraphProto) -> list[tuple[TensorProto, int]]:
    """Large fp32 weights, each with the axis of its outputs."""
    axes = {
        node.input[i]: _ROWS[node.op_type]
        for node in graph.node
        for i in _WEIGHTS.get(node.op_type, ())
        if i < len(node.input)
    }
    return [
        (i, axes[i.name])
        for i in graph.initializer
        if i.name in axes and i.data_type == TensorProto.FLOAT and np.prod(i.dims) >= LARGE
    ]


def _halved(weight: F32, name: str) -> tuple[list[TensorProto], list[NodeProto]]:
    stored = numpy_helper.from_array(weight.astype(np.float16), f"{name}_fp16")
    return [stored], [helper.make_node("Cast", [stored.name], [name], to=TensorProto.FLOAT)]


def _quantised(weight: F32, axis: int, name: str) -> tuple[list[TensorProto], list[NodeProto]]:
    integers, scale = quantise(weight, axis)
    stored = [
        numpy_helper.from_array(integers, f"{name}_int8"),
        numpy_helper.from_array(scale, f"{name}_scale"),
    ]
    return stored, [
        helper.make_node("Cast", [f"{name}_int8"], [f"{name}_steps"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}_steps", f"{name}_scale"], [name]),
    ]
