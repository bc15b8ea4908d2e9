"""Photographs that become clips by the small motion of a camera, so that their people count too."""

import numpy as np
from numpy.random import Generator

from pipeline.align import warp
from pipeline.frames import U8
from training.pseudofakes.trajectories import drift, jitter


def filmed(photograph: U8, rng: Generator, *, frames: int, side: int, box: tuple[float, float, float]) -> U8:
    """A clip of a part of a photograph, filmed by hand: uint8 [frames, side, side, C].

    photograph: uint8 [H, W, C]; box: left, top and side in its pixels. Every frame is a camera's own
    sampling of the photograph: each pixel is the mean of the area it covers, and its noise is new. A box
    of hardly more pixels than `side` loses fine detail between them, and the picture's border is repeated
    where the camera looks past it: what is forged must be forged from the filmed clip. Raises ValueError
    when the box has fewer pixels than `side`: it would have to be enlarged.
    """
    left, top, wide = box
    if wide < side:
        raise ValueError(f"a box of {wide:g} pixels can not be filmed at {side} without enlarging it")
    walk = np.cumsum(jitter(rng, frames, rng.uniform(0.05, 0.3), 2), axis=0) + drift(
        rng, frames, 0.02 * side, 2
    )
    turn = drift(rng, frames, 0.01) + np.cumsum(jitter(rng, frames, 0.0005))
    zoom = side / wide * (0.99 + drift(rng, frames, 0.01))
    middle = np.array([left + wide / 2, top + wide / 2])
    noise = rng.uniform(0.4, 2.0)
    clip = np.empty((frames, side, side, photograph.shape[2]), np.uint8)
    for t in range(frames):
        c, s = zoom[t] * np.cos(turn[t]), zoom[t] * np.sin(turn[t])
        onto = np.array([[c, -s], [s, c]])
        offset = side / 2 + walk[t] - onto @ middle
        to_clip = np.hstack([onto, offset[:, None]]).astype(np.float32)
        planes = [
            warp(np.ascontiguousarray(photograph[..., k]), to_clip, side) for k in range(photograph.shape[2])
        ]
        grain = noise * rng.standard_normal((side, side, 1))
        clip[t] = np.clip(np.rint(np.stack(planes, axis=-1) + grain), 0, 255)
    return clip
