"""Pseudo-fakes: forged inside of a mask and nowhere else, the same for the same seed."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.frames import F32, U8
from training.pseudofakes import KINDS, forge, in_time, make
from training.pseudofakes.appearance import DETAILS, recolour, regrain, regrain_changed, soften
from training.pseudofakes.blending import harmonic, poisson
from training.pseudofakes.context import Context, aligned_landmarks, centred_landmarks, default_landmarks
from training.pseudofakes.geometry import at_times, head_motion, shift
from training.pseudofakes.masks import PICTURE, REGIONS, fill, outline, region_mask
from training.pseudofakes.photographs import filmed
from training.pseudofakes.trajectories import drift, jitter

SEEDS = st.integers(0, 2**32 - 1)
PLAIN = [name for name, kind in KINDS.items() if kind.needs is None]
SWAPS = [name for name, kind in KINDS.items() if kind.needs == "other"]
SIMPLE = [name for name in PLAIN if not name.startswith("parted")]
MOVES = [name for name in PLAIN if KINDS[name].moves]


def clip(frames: int = 8, height: int = 64, width: int = 64, channels: int = 1, speed: float = 0.7) -> F32:
    """A textured picture that moves by `speed` pixels a frame, with fresh noise."""
    rng = np.random.default_rng(frames + height + channels)
    y, x = np.mgrid[:height, :width]
    pictures = []
    for t in range(frames):
        at_x, at_y = x + speed * t, y + 0.5 * speed * t
        wave = 120 + 40 * np.sin(at_x / 4) + 30 * np.cos(at_y / 3) + 20 * np.sin((at_x + at_y) / 7)
        pictures.append(np.stack([wave + 10 * c for c in range(channels)], axis=-1))
    moving = np.stack(pictures)
    return (moving + (speed > 0) * rng.normal(0, 2, moving.shape)).astype(np.float32)


def context_of(real: F32 | U8, *regions: str) -> Context:
    return Context(default_landmarks(*real.shape[1:]), regions=regions)


def as_bytes(real: F32) -> U8:
    return np.clip(np.rint(real), 0, 255).astype(np.uint8)


SHAPES = [(8, 64, 64, 1), (4, 48, 70, 1), (2, 49, 48, 1), (5, 112, 112, 3), (3, 50, 61, 3)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", PLAIN)
def test_every_kind_forges_clips_of_any_shape(name: str, shape: tuple[int, int, int, int]) -> None:
    real = clip(*shape)
    kept = real.copy()
    changed = 0
    for seed in range(3):
        forged = KINDS[name].forge(real, np.random.default_rng(seed), context_of(real))
        assert forged.shape == real.shape
        assert forged.dtype == np.float32
        assert np.isfinite(forged).all()
        assert np.array_equal(real, kept)
        again = KINDS[name].forge(real, np.random.default_rng(seed), context_of(real))
        assert np.array_equal(forged, again)
        changed += bool(np.abs(forged - real).max() >= 1)
    assert changed > 0


@given(SEEDS, st.sampled_from(SHAPES))
def test_a_pseudo_fake_differs_from_its_source(seed: int, shape: tuple[int, int, int, int]) -> None:
    real = as_bytes(clip(*shape))
    kept = real.copy()
    forged = make(real, np.random.default_rng(seed))
    assert forged.shape == real.shape
    assert forged.dtype == np.uint8
    assert not np.array_equal(forged, real)
    assert np.array_equal(real, kept)
    assert np.array_equal(forged, make(real, np.random.default_rng(seed)))


@given(SEEDS, st.sampled_from(PLAIN))
def test_a_flat_or_still_clip_is_forged_all_the_same(seed: int, name: str) -> None:
    still = np.repeat(as_bytes(clip(1)), 4, axis=0)
    for real in (still, np.full((4, 48, 48, 1), 90, np.uint8), np.zeros((4, 48, 48, 1), np.uint8)):
        forged = make(real, np.random.default_rng(seed), kinds=[name])
        assert (forged != real).mean() > 0.01


@given(SEEDS, st.sampled_from(PLAIN))
def test_pixels_far_from_the_mask_are_untouched(seed: int, name: str) -> None:
    real = clip(6, 128, 128)
    landmarks = np.array([[54, 54], [74, 54], [64, 62], [57, 72], [71, 72]], np.float32)
    context = Context(landmarks, regions=("mouth", "eyes", "nose", "inner"))
    forged = KINDS[name].forge(real, np.random.default_rng(seed), context)
    outside = np.ones((128, 128), bool)
    outside[14:118, 14:118] = False
    assert np.array_equal(forged[:, outside], real[:, outside])
    assert np.abs(forged).max() < 512


@given(SEEDS, st.sampled_from(MOVES))
def test_kinds_that_only_break_motion_leave_a_still_clip_as_it_is(seed: int, name: str) -> None:
    still = np.repeat(clip(1, speed=0), 6, axis=0)
    forged = KINDS[name].forge(still, np.random.default_rng(seed), context_of(still))
    assert np.abs(forged - still).max() < 0.01


@pytest.mark.parametrize("name", ["jittered", "flickering", "parted_motion"])
def test_other_kinds_in_time_make_a_still_clip_move(name: str) -> None:
    still = np.repeat(clip(1, speed=0), 6, axis=0)
    forged = KINDS[name].forge(still, np.random.default_rng(1), context_of(still, "mouth"))
    assert np.abs(np.diff(forged, axis=0)).max() > 1


def inside(forged: F32, real: F32) -> np.ndarray:
    changed: np.ndarray = np.abs(forged - real).max(axis=(0, 3)) > 1
    return changed


def test_a_frozen_mouth_does_not_move() -> None:
    real = clip()
    context = context_of(real, "mouth")
    x, y = np.rint(context.landmarks[3:].mean(axis=0)).astype(int)

    def motion(one: F32) -> float:
        return float(np.abs(np.diff(one[:, y - 3 : y + 4, x - 3 : x + 4], axis=0)).mean())

    forged = [in_time.frozen(real, np.random.default_rng(seed), context) for seed in range(8)]
    assert sum(motion(one) < 0.4 * motion(real) for one in forged) >= 3


def test_a_lagging_face_is_that_of_a_neighbouring_frame() -> None:
    real = clip()
    context = context_of(real, PICTURE)
    matches = 0
    for seed in range(12):
        forged = in_time.lagging(real, np.random.default_rng(seed), context)
        distance = [np.abs(forged[4] - real[t]).mean() for t in range(len(real))]
        matches += int(np.argmin(distance)) in {2, 3, 5, 6}
    assert matches >= 8


def test_a_held_face_repeats_itself() -> None:
    real = clip()
    forged = in_time.held(real, np.random.default_rng(0), context_of(real, PICTURE))
    steps = np.abs(np.diff(forged, axis=0)).mean(axis=(1, 2, 3))
    assert steps.min() < 0.3 * steps.max()


def test_a_steady_face_moves_less_than_the_head() -> None:
    real = clip(9, 96, 96, speed=0.8)
    context = context_of(real)
    forged = in_time.steady(real, np.random.default_rng(0), Context(context.landmarks, regions=(PICTURE,)))
    assert np.abs(head_motion(forged, context)).max() < 0.6 * np.abs(head_motion(real, context)).max()


def test_parts_at_their_own_times_leave_the_rest_in_step() -> None:
    real = clip(8, 128, 128)
    forged = in_time.parted_times(real, np.random.default_rng(3), context_of(real))
    share = inside(forged, real).mean()
    assert 0.01 < share < 0.8


def test_head_motion_is_measured() -> None:
    rng = np.random.default_rng(0)
    still = np.repeat(clip(1, 96, 96, speed=0), 5, axis=0) + rng.normal(0, 8, (1, 96, 96, 1)).astype(
        np.float32
    )
    offsets = np.array([[-2, 1], [-1, 0.5], [0, 0], [1, 0], [2, -1]], np.float32)
    measured = head_motion(shift(still, offsets), context_of(still))
    assert np.abs(measured - offsets).max() < 0.5


@given(SEEDS, st.sampled_from(sorted(REGIONS)), st.floats(0.5, 12))
def test_a_mask_is_soft_and_ends_at_three_deviations(seed: int, region: str, softness: float) -> None:
    points = outline(region, centred_landmarks(90, 120), np.random.default_rng(seed))
    mask = fill(points, 90, 120, softness)
    assert mask.shape == (90, 120)
    assert 0 <= mask.min() <= mask.max() <= 1 + 1e-5
    y, x = np.mgrid[:90, :120]
    reach = 3 * softness + 3
    left, top = points.min(axis=0) - reach
    right, bottom = points.max(axis=0) + reach
    assert not mask[(x < left) | (x > right) | (y < top) | (y > bottom)].any()


@given(SEEDS)
def test_a_mask_is_never_empty(seed: int) -> None:
    rng = np.random.default_rng(seed)
    landmarks = centred_landmarks(64, 64) + rng.uniform(-200, 200, 2).astype(np.float32)
    assert region_mask(rng, 64, 64, Context(landmarks)).max() >= 0.5


def test_regions_lie_where_the_landmarks_are() -> None:
    landmarks = aligned_landmarks(112)
    for region, (low, high) in {"eyes": (0, 2), "mouth": (3, 5), "left eye": (0, 1), "nose": (2, 3)}.items():
        rng = np.random.default_rng(0)
        mask = np.mean([fill(outline(region, landmarks, rng), 112, 112, 1.0) for _ in range(20)], axis=0)
        y, x = np.mgrid[:112, :112]
        centre = np.array([(mask * x).sum(), (mask * y).sum()]) / mask.sum()
        assert np.abs(centre - landmarks[low:high].mean(axis=0)).max() < 4


@pytest.mark.parametrize("how", [*DETAILS, recolour], ids=lambda f: f.__name__)
@pytest.mark.parametrize("channels", [1, 3])
def test_appearance_changes_without_motion(how: object, channels: int) -> None:
    real = clip(4, 60, 52, channels)
    changed = how(real, np.random.default_rng(5))  # type: ignore[operator]
    assert changed.shape == real.shape
    assert changed.dtype == np.float32
    assert np.abs(changed - real).mean() > 0.05
    assert np.corrcoef(changed.ravel(), real.ravel())[0, 1] > 0.8


@given(SEEDS)
def test_grain_makes_up_for_lost_detail(seed: int) -> None:
    rng = np.random.default_rng(seed)
    real = clip(4) + rng.normal(0, 3, (4, 64, 64, 1)).astype(np.float32)
    soft = soften(real, rng)
    grained = regrain(soft, real, rng)

    def detail(one: F32) -> float:
        return float(np.abs(np.diff(one, 2, axis=2)).mean())

    assert detail(soft) < detail(grained) < 1.4 * detail(real)
    assert np.abs(np.corrcoef((grained - soft)[0].ravel(), (grained - soft)[1].ravel())[0, 1]) < 0.15
    assert regrain(real, soft, rng) is real


@given(SEEDS)
def test_only_what_changed_is_grained(seed: int) -> None:
    rng = np.random.default_rng(seed)
    real = clip(4) + rng.normal(0, 3, (4, 64, 64, 1)).astype(np.float32)
    forged = real.copy()
    forged[:, 20:50, 10:40] = soften(real, rng)[:, 20:50, 10:40]
    kept = forged.copy()
    grained = regrain_changed(forged, real, rng)
    same = (forged == real).all(axis=(0, 3))
    assert np.array_equal(grained[:, same], real[:, same])
    assert np.abs(grained - forged)[:, 25:45, 15:35].mean() > 0.1
    assert np.array_equal(forged, kept)
    assert np.array_equal(regrain_changed(real, real, rng), real)


@given(SEEDS)
def test_a_pseudo_fake_is_forged_where_the_regions_are_and_nowhere_else(seed: int) -> None:
    real = clip(6, 128, 128)
    landmarks = np.array([[54, 54], [74, 54], [64, 62], [57, 72], [71, 72]], np.float32)
    forged = forge(real, np.random.default_rng(seed), Context(landmarks, regions=("inner", "face")), SIMPLE)
    outside = np.ones((128, 128), bool)
    outside[8:120, 8:120] = False
    assert np.array_equal(forged[:, outside], real[:, outside])


@given(SEEDS, st.integers(2, 40))
def test_drift_is_slow_and_jitter_is_not(seed: int, frames: int) -> None:
    slow = drift(np.random.default_rng(seed), frames, 2.0, 3)
    assert slow.shape == (frames, 3)
    assert np.abs(slow).max() <= 2
    assert np.abs(np.diff(slow, axis=0)).max(initial=0) <= 2 * 2 * np.pi / 24 + 1e-5
    quick = jitter(np.random.default_rng(seed), frames, 0.5)
    assert np.abs(quick).max() <= 1.5 + 1e-6


def test_times_between_frames_are_mixed_and_held_within_the_clip() -> None:
    real = clip(3)
    moved = at_times(real, np.array([-5, 0.5, 9]))
    assert np.array_equal(moved[0], real[0])
    assert np.allclose(moved[1], (real[0] + real[1]) / 2, atol=1e-3)
    assert np.array_equal(moved[2], real[2])


def test_parameters_are_constant_over_a_clip() -> None:
    still = np.repeat(clip(1, speed=0), 24, axis=0)
    for seed in range(5):
        forged = KINDS["self_blended"].forge(still, np.random.default_rng(seed), context_of(still))
        steps = np.abs(np.diff(forged, axis=0)).mean()
        assert steps < 0.5 * np.abs(forged - still).mean() + 1.5


@pytest.mark.parametrize(
    ("shape", "kinds"),
    [
        ((1, 64, 64, 1), None),
        ((4, 40, 64, 1), None),
        ((4, 64, 64, 2), None),
        ((4, 64, 64), None),
        ((4, 64, 64, 1), ["no such kind"]),
        ((4, 64, 64, 1), []),
    ],
)
def test_what_can_not_be_forged_is_refused(shape: tuple[int, ...], kinds: list[str] | None) -> None:
    with pytest.raises(ValueError, match=r"clip|kind"):
        make(np.zeros(shape, np.uint8), np.random.default_rng(0), kinds=kinds)


def disc(side: int, radius: int) -> F32:
    y, x = np.mgrid[:side, :side] - side // 2
    return np.asarray(np.hypot(x, y) <= radius, np.float32)[..., None]


@pytest.mark.parametrize("side", [48, 65, 97])
def test_gradient_blending_takes_smooth_light_away(side: int) -> None:
    target = clip(3, side, side, 3)
    mask = disc(side, side // 3)
    y, x = np.mgrid[:side, :side] / side
    for light, left in ((30 + 0 * x, 1e-3), (40 * x - 20 * y, 0.06), (30 * (x**2 - y**2), 0.1)):
        source = target - light[None, ..., None].astype(np.float32)
        blended = poisson(target, source, mask)
        inside = mask[..., 0] == 1
        assert np.abs(blended - target)[:, inside].mean() <= left * np.abs(light)[inside].mean()


def test_gradient_blending_keeps_detail_and_the_outside() -> None:
    rng = np.random.default_rng(0)
    target, source = rng.uniform(0, 255, (2, 3, 64, 64, 1)).astype(np.float32)
    mask = disc(64, 20)
    blended = poisson(target, source, mask)
    assert np.array_equal(blended[:, mask[..., 0] == 0], target[:, mask[..., 0] == 0])
    detail = [np.diff(c[:, 20:44, 20:44], axis=2).ravel() for c in (blended, source)]
    assert np.corrcoef(*detail)[0, 1] > 0.99


def test_gradient_blending_without_a_boundary_takes_the_source() -> None:
    target, source = clip(2), clip(2, speed=0.1)
    assert np.allclose(poisson(target, source, np.ones((64, 64, 1), np.float32)), source, atol=1e-3)
    assert np.array_equal(poisson(target, source, np.zeros((64, 64, 1), np.float32)), target)


@given(SEEDS)
def test_a_membrane_stays_within_what_it_hangs_on(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.uniform(-50, 50, (13, 18, 2)).astype(np.float32)
    known = rng.random((13, 18)) < rng.uniform(0.05, 0.9)
    known[3, 4] = True
    filled = harmonic(values, known)
    assert np.array_equal(filled[known], values[known])
    assert filled.min() >= values[known].min() - 1e-3
    assert filled.max() <= values[known].max() + 1e-3


OTHERS = [
    ((8, 64, 64, 1), (8, 80, 71, 1)),
    ((6, 64, 64, 1), (1, 48, 48, 1)),
    ((4, 112, 112, 3), (3, 90, 90, 3)),
]


@pytest.mark.parametrize(("shape", "other_shape"), OTHERS, ids=str)
@pytest.mark.parametrize("name", SWAPS)
def test_swaps_paste_another_face(
    name: str, shape: tuple[int, int, int, int], other_shape: tuple[int, int, int, int]
) -> None:
    real, other = clip(*shape), 255 - clip(*other_shape, speed=0.3)
    kept = real.copy(), other.copy()
    context = Context(default_landmarks(*shape[1:]), other=other)
    for seed in range(4):
        forged = KINDS[name].forge(real, np.random.default_rng(seed), context)
        assert forged.shape == real.shape
        assert forged.dtype == np.float32
        assert np.abs(forged - real).mean() > 1
        assert np.array_equal(forged, KINDS[name].forge(real, np.random.default_rng(seed), context))
    assert np.array_equal(real, kept[0])
    assert np.array_equal(other, kept[1])


@given(SEEDS, st.sampled_from(SWAPS))
def test_swaps_leave_pixels_far_from_the_mask(seed: int, name: str) -> None:
    real, other = clip(4, 128, 128), 255 - clip(4, 80, 80)
    landmarks = np.array([[54, 54], [74, 54], [64, 62], [57, 72], [71, 72]], np.float32)
    context = Context(landmarks, regions=("mouth", "eyes", "inner"), other=other)
    forged = KINDS[name].forge(real, np.random.default_rng(seed), context)
    outside = np.ones((128, 128), bool)
    outside[14:118, 14:118] = False
    assert np.array_equal(forged[:, outside], real[:, outside])


def test_a_swapped_face_lies_where_the_landmarks_are_and_has_the_colours_of_its_place() -> None:
    landmarks = centred_landmarks(96, 96)
    theirs = centred_landmarks(96, 96) * 0.5 + 20
    real = 200 + 0 * clip(4, 96, 96)
    other = 60 + 0 * real
    for x, y in theirs[:2]:
        other[:, int(y) - 1 : int(y) + 2, int(x) - 2 : int(x) + 3] = 10
    context = Context(landmarks, regions=("face",), other=other, other_landmarks=theirs)
    for seed in range(6):
        forged = KINDS["swapped"].forge(real, np.random.default_rng(seed), context)
        (left, right) = np.rint(landmarks[:2]).astype(int)
        bridge = (left + right) // 2
        assert forged[1, left[1], left[0], 0] < forged[1, bridge[1], bridge[0], 0] - 0.2
        assert abs(float(forged[1, bridge[1] + 15, bridge[0], 0]) - 200) < 20


def test_another_clip_has_to_be_of_the_same_colours() -> None:
    real = as_bytes(clip())
    forged = make(real, np.random.default_rng(0), other=255 - real, kinds=["swapped"])
    assert not np.array_equal(forged, real)
    with pytest.raises(ValueError, match="other clip"):
        make(real, np.random.default_rng(0), other=np.repeat(real, 3, axis=3))
    with pytest.raises(ValueError, match="swapped needs other"):
        make(real, np.random.default_rng(0), kinds=["swapped"])


def test_forged_floats_stay_in_range() -> None:
    bright = np.full((3, 48, 48, 1), 254.0, np.float32) + clip(3, 48, 48) / 200
    for seed in range(20):
        forged = forge(bright.clip(0, 255), np.random.default_rng(seed), context_of(bright))
        assert 0 <= forged.min() <= forged.max() <= 255


def photograph(side: int = 240, channels: int = 3) -> U8:
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:side, :side]
    picture = 120 + 50 * np.sin(x / 9) + 40 * np.cos(y / 7) + rng.normal(0, 4, (side, side))
    return np.clip(np.stack([picture + 5 * k for k in range(channels)], axis=-1), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_photograph_is_filmed_where_the_box_is(channels: int) -> None:
    still = photograph(channels=channels)
    filmed_clip = filmed(still, np.random.default_rng(0), frames=12, side=64, box=(40, 30, 160))
    assert filmed_clip.shape == (12, 64, 64, channels)
    assert filmed_clip.dtype == np.uint8
    shown = cv2.resize(still[30:190, 40:200], (64, 64), interpolation=cv2.INTER_AREA).reshape(
        64, 64, channels
    )
    assert np.corrcoef(filmed_clip.mean(axis=0).ravel(), shown.ravel())[0, 1] > 0.8
    again = filmed(still, np.random.default_rng(0), frames=12, side=64, box=(40, 30, 160))
    assert np.array_equal(filmed_clip, again)


def test_a_filmed_photograph_moves_a_little_and_is_a_clip_to_forge() -> None:
    furthest = []
    for seed in range(5):
        moving = filmed(photograph(), np.random.default_rng(seed), frames=8, side=96, box=(20, 20, 200))
        motion = head_motion(moving.astype(np.float32), context_of(moving))
        furthest.append(np.abs(motion).max())
        assert np.abs(np.diff(motion, axis=0)).max() < 3
    assert np.median(furthest) > 0.4
    assert not np.array_equal(make(moving, np.random.default_rng(0)), moving)


def test_every_frame_of_a_filmed_photograph_has_its_own_noise() -> None:
    flat = np.full((80, 80, 1), 120, np.uint8)
    frames = (
        filmed(flat, np.random.default_rng(0), frames=3, side=64, box=(5, 5, 70)).astype(np.float32) - 120
    )
    assert 0.3 < frames.std() < 2.5
    assert abs(np.corrcoef(frames[0].ravel(), frames[1].ravel())[0, 1]) < 0.1


def test_a_photograph_is_never_enlarged() -> None:
    with pytest.raises(ValueError, match="enlarging"):
        filmed(photograph(), np.random.default_rng(0), frames=4, side=96, box=(0, 0, 80))
