"""One clip blended into another by a mask.

Clips are float32 [T, H, W, C], 0 to 255; masks float32 [H, W, 1] or [T, H, W, 1], 0 to 1.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.frames import F32

SWEEPS = 8
NEIGHBOURS = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32) / 4
KNOWN = 4
"""Pixels of sixteen that have to lie outside of a mask to tell the light there."""


def alpha(target: F32, source: F32, mask: F32) -> F32:
    """`source` where the mask is 1, `target`, bit for bit, where it is 0."""
    return np.asarray(target + mask * (source - target), np.float32)


def poisson(target: F32, source: F32, mask: F32) -> F32:
    """The gradients of `source` in the light of `target` (Pérez, Gangnet & Blake, SIGGRAPH 2003).

    mask: [H, W, 1]; what is above one half is filled. The solution of Poisson's equation is the source
    plus a membrane: the harmonic interpolation of the difference along the boundary. It is smooth,
    so it is solved at a quarter of the size. Then the mask blends as in `alpha`. A mask without a
    boundary leaves nothing to fit: the source comes as it is.
    """
    frames, h, w, channels = target.shape
    layers = (target - source).transpose(1, 2, 0, 3).reshape(h, w, frames * channels)
    known = np.asarray(mask <= 0.5, np.float32)
    light, weight = _halved(*_halved(layers * known, known))
    membrane = harmonic(_ratio(light, weight), weight[..., 0] >= KNOWN)
    full = _doubled(_doubled(membrane))[:h, :w]
    lifted = source + full.reshape(h, w, frames, channels).transpose(2, 0, 1, 3)
    return alpha(target, np.asarray(lifted, np.float32), mask)


def harmonic(values: F32, known: NDArray[np.bool_]) -> F32:
    """`values` [H, W, N] kept where `known` [H, W] and continued harmonically elsewhere.

    Coarse to fine: half the size gives the first guess, then Jacobi sweeps. Zero where nothing is known.
    """
    if not known.any():
        return np.zeros_like(values)
    if known.all():
        return values
    h, w = known.shape
    kept = known[..., None]
    light, weight = _halved(values * kept, kept.astype(np.float32))
    guess = _doubled(harmonic(_ratio(light, weight), weight[..., 0] > 0))[:h, :w]
    filled = np.where(kept, values, guess).astype(np.float32)
    for _ in range(SWEEPS):
        around = cv2.filter2D(filled, -1, NEIGHBOURS, borderType=cv2.BORDER_REPLICATE)
        np.copyto(filled, np.asarray(around).reshape(filled.shape), where=~kept)
    return filled


def _halved(*layers: F32) -> list[F32]:
    """Sums over blocks of 2 x 2, what lies beyond the border being zero."""
    halves = []
    for layer in layers:
        odd = layer.shape[0] % 2, layer.shape[1] % 2
        even = np.pad(layer, ((0, odd[0]), (0, odd[1]), (0, 0))) if any(odd) else layer
        rows = even[::2] + even[1::2]
        halves.append(rows[:, ::2] + rows[:, 1::2])
    return halves


def _doubled(layers: F32) -> F32:
    h, w, depth = layers.shape
    doubled = cv2.resize(layers, (2 * w, 2 * h), interpolation=cv2.INTER_LINEAR)
    return np.asarray(doubled, np.float32).reshape(2 * h, 2 * w, depth)


def _ratio(sums: F32, weight: F32) -> F32:
    return np.asarray(sums / np.maximum(weight, 1e-6), np.float32)
