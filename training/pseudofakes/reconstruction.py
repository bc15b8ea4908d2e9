"""Reconstruction fakes: faces, or parts of them, that an autoencoder drew anew.

After "Aligned datasets improve detection of latent diffusion-generated images" (arXiv 2410.11835): the
fake differs from its source in nothing but the traces of a decoder. In time, its latents are
smoothed, disturbed or taken from neighbouring frames, as those of generators are.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator

from pipeline.frames import F32
from training.pseudofakes.appearance import regrain
from training.pseudofakes.blending import alpha
from training.pseudofakes.context import Context, LatentChange
from training.pseudofakes.geometry import at_times
from training.pseudofakes.masks import region_mask
from training.pseudofakes.trajectories import drift

MARGIN = 16
REGRAINED, RESCALED = 0.4, 0.5
MOUTHS = ("mouth", "lower", "lower box")


def reconstructed(clip: F32, rng: Generator, context: Context) -> F32:
    """A part of the face as an autoencoder draws it, in half of the cases at 0.5 to 1.3 times its size."""
    return _redrawn(clip, rng, context, None)


def smoothed_latents(clip: F32, rng: Generator, context: Context) -> F32:
    """Redrawn from latents that are means over three frames: detail comes late and goes late."""
    side = np.float32(rng.uniform(0.3, 1))

    def smooth(latents: F32) -> F32:
        before, after = np.roll(latents, 1, axis=0), np.roll(latents, -1, axis=0)
        before[0], after[-1] = latents[0], latents[-1]
        return np.asarray((latents + side * (before + after)) / (1 + 2 * side), np.float32)

    return _redrawn(clip, rng, context, smooth)


def noisy_latents(clip: F32, rng: Generator, context: Context) -> F32:
    """Redrawn from latents with noise of 3 to 15% of their spread, new in each frame."""
    size = rng.uniform(0.03, 0.15)

    def disturb(latents: F32) -> F32:
        noise = rng.standard_normal(latents.shape, dtype=np.float32)
        return np.asarray(latents + size * latents.std() * noise, np.float32)

    return _redrawn(clip, rng, context, disturb)


def redrawn_mouth(clip: F32, rng: Generator, context: Context) -> F32:
    """The mouth drawn from the latents of other frames, up to two away: it says what was not said."""
    times = np.arange(len(clip)) + rng.choice([-2, -1, 1, 2]) + drift(rng, len(clip), 0.5)
    return _redrawn(clip, rng, context, lambda latents: at_times(latents, times), MOUTHS)


def _redrawn(
    clip: F32,
    rng: Generator,
    context: Context,
    change: LatentChange | None,
    of: tuple[str, ...] | None = None,
) -> F32:
    network = context.redrawers[int(rng.integers(len(context.redrawers)))]
    _, h, w, _ = clip.shape
    mask = region_mask(rng, h, w, context) if of is None else region_mask(rng, h, w, context, of=of)
    rows, columns = _around(mask)
    inner = clip[:, rows, columns]
    scale = rng.uniform(0.5, 1.3) if rng.random() < RESCALED else 1.0
    drawn = _at_scale(inner, scale, lambda part: network.redraw(part, change))
    if rng.random() < REGRAINED:
        drawn = regrain(drawn, inner, rng)
    forged = clip.copy()
    forged[:, rows, columns] = alpha(inner, drawn, mask[rows, columns])
    return forged


def _around(mask: F32) -> tuple[slice, slice]:
    """Rows and columns of a mask and a margin, so that only what is pasted is drawn."""
    spans = []
    for axis in (1, 0):
        held = np.flatnonzero(mask[..., 0].any(axis=axis))
        spans.append(slice(max(0, int(held[0]) - MARGIN), int(held[-1]) + 1 + MARGIN))
    return spans[0], spans[1]


def _at_scale(clip: F32, scale: float, how: Callable[[F32], F32]) -> F32:
    if scale == 1:
        return how(clip)
    h, w = clip.shape[1:3]
    size = (max(16, round(w * scale)), max(16, round(h * scale)))
    small = np.stack([_resized(frame, size) for frame in clip]).reshape(len(clip), size[1], size[0], -1)
    drawn = how(small)
    resized = [_resized(frame, (w, h)) for frame in drawn]
    return np.stack(resized).reshape(clip.shape)


def _resized(frame: F32, size: tuple[int, int]) -> F32:
    shrinks = size[0] < frame.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(frame, size, interpolation=how), np.float32)
