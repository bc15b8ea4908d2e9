"""Another person's face in place of this one, as classic face swaps put it there.

The other face is moved onto this one by its landmarks, given its colours and blended in. After Face
X-ray (Li et al., CVPR 2020), which blends pairs of real faces, and FaceSwap.
"""

import cv2
import numpy as np
from numpy.random import Generator

from pipeline.align import similarity
from pipeline.frames import F32
from training.pseudofakes.appearance import redetail
from training.pseudofakes.blending import alpha, poisson
from training.pseudofakes.context import Context, default_landmarks
from training.pseudofakes.geometry import INTERPOLATIONS, head_motion
from training.pseudofakes.masks import region_mask
from training.pseudofakes.trajectories import jitter

SWAPPED = ("face", "inner", "inner", "box", "eyes", "lower", "mouth")
REDETAILED = 0.5


def swapped(clip: F32, rng: Generator, context: Context) -> F32:
    """The other person's face in this one's colours, faded in."""
    return _pasted(clip, rng, context, seamless=False)


def seamlessly_swapped(clip: F32, rng: Generator, context: Context) -> F32:
    """The other person's face in this one's light, blended by gradients."""
    return _pasted(clip, rng, context, seamless=True)


def _pasted(clip: F32, rng: Generator, context: Context, *, seamless: bool) -> F32:
    _, h, w, _ = clip.shape
    mask = region_mask(rng, h, w, context, of=SWAPPED)
    source = _moved_here(clip, rng, context)
    if rng.random() < REDETAILED:
        source = redetail(source, rng)
    if seamless:
        return poisson(clip, source, mask)
    return alpha(clip, _in_colours_of(clip, source, mask), mask)


def _moved_here(clip: F32, rng: Generator, context: Context) -> F32:
    """The other clip laid on this one: its landmarks on ours, carried along with the head."""
    if context.other is None:
        raise ValueError("another face needs another clip")
    other = context.other
    frames, h, w, _ = clip.shape
    theirs = context.other_landmarks
    placed = _fitted(default_landmarks(*other.shape[1:]) if theirs is None else theirs, context, rng)
    carried = head_motion(clip, context) + jitter(rng, frames, rng.uniform(0, 0.4), 2)
    interpolation = int(rng.choice(INTERPOLATIONS))
    start = int(rng.integers(max(1, len(other) - frames + 1)))
    moved = np.empty((frames, h, w, other.shape[-1]), np.float32)
    for t in range(frames):
        onto = placed.copy()
        onto[:, 2] += carried[t]
        # There and back again where the other clip is shorter.
        at = (start + t) % max(1, 2 * len(other) - 2)
        frame = other[min(at, 2 * len(other) - 2 - at) if len(other) > 1 else 0]
        moved[t] = cv2.warpAffine(
            frame, onto, (w, h), flags=interpolation, borderMode=cv2.BORDER_REFLECT_101
        ).reshape(h, w, -1)
    return moved


def _fitted(landmarks: F32, context: Context, rng: Generator) -> F32:
    """From the other clip's pixels to ours, float32 [2, 3]: a similarity or an affine transform."""
    if rng.random() < 0.5:
        return similarity(landmarks, context.landmarks)
    homogeneous = np.hstack([landmarks, np.ones((5, 1), np.float32)])
    affine, *_ = np.linalg.lstsq(homogeneous, context.landmarks, rcond=None)
    return np.ascontiguousarray(affine.T, np.float32)


def _in_colours_of(target: F32, source: F32, mask: F32) -> F32:
    """`source` with mean and spread of `target` inside of the mask, by channel (Reinhard et al. 2001)."""
    inside = mask[..., 0] > 0.25
    ours, theirs = target[:, inside], source[:, inside]
    gain = (ours.std(axis=(0, 1)) + 1) / (theirs.std(axis=(0, 1)) + 1)
    gain = np.clip(gain, 0.5, 2)
    return np.asarray((source - theirs.mean(axis=(0, 1))) * gain + ours.mean(axis=(0, 1)), np.float32)
