"""Quality is measured in the pixels of the clip, and ordinary faces draw no remark."""

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.detect.registry import open_detector
from pipeline.frames import F32, U8, Frame
from pipeline.prepared import Quality
from pipeline.quality import UNUSABLE, measure, median_quality, remarks, yaw
from pipeline.sampleclip import picture
from pipeline.spec import CropSpec

ORDINARY = Quality(size_px=150, sharpness=120, brightness=0.45, yaw=0.1, detection=0.9)
ALIGNED = CropSpec(kind="aligned", side=112, margin=1.3)

ROOT = Path(__file__).resolve().parents[2]
PHOTOGRAPHS = Path(os.environ.get("DEEPFAKE_CORPUS", ROOT.parent / "shared")) / "corpus" / "photographs"


def frame_of(bgr: U8) -> Frame:
    height, width = bgr.shape[0] // 2 * 2, bgr.shape[1] // 2 * 2
    planes = np.asarray(cv2.cvtColor(bgr[:height, :width], cv2.COLOR_BGR2YUV_I420), np.uint8)
    quarter = height * width // 4
    flat = planes.ravel()
    u, v = flat[4 * quarter : 5 * quarter], flat[5 * quarter :]
    half = (height // 2, width // 2)
    return Frame(planes[:height], u.reshape(half), v.reshape(half), 0.0, 0)


def qualities(bgr: U8) -> list[Quality]:
    (faces,) = open_detector("yunet").detect([bgr])
    found = zip(faces.boxes, faces.landmarks, faces.scores, strict=True)
    return [measure(frame_of(bgr), box, points, float(score)) for box, points, score in found]


def group() -> U8:
    return picture(6)


def test_ordinary_faces_draw_no_remark() -> None:
    found = qualities(group())
    assert len(found) == 6
    assert [remarks(q, ALIGNED) for q in found] == [[]] * 6
    assert all(90 < q.size_px < 140 and 0.2 < q.brightness < 0.8 and q.detection > 0.8 for q in found)


def test_blur_and_dark_are_noticed() -> None:
    image = group()
    blurred = np.asarray(cv2.GaussianBlur(image, (0, 0), 8), np.uint8)
    dark = (image * 0.08).astype(np.uint8)
    (faces,) = open_detector("yunet").detect([image])
    for box, points in zip(faces.boxes, faces.landmarks, strict=True):
        assert "too_blurred" in remarks(measure(frame_of(blurred), box, points, 0.9))
        assert "too_dark" in remarks(measure(frame_of(dark), box, points, 0.9))


def test_sharpness_falls_with_blur_and_depends_little_on_size() -> None:
    (face, *_) = qualities(group())
    larger = np.asarray(cv2.resize(group(), None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC), np.uint8)
    (twice, *_) = qualities(larger)
    assert twice.size_px == pytest.approx(2 * face.size_px, rel=0.05)
    assert twice.sharpness == pytest.approx(face.sharpness, rel=0.5)
    assert twice.brightness == pytest.approx(face.brightness, abs=0.02)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"size_px": 31.0}, "face_too_small"),
        ({"sharpness": 4.9}, "too_blurred"),
        ({"brightness": 0.07}, "too_dark"),
        ({"yaw": 0.95}, "profile"),
        ({"quantiser": 32.1}, "heavily_compressed"),
    ],
)
def test_each_fault_has_its_code(change: dict[str, float], code: str) -> None:
    assert remarks(ORDINARY) == []
    assert remarks(replace(ORDINARY, **change)) == [code]
    assert (code in UNUSABLE) == (code not in {"profile", "heavily_compressed"})


def test_a_quantiser_that_is_fine_or_not_known_draws_no_remark() -> None:
    assert ORDINARY.quantiser is None
    for quantiser in (None, 0.0, 32.0):
        assert remarks(replace(ORDINARY, quantiser=quantiser)) == []


