"""Overlays show what the model saw where it saw it, and what a map says of it."""

import base64

import cv2
import numpy as np
import pytest

from pipeline.overlay import LONGEST_PX, MOST_OPAQUE, UNSEEN, picture
from pipeline.spec import CropSpec

NATIVE = CropSpec(kind="native", side=16, frames=2, colour="yuv", margin=1.0, grid=2)


def box(*values):
    return np.array(values, np.float32)


def decoded(uri):
    content = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).astype(int)


def windows(*luma):
    """One even window of each luma."""
    return np.stack([np.full((16, 16, 3), v, np.uint8) for v in luma])


def test_windows_lie_where_they_were_cut():
    made = picture(windows(16, 125, 180, 235), box(100, 60, 40, 40), 640, 480, NATIVE)
    np.testing.assert_array_equal(made.region, [100, 60, 40, 40])
    assert made.luma.shape == (40, 40)
    assert [int(made.luma[y, x]) for y, x in ((0, 0), (0, 39), (39, 0), (39, 39))] == [0, 127, 191, 255]
    assert (made.luma[20, 20], made.seen[20, 20]) == (UNSEEN, False)
    assert made.seen.sum() == 4 * 16 * 16


def test_windows_of_a_small_face_overlap():
    made = picture(windows(50, 60, 70, 235), box(100, 60, 20, 20), 640, 480, NATIVE)
    np.testing.assert_array_equal(made.region, [100, 60, 20, 20])
    assert made.seen.all()
    assert made.luma[-1, -1] == 255


def test_a_large_face_is_made_small():
    made = picture(windows(16, 125, 180, 235), box(0, 0, 1000, 1000), 4000, 4000, NATIVE)
    assert made.region[2] == 1000
    assert made.luma.shape == (LONGEST_PX, LONGEST_PX)
    assert made.luma[-1, -1] == 255


@pytest.mark.parametrize("given", [(-1e7, 1e7, 1e7, 0), (5, 5, -9, -9), (0, 0, 1e7, 1e7)])
def test_a_box_that_no_detector_gives_is_drawn_all_the_same(given):
    """Clients that cut faces themselves state boxes."""
    aligned = CropSpec(kind="aligned", side=16)
    for crop, samples in ((NATIVE, windows(1, 2, 3, 4)), (aligned, windows(1))):
        made = picture(samples, box(*given), 10**7, 3, crop)
        assert max(made.luma.shape) <= LONGEST_PX
        assert np.isfinite(made.region).all()
        assert decoded(made.overlaid(np.ones((2, 2), np.float32), 1.0)).ndim == 3


def test_an_aligned_crop_is_shown_whole():
    samples = np.zeros((1, 16, 16, 3), np.uint8)
    samples[0, :8] = (255, 0, 0)
    made = picture(samples, box(100, 100, 83, 83), 640, 480, CropSpec(kind="aligned", side=16, margin=1.5))
    np.testing.assert_allclose(made.region, [66.5, 66.5, 150, 150], atol=1e-3)
    assert made.seen.all()
    assert (made.luma[0, 0], made.luma[-1, -1]) == (76, 0)


def test_colour_tells_the_sign_and_opacity_how_much():
    made = picture(windows(125, 125, 125, 125), box(0, 0, 32, 32), 640, 480, NATIVE)
    grid = np.array([[0.4, 0.2], [0.0, -0.4]], np.float32)
    shown = decoded(made.overlaid(grid, 0.4))
    strong, weak, nothing, against = (shown[y, x] for y, x in ((0, 0), (0, 31), (31, 0), (31, 31)))
    np.testing.assert_array_equal(nothing, [127] * 3)
    # Red of what speaks for fake, blue of what speaks against it; BGR.
    assert strong[2] > nothing[2] > strong[0]
    assert against[0] > nothing[0] > against[2]
    np.testing.assert_allclose(strong - nothing, 2 * (weak - nothing), atol=1)
    np.testing.assert_allclose(strong, 127 * (1 - MOST_OPAQUE) + MOST_OPAQUE * np.array([0, 94, 213]), atol=1)


def test_a_weak_map_looks_weak():
    made = picture(windows(125, 125, 125, 125), box(0, 0, 32, 32), 640, 480, NATIVE)
    grid = np.full((2, 2), 0.01, np.float32)
    assert np.abs(decoded(made.overlaid(grid, 0.01)) - 127).max() < 12


def test_what_the_model_did_not_see_is_not_coloured():
    made = picture(windows(16, 125, 180, 235), box(100, 60, 40, 40), 640, 480, NATIVE)
    shown = decoded(made.overlaid(np.ones((2, 2), np.float32), 1.0))
    np.testing.assert_array_equal(shown[20, 20], [UNSEEN] * 3)
