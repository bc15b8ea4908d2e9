"""The embedded detector against OpenCV's implementation of it, and its own promises."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, save

from pipeline.detect import Faces
from pipeline.detect.registry import embedded_yunet
from pipeline.detect.resize import pad, shrink
from pipeline.detect.yunet import OUTPUTS, STRIDES, YuNet, decode, padded_size, suppress
from pipeline.errors import FaceModelError
from pipeline.sampleclip import picture


@pytest.fixture(scope="module")
def detector() -> YuNet:
    return YuNet(embedded_yunet())


def from_the_left(faces: Faces) -> Faces:
    order = faces.boxes[:, 0].argsort()
    return Faces(faces.boxes[order], faces.scores[order], faces.landmarks[order])


def assert_same(a: Faces, b: Faces, pixels: float, score: float = 1e-3) -> None:
    assert len(a) == len(b)
    assert np.allclose(a.boxes, b.boxes, atol=pixels)
    assert np.allclose(a.landmarks, b.landmarks, atol=pixels)
    assert np.allclose(a.scores, b.scores, atol=score)


@pytest.mark.parametrize("number", [6, 1])
@pytest.mark.parametrize("longer_side", [2000, 512, 300])
def test_agrees_with_opencv(number: int, longer_side: int) -> None:
    # OpenCV reads the very file that we embed: the network is the same, decoding and padding are not.
    image = shrink(picture(number), longer_side)
    reference = cv2.FaceDetectorYN.create(str(embedded_yunet()), "", image.shape[1::-1], 0.6, 0.3, 5000)
    rows = np.asarray(reference.detect(image)[1], np.float32)
    expected = Faces(rows[:, :4], rows[:, 14], rows[:, 4:14].reshape(-1, 5, 2))
    assert len(expected) == number
    assert_same(YuNet(embedded_yunet(), longer_side=longer_side).detect([image])[0], expected, pixels=1)


def test_company_changes_nothing(detector: YuNet) -> None:
    group, portrait = picture(6), picture(1)
    images = [group, portrait, group[:, ::-1].copy(), np.zeros((90, 70, 3), np.uint8), portrait, group]
    together = detector.detect(images * 4)
    assert [len(f) for f in together] == [6, 1, 6, 0, 1, 6] * 4
    for image, found in zip(images, together, strict=False):
        assert_same(detector.detect([image])[0], found, pixels=1e-2)


def test_no_pictures_no_faces(detector: YuNet) -> None:
    assert detector.detect([]) == []


def test_boxes_are_in_pixels_of_the_picture_given(detector: YuNet) -> None:
    image = picture(6)
    large = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    (expected,) = detector.detect([image])
    (found,) = detector.detect([np.asarray(large, np.uint8)])
    # Scores that are as good as the same may come in another order.
    assert_same(from_the_left(found), from_the_left(expected.scaled(2, 2)), pixels=8, score=0.02)


def test_refuses_what_is_no_yunet(tmp_path: Path) -> None:
    with pytest.raises(FaceModelError, match="no face detector at"):
        YuNet(tmp_path / "missing.onnx")
    (tmp_path / "text.onnx").write_text("not a network")
    with pytest.raises(FaceModelError, match="can not be loaded"):
        YuNet(tmp_path / "text.onnx")
    value = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 32, 32])
    result = helper.make_tensor_value_info("cls_8", TensorProto.FLOAT, [1, 3, 32, 32])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["input"], ["cls_8"])], "other", [value], [result]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    save(model, tmp_path / "other.onnx")
    with pytest.raises(FaceModelError, match="not a YuNet: it has no output"):
        YuNet(tmp_path / "other.onnx")


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_refuses_to_fall_back_to_another_device() -> None:
    with pytest.raises(FaceModelError, match="was to run on CoreMLExecutionProvider"):
        YuNet(embedded_yunet(), providers=("CoreMLExecutionProvider", "CPUExecutionProvider"))


@given(stride=st.sampled_from(STRIDES), row=st.integers(0, 2), column=st.integers(0, 4))
def test_decodes_a_single_cell(stride: int, row: int, column: int) -> None:
    height, width = 96, 160
    row, column = row % (height // stride), column % (width // stride)
    outputs = {}
    for name in OUTPUTS:
        kind, s = name.split("_")
        channels = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}[kind]
        outputs[name] = np.zeros(((height // int(s)) * (width // int(s)), channels), np.float32)
    cell = row * (width // stride) + column
    outputs[f"cls_{stride}"][cell] = 0.9
    outputs[f"obj_{stride}"][cell] = 0.4
    outputs[f"bbox_{stride}"][cell] = [0.5, 0.25, np.log(2), np.log(3)]
    outputs[f"kps_{stride}"][cell] = np.arange(10)
    faces = decode(outputs, width, 0.5, 0.3)
    corner = np.array([column, row]) * stride
    assert faces.scores == pytest.approx([0.6])
    assert np.allclose(faces.boxes[0, :2], corner + np.array([0.5 - 1, 0.25 - 1.5]) * stride)
    assert np.allclose(faces.boxes[0, 2:], np.array([2, 3]) * stride)
    assert np.allclose(faces.landmarks[0], corner + np.arange(10).reshape(5, 2) * stride)
    assert len(decode(outputs, width, 0.61, 0.3)) == 0


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(5, 40)), max_size=12), st.data()
)
def test_suppression_leaves_no_two_boxes_of_one_face(
    places: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    scores = data.draw(st.lists(st.floats(0, 1, width=32), min_size=len(places), max_size=len(places)))
    boxes = np.array([[x, y, s, s] for x, y, s in places], np.float32).reshape(-1, 4)
    given_faces = Faces(boxes, np.array(scores, np.float32), np.zeros((len(places), 5, 2), np.float32))
    kept = suppress(given_faces, 0.3)
    assert list(kept.scores) == sorted(kept.scores, reverse=True)
    assert (len(kept) > 0) == (len(places) > 0)

    def overlap(a: np.ndarray, b: np.ndarray) -> float:
        sides = np.clip(np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
        shared = float(sides[0] * sides[1])
        return shared / float(a[2] * a[3] + b[2] * b[3] - shared)

    for i, a in enumerate(kept.boxes):
        assert all(overlap(a, b) <= 0.3 + 1e-6 for b in kept.boxes[:i])
    for box, score in zip(boxes, scores, strict=True):
        stronger = [b for b, s in zip(kept.boxes, kept.scores, strict=True) if s >= np.float32(score)]
        assert any(overlap(box, b) > 0.3 - 1e-6 for b in stronger)


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_padding_is_the_next_multiple(height: int, width: int) -> None:
    h, w = padded_size(height, width)
    assert h % 32 == 0
    assert w % 32 == 0
    assert 0 <= h - height < 32
    assert 0 <= w - width < 32


def test_shrinks_but_never_enlarges_and_pads_with_black() -> None:
    image = np.full((30, 80, 3), 200, np.uint8)
    assert shrink(image, 40).shape == (15, 40, 3)
    assert shrink(image, 80) is image
    assert shrink(np.zeros((1, 5000, 3), np.uint8), 512).shape == (1, 512, 3)
    padded = pad(image, 32, 96)
    assert padded.shape == (32, 96, 3)
    assert np.array_equal(padded[:30, :80], image)
    assert not padded[30:].any()
    assert not padded[:, 80:].any()
    assert pad(image, 30, 80) is image
