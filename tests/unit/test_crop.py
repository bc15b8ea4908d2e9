"""Native windows are untouched pixels at stated places; aligned bursts give a crop a frame."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.align import align
from pipeline.crop import cut, window_places
from pipeline.frames import F32, Burst, Frame, yuv_to_bgr
from pipeline.spec import CropSpec

sizes = st.tuples(st.integers(16, 300), st.integers(16, 300))
grids = st.integers(1, 4)


def noise(frames: int, height: int, width: int) -> Burst:
    rng = np.random.default_rng(height * 1000 + width)
    half = ((height + 1) // 2, (width + 1) // 2)

    def plane(shape: tuple[int, int]) -> np.ndarray:
        return rng.integers(0, 256, shape, dtype=np.uint8)

    return [Frame(plane((height, width)), plane(half), plane(half), i / 25, i) for i in range(frames)]


def still(box: tuple[float, ...], frames: int) -> F32:
    return np.tile(np.array(box, np.float32), (frames, 1))


def points(boxes: F32) -> F32:
    """Five landmarks at their usual places in each box."""
    where = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]], np.float32)
    return boxes[:, None, :2] + boxes[:, None, 2:] * where


def native(
    side: int = 32, grid: int = 1, frames: int = 4, margin: float = 0.8, colour: str = "yuv"
) -> CropSpec:
    return CropSpec.model_validate(
        {"kind": "native", "side": side, "grid": grid, "frames": frames, "margin": margin, "colour": colour}
    )


def a_box(data: st.DataObject, height: int, width: int) -> tuple[float, ...]:
    x, y = data.draw(st.floats(-50, width + 50)), data.draw(st.floats(-50, height + 50))
    return x, y, data.draw(st.floats(1, 400)), data.draw(st.floats(1, 400))


@given(size=sizes, grid=grids, side=st.sampled_from([16, 32, 64]), data=st.data())
def test_windows_hold_the_bytes_of_their_places(
    size: tuple[int, int], grid: int, side: int, data: st.DataObject
) -> None:
    height, width = size
    assume(min(size) >= side)
    burst, boxes = noise(3, height, width), still(a_box(data, height, width), 3)
    spec = native(side, grid, 3)
    samples = cut(burst, boxes, points(boxes), spec)
    places = window_places(boxes[0], width, height, spec)
    assert samples.shape == (grid * grid, 3, side, side, 3)
    assert samples.dtype == np.uint8
    for sample, (x, y) in zip(samples, places, strict=True):
        assert 0 <= x <= width - side
        assert 0 <= y <= height - side
        assert x % 2 == y % 2 == 0
        for window, frame in zip(sample, burst, strict=True):
            assert np.array_equal(window[..., 0], frame.y[y : y + side, x : x + side])
            u = frame.u[y // 2 : (y + side) // 2, x // 2 : (x + side) // 2]
            v = frame.v[y // 2 : (y + side) // 2, x // 2 : (x + side) // 2]
            assert np.array_equal(window[::2, ::2, 1], u)
            assert np.array_equal(window[1::2, 1::2, 2], v)


@given(size=sizes, grid=grids, data=st.data())
def test_same_input_same_samples(size: tuple[int, int], grid: int, data: st.DataObject) -> None:
    burst, boxes = noise(2, *size), still(a_box(data, *size), 2)
    spec = native(32, grid, 2)
    before = [f.y.copy() for f in burst]
    assert np.array_equal(cut(burst, boxes, points(boxes), spec), cut(burst, boxes, points(boxes), spec))
    assert all(np.array_equal(f.y, y) for f, y in zip(burst, before, strict=True))


@given(grid=grids, side=st.sampled_from([16, 32, 64]), face=st.floats(20, 600), margin=st.floats(0.5, 2))
def test_windows_spread_over_the_middle_of_the_face(grid: int, side: int, face: float, margin: float) -> None:
    box = np.array([1000, 700, face, face * 1.3], np.float32)
    places = window_places(box, 4000, 3000, native(side, grid, margin=margin))
    centre = box[:2] + box[2:] / 2
    region = max(face * margin, side)
    middle = places + side / 2
    assert np.abs(middle.mean(axis=0) - centre).max() <= 1
    assert np.abs(middle - centre).max() <= (region - side) / 2 + 1.001, "within a pixel, told in floats"
    if grid > 1:
        assert np.abs(np.ptp(places, axis=0) - (region - side)).max() <= 2
        columns = np.unique(places[:grid, 0])
        assert len(columns) == grid or region - side < 3 * grid
    assert list(places[:, 1]) == sorted(places[:, 1]), "row by row"


@given(
    grid=grids,
    scale=st.sampled_from([2, 3]),
    x=st.integers(0, 300),
    y=st.integers(0, 300),
    face=st.integers(100, 300),
)
def test_places_follow_the_face_at_any_resolution(grid: int, scale: int, x: int, y: int, face: int) -> None:
    box = np.array([x, y, face, face], np.float32)
    spec, larger = native(32, grid), native(32 * scale, grid)
    small = window_places(box, 640, 640, spec)
    large = window_places(box * scale, 640 * scale, 640 * scale, larger)
    assert np.abs(large - small * scale).max() <= scale + 1


def test_a_small_face_is_seen_with_its_surroundings() -> None:
    burst, boxes = noise(4, 200, 200), still((90, 90, 20, 20), 4)
    samples = cut(burst, boxes, points(boxes), native(64, 2))
    for sample in samples:
        assert np.array_equal(sample[0, ..., 0], burst[0].y[68:132, 68:132])


def test_the_place_is_the_mean_over_the_burst() -> None:
    burst = noise(4, 200, 200)
    boxes = still((60, 60, 40, 40), 4) + np.array(
        [[-12, 0, 0, 0], [-4, 0, 0, 0], [4, 0, 0, 0], [12, 0, 0, 0]]
    )
    (sample,) = cut(burst, boxes.astype(np.float32), points(boxes.astype(np.float32)), native(32))
    for window, frame in zip(sample, burst, strict=True):
        assert np.array_equal(window[..., 0], frame.y[64:96, 64:96])


def test_a_short_burst_repeats_its_last_frame_and_a_long_one_is_cut_off() -> None:
    burst, boxes = noise(6, 100, 100), still((20, 20, 60, 60), 6)
    (short,) = cut(burst[:2], boxes[:2], points(boxes[:2]), native())
    assert np.array_equal(short[1], short[3])
    assert not np.array_equal(short[0], short[1])
    (long,) = cut(burst, boxes, points(boxes), native())
    assert np.array_equal(long[:2], short[:2])
    assert long.shape == (4, 32, 32, 3)


@pytest.mark.parametrize(("height", "width"), [(40, 200), (201, 37), (9, 7), (63, 65)])
def test_a_small_picture_is_continued_by_its_mirror_image(height: int, width: int) -> None:
    spec = native(64, 2, 1)
    burst, boxes = noise(1, height, width), still((1, 1, width / 2, height / 2), 1)
    samples = cut(burst, boxes, points(boxes), spec)
    places = window_places(boxes[0], width, height, spec)
    assert samples.shape == (4, 1, 64, 64, 3)
    for sample, (x, y) in zip(samples, places, strict=True):
        rows, columns = np.arange(y, y + 64), np.arange(x, x + 64)
        mirrored = burst[0].y[np.ix_(_reflected(rows, height), _reflected(columns, width))]
        assert np.array_equal(sample[0, ..., 0], mirrored)
        if width < 64:
            assert abs((x + 32) - width / 2) <= 2


def _reflected(at: np.ndarray, extent: int) -> np.ndarray:
    folded = at % (2 * extent)
    return np.where(folded < extent, folded, 2 * extent - 1 - folded)


def test_rgb_windows_are_the_same_pixels_in_colour() -> None:
    burst, boxes = noise(1, 100, 120), still((20, 20, 60, 60), 1)
    yuv = cut(burst, boxes, points(boxes), native(frames=1))
    rgb = cut(burst, boxes, points(boxes), native(frames=1, colour="rgb"))
    assert np.array_equal(rgb[..., ::-1], yuv_to_bgr(yuv))


@pytest.mark.parametrize("colour", ["rgb", "yuv"])
def test_an_aligned_burst_gives_a_crop_a_frame(colour: str) -> None:
    burst, boxes = noise(3, 160, 200), still((50, 40, 80, 90), 3)
    landmarks = points(boxes) + np.arange(3, dtype=np.float32)[:, None, None]
    spec = CropSpec.model_validate({"kind": "aligned", "side": 48, "margin": 1.3, "colour": colour})
    samples = cut(burst, boxes, landmarks, spec)
    assert samples.shape == (3, 1, 48, 48, 3)
    for sample, frame, p in zip(samples, burst, landmarks, strict=True):
        assert np.array_equal(sample[0], align(frame, p, 48, 1.3, colour))


def test_each_frame_needs_its_landmarks() -> None:
    boxes = still((50, 40, 80, 90), 2)
    with pytest.raises(ValueError, match="shorter"):
        cut(noise(3, 160, 200), boxes, points(boxes), CropSpec(kind="aligned", side=48))
