"""Clips whose picture looks different though nothing moves: colour, detail, noise.

Clips are float32 [T, H, W, C], 0 to 255, C = 1 (luma) or 3 (RGB). What comes back is not clipped.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator

from pipeline.frames import F32
from training.pseudofakes.geometry import each
from training.pseudofakes.trajectories import drift

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def recolour(clip: F32, rng: Generator, size: float = 1.0) -> F32:
    """Other light: gain and offset, gamma in luma, hue and saturation in RGB; drifting slowly.

    size scales all of it; 1 is a gain of +-10%, an offset of +-10 levels, hue +-0.15 radians,
    saturation +-20%, gamma +-10%.
    """
    frames = len(clip)
    gain = 1 + size * (rng.uniform(-0.1, 0.1) + drift(rng, frames, 0.015))
    offset = size * (rng.uniform(-10, 10) + drift(rng, frames, 1.5))
    gamma, hue, saturation = size * rng.uniform(-1, 1, 3) * [0.1, 0.15, 0.2]
    if clip.shape[-1] == 1:
        curve = 255 * np.linspace(0, 1, 256) ** (1 + gamma)
        return _graded(clip, gain, offset, curve)
    matrix = _colour_matrix(hue, 1 + saturation)
    return each(
        lambda frame, t: np.asarray(cv2.transform(frame, gain[t] * matrix), np.float32) + offset[t], clip
    )


def _graded(clip: F32, gain: F32, offset: F32, curve: np.ndarray) -> F32:
    # A parabola through the curve's ends and middle: the gamma of a clip in two multiplications.
    middle = 4 * (curve[128] - 128) / 255**2
    bent = clip + np.float32(middle) * clip * (255 - clip)
    return np.asarray(gain[:, None, None, None] * bent + offset[:, None, None, None], np.float32)


def _colour_matrix(hue: float, saturation: float) -> F32:
    """Turns chroma by `hue` radians and scales it, luma kept: R, G, B in and out, float32 [3, 3]."""
    grey = np.tile(LUMA, (3, 1)).astype(np.float64)
    third = np.full((3, 3), 1 / 3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    turn = np.cos(hue) * np.eye(3) + (1 - np.cos(hue)) * third + np.sin(hue) * cross
    turned = saturation * turn
    return np.asarray(turned + grey - grey @ turned, np.float32)


def resample(clip: F32, rng: Generator) -> F32:
    """Drawn at 0.35 to 0.9 of the size and enlarged, as by a generator of fixed size."""
    h, w = clip.shape[1:3]
    share = rng.uniform(0.35, 0.9)
    small = (max(8, round(w * share)), max(8, round(h * share)))
    down = int(rng.choice([cv2.INTER_AREA, cv2.INTER_AREA, cv2.INTER_LINEAR]))
    up = int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST]))

    def once(frame: F32, _: int) -> F32:
        shrunk = cv2.resize(frame, small, interpolation=down)
        return np.asarray(cv2.resize(shrunk, (w, h), interpolation=up), np.float32)

    return each(once, clip)


def enlarge(clip: F32, rng: Generator) -> F32:
    """Drawn at 1.2 to 2 times the size and shrunk: no detail is lost, but pixels are mixed."""
    h, w = clip.shape[1:3]
    share = rng.uniform(1.2, 2)
    large = (round(w * share), round(h * share))
    down = int(rng.choice([cv2.INTER_AREA, cv2.INTER_LINEAR]))

    def once(frame: F32, _: int) -> F32:
        enlarged = cv2.resize(frame, large, interpolation=cv2.INTER_LINEAR)
        return np.asarray(cv2.resize(enlarged, (w, h), interpolation=down), np.float32)

    return each(once, clip)


def soften(clip: F32, rng: Generator) -> F32:
    """Gaussian blur, sigma 0.4 to 1.4 pixels."""
    sigma = rng.uniform(0.4, 1.4)
    return each(lambda frame, _: _gaussian(frame, sigma), clip)


def denoise(clip: F32, rng: Generator) -> F32:
    """Edge-keeping smoothing: noise and fine texture go, contours stay (Tomasi & Manduchi, 1998)."""
    tone, space = rng.uniform(8, 30), rng.uniform(1.5, 4)
    return each(lambda frame, _: np.asarray(cv2.bilateralFilter(frame, 5, tone, space), np.float32), clip)


def sharpen(clip: F32, rng: Generator) -> F32:
    """Unsharp mask, amount 0.3 to 1.3, as face restorers leave behind."""
    amount, sigma = np.float32(rng.uniform(0.3, 1.3)), rng.uniform(0.8, 1.8)
    return each(lambda frame, _: frame + amount * (frame - _gaussian(frame, sigma)), clip)


DETAILS: tuple[Callable[[F32, Generator], F32], ...] = (resample, enlarge, soften, denoise, sharpen)


def redetail(clip: F32, rng: Generator) -> F32:
    """One of DETAILS; half of what was smoothed is grained, so that smoothness alone gives nothing away."""
    how = DETAILS[int(rng.integers(len(DETAILS)))]
    changed = how(clip, rng)
    return regrain(changed, clip, rng) if rng.random() < 0.5 else changed


def regrain(changed: F32, clip: F32, rng: Generator) -> F32:
    """Grain in place of the fine detail that `changed` lost against `clip`: half to a little more of it.

    One field of noise, alike in all channels, is cut at another place for every frame: new noise for
    each pixel takes longer than all the rest of a forgery.
    """
    lost = _roughness(clip) - _roughness(changed)
    if lost <= 0:
        return changed
    frames, h, w = clip.shape[:3]
    # Grain of cameras is seldom white: scaling and encoding have run it together.
    field = _gaussian(rng.standard_normal((h + 16, w + 16), dtype=np.float32), rng.uniform(0.3, 0.8))
    field *= np.float32(np.sqrt(rng.uniform(0.5, 1.2) * lost / _roughness(field[None, ..., None])))
    # Three pixels apart, so that no frame has the grain of another, moved by less than it is wide.
    at = rng.permutation(36)[np.arange(frames) % 36]
    cuts = [field[y : y + h, x : x + w] for y, x in zip(at // 6 * 3, at % 6 * 3, strict=True)]
    return changed + np.stack(cuts)[..., None]


def regrain_changed(forged: F32, clip: F32, rng: Generator) -> F32:
    """`regrain` of what differs from `clip`, and of nothing else."""
    changed = np.abs(forged - clip).max(axis=(0, 3))
    rows, columns = (np.flatnonzero((changed >= 1).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return forged
    box = np.s_[:, max(0, rows[0] - 2) : rows[-1] + 3, max(0, columns[0] - 2) : columns[-1] + 3]
    # Grain fades in with the change, so that it never draws an edge of its own.
    share = np.clip(cv2.boxFilter(changed, -1, (7, 7)), 0, 1) * (changed > 0)
    grained = forged.copy()
    grained[box] += share[box[1:]][..., None] * (regrain(forged[box], clip[box], rng) - forged[box])
    return grained


def _roughness(clip: F32) -> float:
    """Mean square of the second differences of the middle frame, without strong edges."""
    middle = clip[len(clip) // 2]
    across = middle[:, 2:] - 2 * middle[:, 1:-1] + middle[:, :-2]
    down = middle[2:] - 2 * middle[1:-1] + middle[:-2]
    return float(np.square(np.clip(across, -20, 20)).mean() + np.square(np.clip(down, -20, 20)).mean())


def _gaussian(frame: F32, sigma: float) -> F32:
    return np.asarray(cv2.GaussianBlur(frame, (0, 0), sigma), np.float32)