def test_a_crop_larger_than_its_face_is_remarked() -> None:
    # At margin 1 a face box of 93 pixels fills the plain template of 112.
    plain = CropSpec(kind="aligned", side=112, margin=1.0)
    assert remarks(replace(ORDINARY, size_px=92), plain) == ["upscaled"]
    assert remarks(replace(ORDINARY, size_px=94), plain) == []
    assert remarks(replace(ORDINARY, size_px=75), ALIGNED) == []
    assert remarks(replace(ORDINARY, size_px=60), ALIGNED) == ["upscaled"]
    assert remarks(replace(ORDINARY, size_px=60), CropSpec(kind="native", side=112)) == []


@given(
    turn=st.floats(-0.95, 0.95),
    degrees=st.floats(-180, 180),
    scale=st.floats(0.5, 50),
    shift=st.tuples(st.floats(-500, 500), st.floats(-500, 500)),
)
def test_yaw_is_the_nose_between_the_eyes(
    turn: float, degrees: float, scale: float, shift: tuple[float, float]
) -> None:
    points = np.array([[-1, 0], [1, 0], [turn, 0.8], [-0.7, 1.5], [0.7, 1.5]])
    a = np.radians(degrees)
    rotation = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
    placed = (scale * points @ rotation + shift).astype(np.float32)
    assert yaw(placed) == pytest.approx(abs(turn), abs=2e-3)


def test_yaw_ends_at_one() -> None:
    points = np.array([[0, 0], [10, 0], [40, 8], [0, 15], [10, 15]], np.float32)
    assert yaw(points) == 1
    assert yaw(np.zeros((5, 2), np.float32)) == 1


@given(st.tuples(*[st.floats(-400, 400, width=32)] * 2, *[st.floats(0, 900, width=32)] * 2))
def test_any_box_can_be_measured(box: tuple[float, ...]) -> None:
    frame = frame_of(np.full((90, 120, 3), 100, np.uint8))
    quality = measure(frame, np.array(box, np.float32), np.zeros((5, 2), np.float32), 0.5)
    assert quality.sharpness == 0
    assert quality.brightness == pytest.approx(100 / 255, abs=0.02)
    assert quality.size_px == pytest.approx(float(np.sqrt(box[2] * box[3])), rel=1e-3)


@given(st.lists(st.floats(1, 500), min_size=1, max_size=9))
def test_the_median_stands_for_the_track(sizes: list[float]) -> None:
    found = median_quality([replace(ORDINARY, size_px=s) for s in sizes])
    assert found == replace(ORDINARY, size_px=float(np.median(sizes)))


def test_the_median_quantiser_is_that_of_the_pictures_that_tell_it() -> None:
    told = [replace(ORDINARY, quantiser=q) for q in (None, 0.0, 26.0, None, 20.0)]
    assert median_quality(told).quantiser == 20
    assert median_quality([ORDINARY] * 3).quantiser is None


def test_photographs_of_people_are_usable() -> None:
    files = sorted(PHOTOGRAPHS.glob("*.jpg"))[::12]
    if not files:
        pytest.skip("the training corpus is not here")
    unusable = 0
    for file in files:
        found = qualities(np.asarray(cv2.imread(str(file)), np.uint8))
        largest = max(found, key=lambda q: q.size_px, default=None)
        unusable += largest is None or bool(set(remarks(largest)) & set(UNUSABLE))
    assert unusable <= 0.04 * len(files)


def box_of(x: float, y: float, w: float, h: float) -> F32:
    return np.array([x, y, w, h], np.float32)


def test_only_the_inside_of_the_box_counts() -> None:
    picture = np.zeros((120, 160, 3), np.uint8)
    picture[30:90, 40:120] = 255
    inside = measure(frame_of(picture), box_of(40, 30, 80, 60), np.zeros((5, 2), np.float32), 0.5)
    assert inside.brightness == pytest.approx(1.0, abs=0.01)
    assert inside.sharpness == 0
