"""One contract for every detector, and the choice among them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import save

from pipeline.detect import FaceDetector, Faces
from pipeline.detect.registry import embedded_yunet, open_detector
from pipeline.errors import FaceModelError
from pipeline.frames import U8
from pipeline.sampleclip import picture
from tests.unit.test_insight import REAL, tiny_scrfd

ROOT = Path(__file__).resolve().parents[2]
Opener = Callable[[Path], FaceDetector]


def yunet(_: Path) -> FaceDetector:
    return open_detector("yunet")


def insightface_tiny(folder: Path) -> FaceDetector:
    save(tiny_scrfd(), folder / "tiny.onnx")
    return open_detector("insightface", folder / "tiny.onnx", accept_license=True)


def insightface_real(_: Path) -> FaceDetector:
    if not REAL[0].is_file():
        pytest.skip(f"{REAL[0].name} is not here")
    return open_detector("insightface", REAL[0], accept_license=True)


@pytest.fixture(params=[yunet, insightface_tiny, insightface_real], ids=lambda f: f.__name__)
def detector(request: pytest.FixtureRequest, tmp_path: Path) -> FaceDetector:
    opener: Opener = request.param
    return opener(tmp_path)


@pytest.fixture(params=[yunet, insightface_real], ids=lambda f: f.__name__)
def trained(request: pytest.FixtureRequest, tmp_path: Path) -> FaceDetector:
    opener: Opener = request.param
    return opener(tmp_path)


def group() -> U8:
    return picture(6)


def test_answers_one_well_formed_result_a_picture(detector: FaceDetector) -> None:
    sizes = [(1, 1), (1, 700), (700, 1), (37, 41), (480, 640), (33, 3000)]
    images = [np.full((*size, 3), 235, np.uint8) for size in sizes] + [group()]
    before = [image.copy() for image in images]
    found = detector.detect(images)
    assert len(found) == len(images)
    for faces in found:
        assert isinstance(faces, Faces)
        n = len(faces)
        assert faces.boxes.shape == (n, 4)
        assert faces.scores.shape == (n,)
        assert faces.landmarks.shape == (n, 5, 2)
        assert {faces.boxes.dtype, faces.scores.dtype, faces.landmarks.dtype} == {np.dtype(np.float32)}
        assert np.all(np.diff(faces.scores) <= 0)
        assert np.all((faces.scores >= 0) & (faces.scores <= 1))
        assert np.all(faces.boxes[:, 2:] > 0)
    assert all(np.array_equal(a, b) for a, b in zip(images, before, strict=True))


def test_same_picture_same_faces(detector: FaceDetector) -> None:
    first, again = detector.detect([group()])[0], detector.detect([group()])[0]
    assert np.array_equal(first.boxes, again.boxes)
    assert np.array_equal(first.landmarks, again.landmarks)


def test_finds_the_six_faces_with_landmarks_in_order(trained: FaceDetector) -> None:
    (faces,) = trained.detect([group()])
    assert len(faces) == 6
    left_eye, right_eye, nose, left_mouth, right_mouth = faces.landmarks.transpose(1, 0, 2)
    assert np.all(left_eye[:, 0] < right_eye[:, 0])
    assert np.all(left_mouth[:, 0] < right_mouth[:, 0])
    assert np.all(np.maximum(left_eye[:, 1], right_eye[:, 1]) < nose[:, 1])
    assert np.all(nose[:, 1] < np.minimum(left_mouth[:, 1], right_mouth[:, 1]))
    low, high = faces.boxes[:, None, :2], faces.boxes[:, None, :2] + faces.boxes[:, None, 2:]
    assert np.all((faces.landmarks > low) & (faces.landmarks < high))


def test_a_mirrored_picture_has_mirrored_faces(trained: FaceDetector) -> None:
    image = group()
    straight, mirrored = trained.detect([image, np.ascontiguousarray(image[:, ::-1])])
    assert len(mirrored) == 6
    eyes = np.sort(straight.landmarks[:, 0, 0])
    assert np.allclose(np.sort(image.shape[1] - mirrored.landmarks[:, 1, 0]), eyes, atol=15)


def test_the_detectors_agree(tmp_path: Path) -> None:
    ours, theirs = yunet(tmp_path).detect([group()])[0], insightface_real(tmp_path).detect([group()])[0]
    order, other = np.argsort(ours.boxes[:, 0]), np.argsort(theirs.boxes[:, 0])
    side = ours.boxes[order, 2, None, None]  # a swapped pair of eyes would be off by almost half of it
    assert np.all(np.abs(ours.landmarks[order] - theirs.landmarks[other]) < 0.25 * side)


def test_refuses_unknown_names_and_missing_models() -> None:
    with pytest.raises(FaceModelError, match="unknown face detector"):
        open_detector("hog")  # type: ignore[arg-type]
    with pytest.raises(FaceModelError, match="DETECTOR_FACE_MODEL"):
        open_detector("insightface", accept_license=True)
    with pytest.raises(FaceModelError, match="LICENSE"):
        open_detector("insightface", REAL[0])
    with pytest.raises(FaceModelError, match="no face detector at"):
        open_detector("yunet", embedded_yunet().with_name("missing.onnx"))


def test_the_default_detector_does_not_import_insightface() -> None:
    code = (
        "import sys; from pipeline.detect.registry import open_detector; open_detector('yunet'); "
        "sys.exit('insightface' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=False).returncode == 0
    )
