"""Alterations: a new burst of the same shape, the real one untouched, both encoded alike."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.frames import F32
from training.alter import ALTERATIONS, alter, blend, encode, noise, pair, sharpen, soft_mask
from training.recipe import Pairs
from training.sequences import Clip, sequence_pair, training_batch


def burst(seed: int = 0, side: int = 48, frames: int = 4) -> F32:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    still = 120 + 40 * np.sin(x / 5) + 30 * np.cos(y / 4)
    return np.stack([still + 8 * rng.standard_normal((side, side)) for _ in range(frames)]).astype(np.float32)


@pytest.mark.parametrize("how", [*ALTERATIONS.values(), sharpen, noise], ids=lambda f: f.__name__)
def test_each_alteration_changes_a_copy_and_keeps_its_shape(how: object) -> None:
    real = burst()
    kept = real.copy()
    altered = how(real, np.random.default_rng(1))  # type: ignore[operator]
    assert altered.shape == real.shape
    assert altered.dtype == np.float32
    assert np.array_equal(real, kept)
    assert np.abs(altered - real).mean() > 0.1


def test_frozen_texture_is_the_same_in_every_frame() -> None:
    frozen = ALTERATIONS["freeze_texture"](burst(), np.random.default_rng(2))
    assert np.abs(np.diff(frozen, axis=0)).mean() < 0.5 * np.abs(np.diff(burst(), axis=0)).mean()


def test_warped_frames_jitter_against_each_other() -> None:
    still = np.repeat(burst()[:1], 4, axis=0)
    assert np.abs(np.diff(ALTERATIONS["warp"](still, np.random.default_rng(0)), axis=0)).mean() > 0.1


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_mask_is_soft_and_a_blend_lies_between(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = soft_mask(24, 32, rng)
    assert mask.shape == (24, 32)
    assert 0 <= mask.min() <= mask.max() <= 1
    real, other = rng.uniform(0, 255, (2, 3, 24, 32)).astype(np.float32)
    mixed = blend(real, other, mask)
    assert (mixed >= np.minimum(real, other) - 1e-3).all()
    assert (mixed <= np.maximum(real, other) + 1e-3).all()
    assert np.array_equal(mixed[:, mask == 0], real[:, mask == 0])


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_an_altered_burst_is_a_picture_and_the_same_for_the_same_seed(seed: int) -> None:
    real = burst(side=32)
    altered = alter(real, np.random.default_rng(seed))
    assert altered.shape == real.shape
    assert 0 <= altered.min() <= altered.max() <= 255
    assert np.array_equal(altered, alter(real, np.random.default_rng(seed)))


def test_unencoded_pairs_leave_the_real_copy_as_it_was() -> None:
    real = burst()
    same, altered = pair(real, np.random.default_rng(0), encoded=0.0)
    assert np.array_equal(same, np.clip(np.rint(real), 0, 255).astype(np.uint8))
    assert not np.array_equal(same, altered)


def test_both_copies_are_encoded_at_one_rate() -> None:
    real = burst()
    rng = np.random.default_rng(0)
    same, altered = pair(real, rng, crf=(32, 32), encoded=1.0)
    assert np.array_equal(same, encode(real, 32))
    again = alter(real, np.random.default_rng(0))
    assert np.array_equal(altered, encode(again, 32))


def test_a_higher_rate_factor_loses_more() -> None:
    real = burst()
    fine, coarse = (np.abs(encode(real, crf) - real).mean() for crf in (18, 36))
    assert coarse > 1.5 * fine
    assert fine < 4


def test_odd_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="even sizes"):
        encode(burst(side=33), 20)


def clip(name: str = "a", side: int = 40) -> Clip:
    luma = np.stack([burst(k, side, 6) for k in range(3)])
    return Clip(name, name, np.clip(luma, 0, 255).astype(np.uint8))


def test_both_windows_of_a_pair_lie_at_the_same_places_of_the_clip_or_of_its_mirror_image() -> None:
    how = Pairs(bursts=2, windows=2, region=32, rescaled=0, encoded=0)
    source = clip()
    mirrored = set()
    for seed in range(8):
        real, altered = sequence_pair(source, np.random.default_rng(seed), how, 16, 4)
        assert real.shape == altered.shape == (4, 4, 16, 16)
        ways = [_lie_in(luma, real) for luma in (source.luma, source.luma[..., ::-1])]
        assert sum(ways) == 1, "a sequence is mirrored as a whole or not at all"
        mirrored.add(ways[1])
        assert all(not np.array_equal(w, c) for w, c in zip(real, altered, strict=True))
    assert mirrored == {True, False}


def _lie_in(luma: np.ndarray, windows: np.ndarray) -> bool:
    places = np.lib.stride_tricks.sliding_window_view(luma, (4, 16, 16), axis=(1, 2, 3))
    return all((places == window).all(axis=(-1, -2, -3)).any() for window in windows)


def test_scaled_sequences_never_fall_below_a_window() -> None:
    how = Pairs(bursts=1, windows=1, region=32, rescaled=1, least_scale=0.1, encoded=0)
    for seed in range(10):
        real, _ = sequence_pair(clip(), np.random.default_rng(seed), how, 28, 4)
        assert real.shape == (1, 4, 28, 28)


def test_a_batch_alternates_real_and_altered_and_draws_groups_evenly() -> None:
    how = Pairs(bursts=1, windows=1, region=16, rescaled=0, encoded=0)
    bright = [Clip(f"b{i}", "bright", np.full((1, 4, 16, 16), 200, np.uint8)) for i in range(9)]
    dark = [Clip("d", "dark", np.full((1, 4, 16, 16), 20, np.uint8))]
    samples, labels = training_batch(
        bright + dark, np.random.default_rng(0), how, batch=60, side=16, frames=4
    )
    assert samples.shape == (120, 1, 4, 16, 16, 1)
    assert labels.tolist() == [0, 1] * 60
    share = (samples[labels == 0].mean(axis=(1, 2, 3, 4, 5)) > 100).mean()
    assert 0.3 < share < 0.7
