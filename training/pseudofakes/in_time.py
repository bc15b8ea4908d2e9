"""Forgeries that show in time: a part of the face that does not move, flicker or age as the rest does.

Each kind takes a clip, float32 [T, H, W, C], 0 to 255, T >= 2, and changes it inside of a mask alone.
Kinds that only break motion leave a clip in which nothing moves as it is.
"""

import cv2
import numpy as np
from numpy.random import Generator

from pipeline.frames import F32
from training.pseudofakes.blending import alpha
from training.pseudofakes.context import Context
from training.pseudofakes.geometry import INTERPOLATIONS, at_times, displace, each, head_motion, shift
from training.pseudofakes.masks import PICTURE, fill, outline, region_mask, softness
from training.pseudofakes.trajectories import drift, jitter, wave

FACE = ("face", "inner", "box")
PARTS = ("eyes", "left eye", "right eye", "nose", "mouth", "lower")


def jittered(clip: F32, rng: Generator, context: Context) -> F32:
    """Mask and face tremble against the picture, as where each frame is aligned by itself."""
    frames, h, w, _ = clip.shape
    region = str(rng.choice([r for r in context.regions or FACE if r != PICTURE] or list(FACE)))
    points, soft = outline(region, context.landmarks, rng), softness(rng, context)
    trembling = jitter(rng, frames, rng.uniform(0.3, 1.5), 2)
    mask = np.stack([fill(points + at, h, w, soft) for at in trembling])[..., None]
    offsets = jitter(rng, frames, rng.uniform(0.2, 0.8), 2) + drift(rng, frames, 1, 2)
    return alpha(clip, shift(clip, offsets, int(rng.choice(INTERPOLATIONS))), mask)


def lagging(clip: F32, rng: Generator, context: Context) -> F32:
    """The inner face is late or early by up to two frames; where by a part of one, frames are mixed."""
    times = np.arange(len(clip), dtype=np.float32) + rng.choice([-2, -1, -0.5, 0.5, 1, 2])
    return _inside(clip, at_times(clip, times), rng, context)


def held(clip: F32, rng: Generator, context: Context) -> F32:
    """The inner face is drawn for every second or third frame and kept in between."""
    every = int(rng.integers(2, 4))
    time = np.arange(len(clip), dtype=np.float32) + int(rng.integers(every))
    return _inside(clip, at_times(clip, time // every * every - time[0]), rng, context)


def averaged(clip: F32, rng: Generator, context: Context) -> F32:
    """Each frame of the face is a mean of it and its neighbours, as where a generator smooths over time."""
    side = np.float32(rng.uniform(0.3, 1))
    before, after = at_times(clip, np.arange(len(clip)) - 1), at_times(clip, np.arange(len(clip)) + 1)
    mean = np.asarray((clip + side * (before + after)) / (1 + 2 * side), np.float32)
    return _inside(clip, mean, rng, context)


def flickering(clip: F32, rng: Generator, context: Context) -> F32:
    """Brightness and contrast of the face, in RGB those of each channel, change from frame to frame."""
    frames, channels = len(clip), clip.shape[-1]
    gain = 1 + jitter(rng, frames, rng.uniform(0.005, 0.03), 1, 1, channels)
    offset = jitter(rng, frames, rng.uniform(0.5, 3), 1, 1, channels)
    return _inside(clip, gain * clip + offset, rng, context)


def frozen(clip: F32, rng: Generator, context: Context) -> F32:
    """The mouth, the eyes or the lower face of one frame in all frames, carried along with the head."""
    still = _carried(clip, clip, rng, context)
    return _inside(clip, still, rng, context, ("mouth", "lower", "eyes", "lower box"))


def sticking_texture(clip: F32, rng: Generator, context: Context) -> F32:
    """Below, the face moves; its fine texture is that of one frame, carried along with the head or not.

    Generators whose texture sticks to places of the picture are known from Karras et al. (2021).
    """
    sigma, strength = rng.uniform(0.8, 2), np.float32(rng.uniform(0.5, 1))

    def smooth(frame: F32, _: int) -> F32:
        return np.asarray(cv2.GaussianBlur(frame, (0, 0), sigma), np.float32)

    low = each(smooth, clip)
    texture = clip - low
    still = _carried(texture, clip, rng, context)
    return _inside(clip, low + texture + strength * (still - texture), rng, context)


def steady(clip: F32, rng: Generator, context: Context) -> F32:
    """The inner face keeps still where the head moves: most of its motion is taken away."""
    share = rng.uniform(0.5, 1)
    offsets = (-share * head_motion(clip, context)).astype(np.float32)
    return _inside(clip, shift(clip, offsets, int(rng.choice(INTERPOLATIONS))), rng, context)


def parted_times(clip: F32, rng: Generator, context: Context) -> F32:
    """Two or three parts of the face, each at its own time, as far as two frames from now.

    Breaks what binds the motion of one part to that of another (after arXiv 2512.04175).
    """
    time = np.arange(len(clip))
    parts = rng.choice(PARTS, int(rng.integers(2, 4)), replace=False)
    forged = clip
    for part in parts:
        lag = float(rng.choice([-1.5, -1, 1, 1.5])) + drift(rng, len(clip), 0.5)
        forged = _inside(forged, at_times(clip, time + lag), rng, context, (str(part),))
    return forged


def parted_motion(clip: F32, rng: Generator, context: Context) -> F32:
    """One or two parts of the face open, close or move by up to 4% of its width to a rhythm of their own.

    Changes motion within a part without regard to the other parts (after arXiv 2512.04175).
    """
    frames, h, w, _ = clip.shape
    forged = clip
    for part in rng.choice(PARTS, int(rng.integers(1, 3)), replace=False):
        points = outline(str(part), context.landmarks, rng)
        mask = fill(points, h, w, 0.06 * context.face_width)
        y, x = np.mgrid[:h, :w].astype(np.float32)
        centre, reach = points.mean(axis=0), np.maximum(1, np.ptp(points, axis=0) / 2)
        stretch, offset = rng.uniform(-1, 1, 2), rng.uniform(-0.5, 0.5, 2)
        size = context.face_width * rng.uniform(0.01, 0.04)
        along_x = mask * (stretch[0] * (x - centre[0]) / reach[0] + offset[0])
        along_y = mask * (stretch[1] * (y - centre[1]) / reach[1] + offset[1])
        field = np.stack([along_x, along_y], axis=-1).astype(np.float32)
        forged = displace(forged, field, wave(rng, frames, size), int(rng.choice(INTERPOLATIONS)))
    return forged


def _carried(layer: F32, clip: F32, rng: Generator, context: Context) -> F32:
    """One frame of `layer` in all frames, in half of the cases moved along with the head in `clip`."""
    chosen = int(rng.integers(len(clip)))
    still = np.repeat(layer[chosen : chosen + 1], len(clip), axis=0)
    if rng.random() < 0.5:
        return still
    motion = head_motion(clip, context)
    return shift(still, motion - motion[chosen])


def _inside(
    clip: F32, source: F32, rng: Generator, context: Context, of: tuple[str, ...] = (*FACE, "lower")
) -> F32:
    _, h, w, _ = clip.shape
    mask = region_mask(rng, h, w, context, of=of) * np.float32(rng.uniform(0.8, 1))
    return alpha(clip, source, mask)
