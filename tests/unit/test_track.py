"""Tracks keep their identity under smooth motion, end at cuts and never share a number."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.detect import Faces
from pipeline.frames import F32, U8
from pipeline.track import Tracker, generalised_iou, interpolate, iou, is_cut

boxes = st.tuples(
    st.floats(-500, 500, width=32),
    st.floats(-500, 500, width=32),
    st.floats(1, 500, width=32),
    st.floats(1, 500, width=32),
).map(lambda b: np.array(b, np.float32))


def faces(*rows: list[float] | F32) -> Faces:
    n = len(rows)
    return Faces(
        np.array(rows, np.float32).reshape(n, 4), np.ones(n, np.float32), np.zeros((n, 5, 2), np.float32)
    )


def scene(seed: int) -> U8:
    """A thumbnail of 18 x 32 pixels with its own layout and palette, from dark (0) to light (9)."""
    rng = np.random.default_rng(seed)
    blocks = 20 * (seed % 10) + rng.integers(0, 70, (6, 8, 3))
    return np.kron(blocks, np.ones((3, 4, 1))).astype(np.uint8)


@given(boxes, boxes)
def test_overlap_is_symmetric_and_bounded(a: F32, b: F32) -> None:
    assert iou(a, b) == pytest.approx(iou(b, a), abs=1e-6)
    assert 0 <= iou(a, b) <= 1 + 1e-5
    assert -1 <= generalised_iou(a, b) <= iou(a, b) + 1e-5
    assert iou(a, a) == pytest.approx(1, abs=1e-5)


def test_overlap_of_known_boxes() -> None:
    a = np.array([0, 0, 10, 10], np.float32)
    assert iou(a, np.array([5, 0, 10, 10], np.float32)) == pytest.approx(1 / 3)
    assert iou(a, np.array([20, 0, 10, 10], np.float32)) == 0
    assert generalised_iou(a, np.array([20, 0, 10, 10], np.float32)) == pytest.approx(-1 / 3)
    assert iou(a * 0, a * 0) == 0


@given(
    speed=st.tuples(st.floats(-0.9, 0.9), st.floats(-0.9, 0.9)),
    growth=st.floats(0.7, 1.4),
    step=st.sampled_from([1 / 30, 0.25, 0.5]),
    side=st.floats(20, 400),
)
def test_smooth_motion_keeps_identity(
    speed: tuple[float, float], growth: float, step: float, side: float
) -> None:
    tracker = Tracker()
    for i in range(12):
        t = i * step
        size = side * growth**t
        x, y = speed[0] * t * side, speed[1] * t * side
        assert tracker.update(t, faces([x - size / 2, y - size / 2, size, size])) == [0]


@given(step=st.sampled_from([0.04, 0.1, 0.25]), lift=st.floats(0, 30))
def test_crossing_faces_keep_their_identity(step: float, lift: float) -> None:
    tracker = Tracker()
    for i in range(round(4 / step)):
        t = i * step
        left, right = [t * 150, 0, 100, 100], [503 - t * 150, lift, 100, 100]
        assert tracker.update(t, faces(left, right)) == [0, 1]


@given(st.data())
def test_order_of_detections_changes_nothing(data: st.DataObject) -> None:
    one, other = Tracker(), Tracker()
    for i in range(4):
        rows = data.draw(st.lists(boxes, max_size=6, unique_by=tuple))
        order = data.draw(st.permutations(range(len(rows))))
        straight = one.update(i * 0.25, faces(*rows))
        shuffled = other.update(i * 0.25, faces(*[rows[k] for k in order]))
        assert shuffled == [straight[k] for k in order]


@given(st.lists(st.tuples(st.booleans(), st.floats(0.01, 3), st.lists(boxes, max_size=4)), max_size=8))
def test_numbers_are_unique_and_a_cut_gives_new_ones(events: list[tuple[bool, float, list[F32]]]) -> None:
    tracker, now, before = Tracker(), 0.0, set[int]()
    for cut, passed, rows in events:
        now += passed
        if cut:
            tracker.cut()
        numbers = tracker.update(now, faces(*rows))
        assert len(set(numbers)) == len(rows)
        if cut or passed > tracker.max_gap_s:
            assert not before & set(numbers)
        before |= set(numbers)
        assert before == set(range(len(before)))


def test_bridges_a_gap_only_for_a_while() -> None:
    tracker = Tracker(max_gap_s=1.0)
    box = [10.0, 10.0, 50.0, 50.0]
    assert tracker.update(0, faces(box)) == [0]
    assert tracker.update(0.5, faces()) == []
    assert tracker.update(0.9, faces(box)) == [0]
    assert tracker.update(2.0, faces(box)) == [1]


def test_a_face_elsewhere_is_another_face() -> None:
    tracker = Tracker()
    assert tracker.update(0, faces([0, 0, 50, 50])) == [0]
    assert tracker.update(0.04, faces([100, 0, 50, 50], [2, 0, 50, 50])) == [1, 0]


def test_two_faces_of_one_instant_are_two_tracks() -> None:
    tracker = Tracker()
    assert sorted(tracker.update(1.0, faces([0, 0, 50, 50], [0, 0, 50, 50]))) == [0, 1]
    assert sorted(tracker.update(1.0, faces([0, 0, 50, 50], [1, 0, 50, 50]))) == [0, 1]


def test_another_scene_is_a_cut() -> None:
    assert is_cut(scene(1), scene(6))
    assert is_cut(scene(6)[..., 0], scene(1)[..., 0])
    assert is_cut(scene(6), np.zeros_like(scene(6)))


@given(seed=st.integers(0, 50), noise=st.integers(0, 6))
def test_noise_is_no_cut(seed: int, noise: int) -> None:
    a = scene(seed).astype(int)
    b = a + np.random.default_rng(seed).integers(-noise, noise + 1, a.shape)
    assert not is_cut(a.astype(np.uint8), np.clip(b, 0, 255).astype(np.uint8))


def test_a_flash_and_a_fade_are_no_cut() -> None:
    a = scene(5).astype(float)
    assert not is_cut(scene(5), np.clip(a + 60, 0, 255).astype(np.uint8))
    assert not is_cut(scene(5), (a * 0.3).astype(np.uint8))


def test_a_dark_picture_that_glimmers_is_no_cut() -> None:
    assert not is_cut(np.full((18, 32, 3), 14, np.uint8), np.full((18, 32, 3), 18, np.uint8))


def test_a_moving_camera_is_no_cut() -> None:
    panned = np.roll(scene(5), 8, axis=1)
    panned[:, :8] = scene(15)[:, :8]
    assert not is_cut(scene(5), panned)
    assert not is_cut(scene(5)[..., 0], panned[..., 0])


def test_interpolates_between_and_holds_beyond() -> None:
    times = np.array([1.0, 2.0, 4.0])
    values = np.arange(30, dtype=np.float32).reshape(3, 5, 2)
    assert np.allclose(interpolate(times, values, 3.0), values[1:].mean(axis=0))
    assert np.array_equal(interpolate(times, values, 0.0), values[0])
    assert np.array_equal(interpolate(times, values, 9.0), values[2])
    assert np.array_equal(interpolate(times[:1], values[:1], 5.0), values[0])
    for t, v in zip(times, values, strict=True):
        assert np.array_equal(interpolate(times, values, t), v)
    assert interpolate(times, values, 1.5).shape == (5, 2)
