"""Augmentation: the same change over a whole clip, and nothing but that."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import Generator

from pipeline.frames import U8
from training.augment import affine, augment, blur, box, colour, flip, h264, jpeg, noise, resize, retime
from training.recipe import Augment

Change = Callable[[U8, Generator], U8]
STILL: list[Change] = [flip, affine, box, colour, blur, resize, retime, jpeg]
"""Changes that leave a still clip still; JPEG encodes each frame on its own."""
MOVING: list[Change] = [noise, h264]
CHANGES = STILL + MOVING
NAMES = {c.__name__ for c in CHANGES}

changes = st.sampled_from(CHANGES)
seeds = st.integers(0, 2**32)
shapes = st.tuples(st.integers(1, 12), st.integers(16, 40))


def scene(frames: int, side: int, seed: int = 0, *, still: bool = False) -> U8:
    """Smooth shapes that move; uint8 [frames, side, side, 3]."""
    y, x = np.mgrid[:side, :side]
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    return np.stack(
        [
            np.stack(
                [
                    120 + 60 * np.sin((x + (0 if still else 2 * t)) / 5 + p) + 30 * np.cos(y / 4 - p)
                    for p in phase
                ],
                -1,
            )
            for t in range(frames)
        ]
    ).astype(np.uint8)


@given(changes, shapes, seeds)
def test_shape_and_kind_stay_and_the_input_is_left_alone(
    change: Change, shape: tuple[int, int], seed: int
) -> None:
    clip = scene(*shape, seed)
    clip.flags.writeable = False
    before = clip.copy()
    changed = change(clip, np.random.default_rng(seed))
    assert changed.shape == clip.shape
    assert changed.dtype == np.uint8
    assert np.array_equal(clip, before)
    assert not np.shares_memory(changed, clip)


@given(changes, shapes, seeds)
def test_the_same_chance_gives_the_same_clip(change: Change, shape: tuple[int, int], seed: int) -> None:
    clip = scene(*shape)
    a, b = (change(clip, np.random.default_rng(seed)) for _ in range(2))
    assert np.array_equal(a, b)


@given(st.sampled_from(STILL), shapes, seeds)
def test_a_still_clip_stays_still(change: Change, shape: tuple[int, int], seed: int) -> None:
    changed = change(scene(*shape, still=True), np.random.default_rng(seed))
    assert (changed == changed[0]).all()


@given(changes, seeds, seeds)
def test_what_is_drawn_does_not_depend_on_the_pixels(change: Change, seed: int, other: int) -> None:
    """Two clips of one shape leave the generator in the same state: they went through the same change."""
    a, b = np.random.default_rng(seed), np.random.default_rng(seed)
    change(scene(5, 24, 1), a)
    change(scene(5, 24, other), b)
    assert a.bit_generator.state == b.bit_generator.state


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__)
def test_each_changes_something_and_no_two_draws_are_alike(change: Change) -> None:
    clip = scene(8, 32)
    drawn = [change(clip, np.random.default_rng(seed)) for seed in range(6)]
    assert all(not np.array_equal(d, clip) for d in drawn)
    if change is not flip:
        assert len({d.tobytes() for d in drawn}) > 1


@given(st.integers(3, 40), seeds)
def test_retiming_keeps_order_and_number_and_drops_as_many_as_it_repeats(count: int, seed: int) -> None:
    clip = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 16, 16, 3))
    order = retime(clip, np.random.default_rng(seed))[:, 0, 0, 0].astype(int)
    assert (np.diff(order) >= 0).all()
    lost = count - len(set(order.tolist()))
    assert 1 <= lost <= max(1, count // 10)
    assert np.bincount(order).max() == 2


def test_a_face_stays_where_it_is_but_for_a_few_pixels() -> None:
    """Geometry moves the middle of a 64-pixel crop by no more than 12% of its side."""
    clip = np.zeros((2, 64, 64, 3), np.uint8)
    clip[:, 28:36, 28:36] = 255
    y, x = np.mgrid[:64, :64]
    for change in (affine, box):
        for seed in range(30):
            lit = change(clip, np.random.default_rng(seed))[0, ..., 0].astype(np.float64)
            middle = np.array([(lit * x).sum(), (lit * y).sum()]) / lit.sum()
            assert np.abs(middle - 31.5).max() < 0.12 * 64


def test_noise_differs_from_frame_to_frame() -> None:
    changed = noise(scene(4, 32, still=True), np.random.default_rng(0))
    assert len({f.tobytes() for f in changed}) == 4


def test_worse_quality_is_worse() -> None:
    clip = scene(6, 32)

    def error(changed: U8) -> float:
        return float(np.abs(changed.astype(float) - clip).mean())

    rng = np.random.default_rng
    assert error(jpeg(clip, rng(0), (40, 40))) > error(jpeg(clip, rng(0), (95, 95)))
    assert error(h264(clip, rng(0), (40, 40))) > error(h264(clip, rng(0), (18, 18)))
    assert error(h264(clip, rng(0), (18, 18))) < 12


def test_every_change_has_its_key_in_the_recipe() -> None:
    assert {n for n, f in Augment.model_fields.items() if f.default == 0.0} == NAMES


@given(seeds)
@settings(max_examples=20)
def test_nothing_is_done_unless_it_is_named(seed: int) -> None:
    clip = scene(3, 20, seed)
    assert np.array_equal(augment(clip, np.random.default_rng(seed), Augment()), clip)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_key_does_its_own(name: str) -> None:
    clip, how = scene(6, 24), Augment.model_validate({name: 1.0})
    assert not np.array_equal(augment(clip, np.random.default_rng(1), how), clip)


def test_whether_one_change_happens_does_not_move_the_others() -> None:
    """Frames of rising grey tell their order, whatever became of their colours."""
    clip = np.broadcast_to(np.arange(60, 180, 4, dtype=np.uint8)[:, None, None, None], (30, 16, 16, 3))

    def order(how: Augment) -> list[int]:
        greys = augment(clip, np.random.default_rng(7), how)[:, 8, 8, 1]
        return [int(n) for n in np.diff(greys.astype(int)) > 0]

    assert order(Augment(retime=1.0)) == order(Augment(colour=1.0, retime=1.0))
    assert 0 in order(Augment(retime=1.0))
