"""Turns that set pictures upright."""

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.planes import Turn, turn_of
from tests.media import pattern, still

TURNS = [Turn(t, x, y) for t in (False, True) for x in (False, True) for y in (False, True)]


@given(st.sampled_from(TURNS), st.integers(1, 9), st.integers(1, 9))
def test_a_turn_moves_samples_and_changes_none(turn, height, width):
    plane = np.arange(height * width, dtype=np.uint8).reshape(height, width)
    turned = turn.apply(plane)
    assert turned.shape == ((width, height) if turn.transpose else (height, width))
    assert sorted(turned.ravel()) == sorted(plane.ravel())
    assert turned.flags.c_contiguous


@given(st.sampled_from(TURNS), st.integers(1, 1 << 16), st.integers(2, 9), st.integers(2, 9))
def test_a_display_matrix_takes_each_sample_to_its_place(turn, scale, height, width):
    """The definition itself: x' = a x + c y, y' = b x + d y, shifted to begin at 0."""
    sx, sy = (-scale if m else scale for m in (turn.mirror_x, turn.mirror_y))
    a, b, c, d = (0, sy, sx, 0) if turn.transpose else (sx, 0, 0, sy)
    assert Turn.of_matrix(a, b, c, d) == turn
    plane = np.arange(height * width, dtype=np.uint8).reshape(height, width)
    y, x = np.indices(plane.shape)
    to_x, to_y = np.sign(a * x + c * y) * np.abs(a * x + c * y) // scale, (b * x + d * y) // scale
    placed = np.zeros((np.ptp(to_y) + 1, np.ptp(to_x) + 1), np.uint8)
    placed[to_y - to_y.min(), to_x - to_x.min()] = plane
    assert np.array_equal(turn.apply(plane), placed)


@pytest.mark.parametrize("orientation", [0, 1, 9, -3])
def test_orientations_outside_of_the_standard_turn_nothing(orientation):
    assert Turn.of_exif(orientation) == Turn()


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_angle_is_read_where_side_data_of_a_new_kind_hides_the_matrix(tmp_path, orientation):
    with av.open(str(still(tmp_path / "a.jpg", pattern(1)[0], orientation))) as container:
        assert turn_of(next(container.decode(video=0))) == Turn.of_exif(orientation)
