"""Detectors of the InsightFace package: a real SCRFD where there is one, a tiny graph where not."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from insightface import model_zoo
from onnx import ModelProto, TensorProto, helper, save

from pipeline.detect.insight import InsightFace
from pipeline.errors import FaceModelError
from pipeline.sampleclip import picture

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = Path(os.environ.get("DEEPFAKE_CORPUS", ROOT.parent / "shared")) / "weights"
REAL = [WEIGHTS / "scrfd_500m.onnx", WEIGHTS / "scrfd_500m_bnkps.onnx"]
STRIDES, ANCHORS = (8, 16, 32), 2


def tiny_scrfd(*, landmarks: bool = True) -> ModelProto:
    """A network of SCRFD's signature whose score at stride 8 is the brightness of the cell.

    Each anchor of a cell claims a box from 8 left and 16 above the cell's corner to 24 right and 32
    below it, and landmarks at (0, 0), (8, 8), (16, 16), (24, 24), (32, 32) from the corner.
    """
    nodes, constants = [], []

    def constant(name: str, values: np.ndarray) -> str:
        kind = TensorProto.INT64 if values.dtype == np.int64 else TensorProto.FLOAT
        constants.append(helper.make_tensor(name, kind, values.shape, values.ravel().tolist()))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    channels = constant("channels", np.full((ANCHORS, 3, 1, 1), 1 / 3, np.float32))
    outputs = []
    values: dict[str, list[float]] = {
        "score": [1.0],
        "bbox": [1.0, 2.0, 3.0, 4.0],
        "kps": [0, 0, 1, 1, 2, 2, 3, 3, 4, 4],
    }
    for kind in ("score", "bbox", "kps")[: 3 if landmarks else 2]:
        width = len(values[kind])
        for stride in STRIDES:
            name = f"{kind}_{stride}"
            cells = node(
                "AveragePool", ["input"], f"{name}_cells", kernel_shape=[stride] * 2, strides=[stride] * 2
            )
            grey = node("Conv", [cells, channels], f"{name}_grey")
            rows = node("Transpose", [grey], f"{name}_rows", perm=[0, 2, 3, 1])
            flat = node("Reshape", [rows, constant(f"{name}_shape", np.array([-1, 1]))], f"{name}_flat")
            if kind == "score":
                gain = constant(f"{name}_gain", np.array([0.9 if stride == 8 else 0.0], np.float32))
                node("Mul", [flat, gain], name)
            else:
                row = constant(f"{name}_row", np.array([values[kind]], np.float32))
                nothing = node(
                    "Mul", [flat, constant(f"{name}_zero", np.zeros(1, np.float32))], f"{name}_nothing"
                )
                node("Add", [nothing, row], name)
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["cells", width]))
    value = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "height", "width"])
    graph = helper.make_graph(nodes, "tiny_scrfd", [value], outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    save(tiny_scrfd(), tmp_path / "tiny.onnx")
    return tmp_path / "tiny.onnx"


def test_decodes_the_signature_of_scrfd(tiny: Path) -> None:
    image = np.zeros((640, 640, 3), np.uint8)
    image[64:72, 160:168] = 255
    (faces,) = InsightFace(tiny, accept_license=True, min_score=0.8).detect([image])
    assert len(faces) == 1
    assert faces.scores == pytest.approx([0.9], abs=0.01)
    assert np.allclose(faces.boxes[0], [152, 48, 32, 48], atol=1e-3)
    assert np.allclose(faces.landmarks[0], np.array([160, 64]) + 8 * np.arange(5)[:, None], atol=1e-3)


def test_gives_pixels_of_the_picture_that_was_given(tiny: Path) -> None:
    image = np.zeros((1280, 1280, 3), np.uint8)
    image[128:144, 320:336] = 255
    (faces,) = InsightFace(tiny, accept_license=True, min_score=0.8).detect([image])
    assert np.allclose(faces.boxes[0], [304, 96, 64, 96], atol=1e-2)


def test_takes_the_detector_out_of_a_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_recognition.onnx").write_bytes(b"a large file that nobody should need to open")
    save(tiny_scrfd(), tmp_path / "det_tiny.onnx")
    opened, get_model = [], model_zoo.get_model

    def recording(name: str, **options: Any) -> Any:
        opened.append(Path(name).name)
        return get_model(name, **options)

    monkeypatch.setattr(model_zoo, "get_model", recording)
    assert InsightFace(tmp_path, accept_license=True).detect([np.zeros((40, 40, 3), np.uint8)])
    assert opened == ["det_tiny.onnx"]


def test_needs_the_accepted_licence_before_anything_else(tmp_path: Path) -> None:
    with pytest.raises(FaceModelError, match="DETECTOR_ACCEPT_INSIGHTFACE_LICENSE"):
        InsightFace(tmp_path / "missing.onnx")


def test_says_what_is_wrong_with_a_model(tmp_path: Path) -> None:
    def opened(path: Path) -> InsightFace:
        return InsightFace(path, accept_license=True)

    with pytest.raises(FaceModelError, match="no InsightFace model at"):
        opened(tmp_path / "missing.onnx")
    with pytest.raises(FaceModelError, match=r"holds no \.onnx file"):
        opened(tmp_path)
    (tmp_path / "garbage.onnx").write_bytes(b"garbage")
    with pytest.raises(FaceModelError, match=r"garbage\.onnx can not be loaded"):
        opened(tmp_path)
    save(tiny_scrfd(landmarks=False), tmp_path / "blind.onnx")
    with pytest.raises(
        FaceModelError, match=r"blind\.onnx gives no landmarks.*garbage\.onnx can not be loaded"
    ):
        opened(tmp_path)
    value = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 112, 112])
    result = helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 3, 112, 112])
    graph = helper.make_graph([helper.make_node("Relu", ["input"], ["output"])], "other", [value], [result])
    save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "other.onnx",
    )
    with pytest.raises(FaceModelError, match=r"other\.onnx is not a detection model"):
        opened(tmp_path / "other.onnx")


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_refuses_to_fall_back_to_another_device(tiny: Path) -> None:
    with pytest.raises(FaceModelError, match="was to run on DmlExecutionProvider"):
        InsightFace(tiny, accept_license=True, providers=("DmlExecutionProvider", "CPUExecutionProvider"))


@pytest.mark.parametrize("model", REAL, ids=lambda p: p.stem)
def test_a_real_scrfd_finds_the_group(model: Path) -> None:
    if not model.is_file():
        pytest.skip(f"{model.name} is not here")
    (faces,) = InsightFace(model, accept_license=True).detect([picture(6)])
    assert len(faces) == 6
    assert faces.scores.min() > 0.7
