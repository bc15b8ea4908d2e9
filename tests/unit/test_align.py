"""The aligned crop: its transform against other implementations, its filter against aliasing."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from insightface.utils.face_align import estimate_norm
from skimage.transform import SimilarityTransform

from pipeline.align import TEMPLATE, align, similarity, transform, warp
from pipeline.frames import F32, U8, Frame

points = st.lists(
    st.tuples(st.floats(-1000, 1000, width=32), st.floats(-1000, 1000, width=32)), min_size=5, max_size=5
).map(lambda p: np.array(p, np.float32))


def pose(x: float = 0, y: float = 0, scale: float = 1, degrees: float = 0) -> F32:
    """The template's five points, turned about the crop's middle, scaled and moved."""
    a = np.radians(degrees)
    turn = scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    return ((TEMPLATE - 56) @ turn.T + 56 * scale + [x, y]).astype(np.float32)


def gray(luma: U8, u: int = 128, v: int = 128) -> Frame:
    half = ((luma.shape[0] + 1) // 2, (luma.shape[1] + 1) // 2)
    return Frame(luma, np.full(half, u, np.uint8), np.full(half, v, np.uint8), 0.0, 0)


def texture(height: int, width: int) -> U8:
    """A smooth random picture in limited range."""
    noise = np.random.default_rng(7).uniform(16, 235, (height // 8, width // 8)).astype(np.float32)
    return np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


@given(
    source=points,
    angle=st.floats(-180, 180),
    scale=st.floats(0.05, 20),
    noise=st.lists(st.floats(-3, 3), min_size=10, max_size=10),
)
def test_similarity_is_umeyama(source: F32, angle: float, scale: float, noise: list[float]) -> None:
    if np.ptp(source, axis=0).min() < 10:
        return
    a = np.radians(angle)
    turn = scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    target = (source @ turn.T + np.array(noise).reshape(5, 2)).astype(np.float32)
    expected = SimilarityTransform.from_estimate(source, target).params[:2]
    # Umeyama's rotation can not be told where the fit is degenerate.
    if np.hypot(expected[0, 0], expected[1, 0]) < 0.02:
        return
    found = similarity(source, target)
    # Compared where the points are: far from the origin a turn and a shift undo each other.
    moved, reference = (source @ m[:, :2].T + m[:, 2] for m in (found, expected))
    assert np.allclose(moved, reference, atol=0.02 * max(1.0, scale))


@pytest.mark.filterwarnings("ignore:`estimate` is deprecated")
@pytest.mark.parametrize("side", [112, 224])
def test_plain_template_is_insightfaces(side: int) -> None:
    landmarks = pose(300, 200, 1.7, 20) + np.random.default_rng(0).normal(0, 4, (5, 2)).astype(np.float32)
    assert np.allclose(transform(landmarks, side, 1.0), estimate_norm(landmarks, side), atol=1e-3)


@given(
    margin=st.floats(0.5, 2), side=st.integers(16, 512), scale=st.floats(0.3, 8), degrees=st.floats(-180, 180)
)
def test_margin_widens_about_the_centre(margin: float, side: int, scale: float, degrees: float) -> None:
    landmarks = pose(40, 90, scale, degrees)
    plain, widened = transform(landmarks, side, 1.0), transform(landmarks, side, margin)
    assert np.allclose(widened[:, :2] * margin, plain[:, :2], atol=1e-3)
    centre = np.linalg.solve(plain[:, :2].astype(np.float64), side / 2 - plain[:, 2])
    assert np.allclose(widened[:, :2] @ centre + widened[:, 2], side / 2, atol=1e-2)


def test_coinciding_landmarks_have_no_transform() -> None:
    with pytest.raises(ValueError, match="coincide"):
        transform(np.full((5, 2), 7, np.float32), 112, 1.3)


def test_an_unmoved_face_is_copied() -> None:
    luma = texture(112, 112)
    crop = align(gray(luma), pose(), 112, 1.0, "yuv")
    assert np.array_equal(crop[..., 0], luma)
    moved = align(gray(np.pad(luma, ((13, 0), (21, 0)))), pose(21, 13), 112, 1.0, "yuv")
    assert np.array_equal(moved[..., 0], luma)


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_shrinking_by_a_whole_number_takes_the_mean(factor: int) -> None:
    luma = texture(112 * factor, 112 * factor)
    shift = (factor - 1) / 2  # pixel centres: pixel 0 of the crop is the mean of pixels 0 to factor - 1
    crop = warp(luma, transform(pose(shift, shift, factor), 112, 1.0), 112)
    mean = luma.reshape(112, factor, 112, factor).mean(axis=(1, 3))
    assert np.abs(crop - mean)[1:-1, 1:-1].max() <= 3


@pytest.mark.parametrize("scale", [1.5, 2.0, 2.6, 3.7, 6.1])
@pytest.mark.parametrize("degrees", [0, 11, 45])
def test_a_checkerboard_shrinks_to_gray(scale: float, degrees: float) -> None:
    extent = int(112 * scale * 1.6)
    board = (np.indices((extent, extent)).sum(axis=0) % 2 * 255).astype(np.uint8)
    landmarks = pose(30 * scale, 30 * scale, scale, degrees)
    crop = warp(board, transform(landmarks, 112, 1.0), 112).astype(int)
    plain = cv2.warpAffine(board, transform(landmarks, 112, 1.0), (112, 112)).astype(int)
    assert np.abs(crop - 127).max() < 40
    assert crop.std() <= max(1.0, 0.35 * plain.std())


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.3])
def test_chroma_lies_where_luma_does(scale: float) -> None:
    small = texture(200, 240)
    frame = Frame(np.asarray(cv2.resize(small, (480, 400)), np.uint8), small, small, 0.0, 0)
    crop = align(frame, pose(60, 40, scale, 9), 112, 1.0, "yuv").astype(int)
    assert np.abs(crop[..., 0] - crop[..., 1]).mean() < 1.5
    assert np.array_equal(crop[..., 1], crop[..., 2])


def test_colours_are_red_green_blue() -> None:
    red = gray(np.full((200, 200), 81, np.uint8), 90, 240)
    crop = align(red, pose(20, 20), 64, 1.3, "rgb")
    assert crop.shape == (64, 64, 3)
    assert np.abs(crop.astype(int) - [254, 0, 0]).max() <= 2


def test_outside_of_the_picture_its_border_is_repeated() -> None:
    luma = texture(112, 112)
    crop = align(gray(luma), pose(-30, 0), 112, 1.0, "yuv")[..., 0]
    assert np.array_equal(crop[:, 30:], luma[:, :82])
    assert np.array_equal(crop[:, :30], np.repeat(luma[:, :1], 30, axis=1))


@settings(max_examples=50)
@given(landmarks=points, side=st.sampled_from([16, 64]), margin=st.floats(0.5, 2))
def test_any_landmarks_give_a_crop(landmarks: F32, side: int, margin: float) -> None:
    if np.ptp(landmarks, axis=0).max() < 1e-2:
        return
    frame = gray(texture(48, 64))
    crop = align(frame, landmarks, side, margin, "rgb")
    assert crop.shape == (side, side, 3)
    assert crop.dtype == np.uint8
    assert np.array_equal(crop, align(frame, landmarks, side, margin, "rgb"))
