"""How a parameter of a forgery runs through a clip: slowly or from frame to frame."""

import numpy as np
from numpy.random import Generator

from pipeline.frames import F32


def drift(rng: Generator, frames: int, size: float, *shape: int) -> F32:
    """A slow wave about zero, float32 [frames, *shape], within +-size: at most one period in 24 frames."""
    time = np.arange(frames).reshape(-1, *([1] * len(shape)))
    phase = rng.uniform(0, 2 * np.pi, (1, *shape))
    speed = rng.uniform(0, 2 * np.pi / 24, (1, *shape))
    return (size * rng.uniform(0, 1, (1, *shape)) * np.sin(phase + speed * time)).astype(np.float32)


def wave(rng: Generator, frames: int, size: float) -> F32:
    """The motion of a feature of the face, float32 [frames], within +-size: a period of 6 to 20 frames."""
    period, phase = rng.uniform(6, 20), rng.uniform(0, 2 * np.pi)
    return np.asarray(size * np.sin(phase + 2 * np.pi / period * np.arange(frames)), np.float32)


def jitter(rng: Generator, frames: int, size: float, *shape: int) -> F32:
    """White noise of standard deviation `size`, float32 [frames, *shape], cut at three deviations."""
    noise = np.clip(rng.standard_normal((frames, *shape), dtype=np.float32), -3, 3)
    return np.asarray(size * noise, np.float32)
