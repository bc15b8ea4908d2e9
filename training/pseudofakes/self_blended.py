"""Self-blended clips: a clip blended with an altered copy of itself, after Shiohara & Yamasaki (CVPR 2022).

Extended in time: what is altered stays the same over a clip or drifts slowly, as with one generator
that redraws one person.
"""

import numpy as np
from numpy.random import Generator

from pipeline.frames import F32
from training.pseudofakes.appearance import recolour, redetail
from training.pseudofakes.blending import alpha
from training.pseudofakes.context import Context
from training.pseudofakes.geometry import move
from training.pseudofakes.masks import region_mask

RECOLOURED, REDETAILED, MOVED = 0.7, 0.7, 0.7
STRENGTHS = (0.5, 0.75, 1.0, 1.0, 1.0)


def self_blended(clip: F32, rng: Generator, context: Context) -> F32:
    """The clip with a part of the face taken from a copy of other colour, detail or place."""
    _, h, w, _ = clip.shape
    mask = region_mask(rng, h, w, context) * np.float32(rng.choice(STRENGTHS))
    return alpha(clip, _source(clip, rng, context), mask)


def _source(clip: F32, rng: Generator, context: Context) -> F32:
    recoloured, redetailed, moved = rng.random(3) < [RECOLOURED, REDETAILED, MOVED]
    source = move(clip, rng, context) if moved else clip
    if redetailed or not (recoloured or moved):
        source = redetail(source, rng)
    if recoloured:
        source = recolour(source, rng)
    return source
