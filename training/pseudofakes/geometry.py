"""Clips moved in space and in time. Clips are float32 [T, H, W, C], 0 to 255."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pipeline.frames import F32
from training.pseudofakes.context import Context
from training.pseudofakes.trajectories import drift

INTERPOLATIONS = (cv2.INTER_LINEAR, cv2.INTER_LINEAR, cv2.INTER_CUBIC)


def each(how: Callable[[F32, int], F32], clip: F32) -> F32:
    """`how(frame, t)` of every frame; a frame is [H, W] where there is one channel, else [H, W, C]."""
    moved = np.empty_like(clip)
    frames = clip[..., 0] if clip.shape[-1] == 1 else clip
    out = moved[..., 0] if clip.shape[-1] == 1 else moved
    for t, frame in enumerate(frames):
        out[t] = how(frame, t)
    return moved


def shift(clip: F32, offsets: F32, interpolation: int = cv2.INTER_LINEAR) -> F32:
    """Each frame moved by its offset, float32 [T, 2] (x, y), pixels; the border is repeated."""
    h, w = clip.shape[1:3]

    def once(frame: F32, t: int) -> F32:
        matrix = np.array([[1, 0, offsets[t, 0]], [0, 1, offsets[t, 1]]], np.float32)
        moved = cv2.warpAffine(frame, matrix, (w, h), flags=interpolation, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(moved, np.float32)

    return each(once, clip)


def elastic(rng: Generator, height: int, width: int, size: float, cells: int) -> F32:
    """A smooth random field of displacements, float32 [height, width, 2], about `size` pixels."""
    coarse = np.float32(size) * np.clip(rng.standard_normal((cells, cells, 2), dtype=np.float32), -2, 2)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def move(clip: F32, rng: Generator, context: Context, size: float = 1.0) -> F32:
    """A face that is not quite where it was: a small affine transform and an elastic one, drifting.

    size scales all of it; 1 turns by up to 2 degrees, scales by up to 3% and shifts by up to 3% of
    the width of the face, with elastic displacements of 1% of it.
    """
    frames, h, w = clip.shape[:3]
    centre = context.landmarks.mean(axis=0)
    turn, stretch_x, stretch_y = (size * rng.uniform(-1, 1, 3) * [0.035, 0.03, 0.03]).astype(np.float32)
    offset = (size * rng.uniform(-1, 1, 2) * 0.03 * context.face_width).astype(np.float32)
    bend = elastic(rng, h, w, size * 0.01 * context.face_width, int(rng.integers(3, 7)))
    sway = size * 0.01 * context.face_width * drift(rng, frames, 1, 2)
    y, x = np.mgrid[:h, :w].astype(np.float32)
    from_x, from_y = x - np.float32(centre[0]), y - np.float32(centre[1])
    map_x = x + stretch_x * from_x - turn * from_y + offset[0] + bend[..., 0]
    map_y = y + turn * from_x + stretch_y * from_y + offset[1] + bend[..., 1]
    how = int(rng.choice(INTERPOLATIONS))
    return each(lambda frame, t: _remap(frame, map_x + sway[t, 0], map_y + sway[t, 1], how), clip)


def displace(clip: F32, field: F32, amount: F32, interpolation: int = cv2.INTER_LINEAR) -> F32:
    """Each frame seen through `field` [H, W, 2] of displacements, times the frame's amount [T]."""
    h, w = clip.shape[1:3]
    y, x = np.mgrid[:h, :w].astype(np.float32)

    def once(frame: F32, t: int) -> F32:
        return _remap(frame, x + amount[t] * field[..., 0], y + amount[t] * field[..., 1], interpolation)

    return each(once, clip)


def at_times(clip: F32, times: NDArray[np.number[Any]]) -> F32:
    """The clip at other times, [T'] in frames, held within the clip.

    Between two frames lies their mean, as where a generator interpolates or blends them.
    """
    held = np.clip(times, 0, len(clip) - 1)
    before = np.floor(held).astype(int)
    after = np.minimum(before + 1, len(clip) - 1)
    share = (held - before).astype(np.float32)[:, None, None, None]
    if not share.any():
        return np.asarray(clip[before], np.float32)
    first = clip[before]
    return np.asarray(first + share * (clip[after] - first), np.float32)


def head_motion(clip: F32, context: Context) -> F32:
    """How far the face has moved since the middle frame, float32 [T, 2] (x, y), pixels.

    Translation alone, by phase correlation (Kuglin & Hines 1975) at half the size, limited to an
    eighth of the face. Where the peak is weak, as in a flat picture, the face is taken to be still.
    """
    small = _half_luma(clip)
    h, w = small.shape[1:]
    window = np.outer(np.hanning(h), np.hanning(w))
    spectrum = np.fft.rfft2(window * (small - small.mean()))
    cross = spectrum * spectrum[len(small) // 2].conj()
    # A Gaussian over the frequencies makes the peak one too, and three points of it give away its top.
    y, x = np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None]
    phase = cross / (np.abs(cross) + 1e-3 * h * w) * np.exp(-(x**2 + y**2) / (2 * 0.15**2))
    surface = np.fft.irfft2(phase, s=(h, w))
    most = max(1, round(context.face_width / 16))
    return 2 * np.stack([_peak(np.fft.fftshift(s), most) for s in surface])


def _peak(surface: NDArray[np.floating], most: int) -> F32:
    h, w = surface.shape
    top, left = h // 2 - min(most, h // 2 - 1), w // 2 - min(most, w // 2 - 1)
    near = surface[top : h - top, left : w - left]
    y, x = np.unravel_index(int(near.argmax()), near.shape)
    y, x = y + top, x + left
    if surface[y, x] < 0.02:
        return np.zeros(2, np.float32)
    rows, columns = surface[y - 1 : y + 2, x], surface[y, x - 1 : x + 2]
    return np.array([x - w // 2 + _vertex(columns), y - h // 2 + _vertex(rows)], np.float32)


def _vertex(three: NDArray[np.floating[Any]]) -> float:
    before, at, after = np.log(np.maximum(three, 1e-6))
    bend = before - 2 * at + after
    return 0.0 if bend >= 0 else float(np.clip((before - after) / (2 * bend), -0.5, 0.5))


def _half_luma(clip: F32) -> F32:
    luma = clip[..., 0] if clip.shape[-1] == 1 else clip @ np.array([0.299, 0.587, 0.114], np.float32)
    h, w = luma.shape[1] // 2 * 2, luma.shape[2] // 2 * 2
    even = luma[:, :h, :w]
    halved = even[:, ::2, ::2] + even[:, 1::2, ::2] + even[:, ::2, 1::2] + even[:, 1::2, 1::2]
    return np.ascontiguousarray(halved / 4, np.float32)


def _remap(frame: F32, map_x: F32, map_y: F32, interpolation: int) -> F32:
    moved = cv2.remap(frame, map_x, map_y, interpolation, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.float32)
