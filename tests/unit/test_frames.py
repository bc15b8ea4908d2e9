"""Planes, windows and colours of decoded frames."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.frames import Frame, yuv_to_bgr

LIMITED_BT601 = {  # ITU-R BT.601 in 8 bit, limited range
    (16, 128, 128): (0, 0, 0),
    (235, 128, 128): (255, 255, 255),
    (81, 90, 240): (0, 0, 255),
    (145, 54, 34): (0, 255, 0),
    (41, 240, 110): (255, 0, 0),
}


def frame(height: int, width: int, seed: int = 0) -> Frame:
    rng = np.random.default_rng(seed)
    half = ((height + 1) // 2, (width + 1) // 2)
    y, u, v = (rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((height, width), half, half))
    return Frame(y, u, v, 0.0, 0)


@pytest.mark.parametrize(("yuv", "bgr"), LIMITED_BT601.items())
def test_colours_are_those_of_the_standard(yuv, bgr):
    assert yuv_to_bgr(np.array([[yuv]], np.uint8))[0, 0].tolist() == pytest.approx(bgr, abs=2)


@given(st.data(), st.integers(1, 40), st.integers(1, 40))
def test_a_window_is_the_planes_untouched(data, height, width):
    f = frame(height, width)
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    w, h = data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y))
    window = f.yuv(x, y, w, h)
    assert window.shape == (h, w, 3)
    assert (window[..., 0] == f.y[y : y + h, x : x + w]).all()
    for row in range(h):
        for column in range(w):
            at = (y + row) // 2, (x + column) // 2
            assert window[row, column, 1] == f.u[at]
            assert window[row, column, 2] == f.v[at]


@pytest.mark.parametrize("box", [(-1, 0, 4, 4), (0, -1, 4, 4), (7, 0, 4, 4), (0, 5, 4, 4)])
def test_a_window_that_leaves_the_picture_is_refused(box):
    with pytest.raises(ValueError, match="leaves the 10x8 picture"):
        frame(8, 10).yuv(*box)


def test_a_picture_shrinks_by_area():
    f = frame(8, 12)
    small = f.bgr(width=6, height=4)
    y = cv2.resize(f.y, (6, 4), interpolation=cv2.INTER_AREA)
    assert (small == yuv_to_bgr(np.stack([y, f.u, f.v], -1))).all()


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 9), (1, 1)])
def test_the_whole_picture_has_its_size(height, width):
    f = frame(height, width)
    assert (f.height, f.width) == (height, width)
    assert f.bgr().shape == (height, width, 3)


def by_the_formula(yuv):
    """The conversion as it is written down, term by term in single precision."""
    y = (yuv[..., 0].astype(np.float32) - 16.0) * 1.164383
    u = yuv[..., 1].astype(np.float32) - 128.0
    v = yuv[..., 2].astype(np.float32) - 128.0
    bgr = np.stack([y + 2.017232 * u, y - 0.391762 * u - 0.812968 * v, y + 1.596027 * v], axis=-1)
    return np.clip(np.rint(bgr), 0, 255).astype(np.uint8)


def test_every_colour_there_is_becomes_what_the_formula_says():
    """Models were trained on these bytes, so the fast way to them may not change one."""
    u, v = np.mgrid[:256, :256].astype(np.uint8)
    for y in range(256):
        yuv = np.stack([np.full_like(u, y), u, v], axis=-1)
        assert np.array_equal(yuv_to_bgr(yuv), by_the_formula(yuv))


@pytest.mark.parametrize("shape", [(3,), (1, 3), (2, 5, 3), (2, 3, 4, 3)])
def test_colours_are_converted_in_any_shape(shape):
    yuv = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(yuv_to_bgr(yuv), by_the_formula(yuv))
    assert np.array_equal(yuv_to_bgr(yuv[..., ::-1]), by_the_formula(yuv[..., ::-1]))
