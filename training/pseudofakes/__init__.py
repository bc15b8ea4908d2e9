"""Pseudo-fakes: forgeries of real training clips, each aligned with its source in all but the forgery.

`make` forges a clip; `KINDS` names what it can do. Works on aligned crops in RGB and on native regions
of luma alike. No generator's output is involved.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.random import Generator

from pipeline.frames import F32, U8
from training.pseudofakes import another_face, in_time, reconstruction
from training.pseudofakes.appearance import regrain_changed
from training.pseudofakes.context import Context, Forge, Redrawer, default_landmarks
from training.pseudofakes.self_blended import self_blended

LEAST_SIDE = 48
SECOND, REGRAINED = 0.3, 0.3
LEAST_SHARE = 0.02

Need = Literal["other", "redrawers"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of pseudo-fake.

    share: how often it is made, against the others; needs: what its context must hold;
    moves: it shows in time alone, so a clip in which nothing moves may come back unchanged.
    """

    forge: Forge
    share: float = 1.0
    needs: Need | None = None
    moves: bool = False


KINDS: dict[str, Kind] = {
    "self_blended": Kind(self_blended, 8),
    "jittered": Kind(in_time.jittered),
    "lagging": Kind(in_time.lagging, moves=True),
    "held": Kind(in_time.held, moves=True),
    "averaged": Kind(in_time.averaged, moves=True),
    "flickering": Kind(in_time.flickering),
    "frozen": Kind(in_time.frozen, moves=True),
    "sticking_texture": Kind(in_time.sticking_texture, moves=True),
    "steady": Kind(in_time.steady, moves=True),
    "parted_times": Kind(in_time.parted_times, moves=True),
    "parted_motion": Kind(in_time.parted_motion),
    "swapped": Kind(another_face.swapped, 2, needs="other"),
    "seamlessly_swapped": Kind(another_face.seamlessly_swapped, 2, needs="other"),
    "reconstructed": Kind(reconstruction.reconstructed, 4, needs="redrawers"),
    "smoothed_latents": Kind(reconstruction.smoothed_latents, needs="redrawers"),
    "noisy_latents": Kind(reconstruction.noisy_latents, needs="redrawers"),
    "redrawn_mouth": Kind(reconstruction.redrawn_mouth, needs="redrawers"),
}


def make(
    clip: U8,
    rng: Generator,
    *,
    landmarks: F32 | None = None,
    other: U8 | None = None,
    other_landmarks: F32 | None = None,
    redrawers: Sequence[Redrawer] = (),
    kinds: Sequence[str] | None = None,
) -> U8:
    """A pseudo-fake of a real clip, uint8 of the same shape [T, H, W, C], C = 1 (luma) or 3 (RGB).

    landmarks: float32 [5, 2], where eyes, nose and mouth corners are on average; without them three
    channels are taken for an aligned crop and one for a native region with the face in its middle.
    other: a clip of another person in the same colours, for face swaps, and its landmarks;
    redrawers: trained autoencoders, of which those of the clip's channels are used; kinds: names of
    KINDS, by default all that the context allows.
    Raises ValueError for a shape, a kind or a need that can not be met.
    """
    h, w, channels = _checked(clip)
    if other is not None and (other.ndim != 4 or other.shape[-1] != channels or not other.size):
        raise ValueError(f"the other clip is [T, H, W, {channels}] as this one, not {other.shape}")
    context = Context(
        default_landmarks(h, w, channels) if landmarks is None else landmarks,
        other=None if other is None else other.astype(np.float32),
        other_landmarks=other_landmarks,
        redrawers=redrawers,
    )
    forged = forge(clip.astype(np.float32), rng, context, kinds)
    return np.rint(forged).astype(np.uint8)


def forge(clip: F32, rng: Generator, context: Context, kinds: Sequence[str] | None = None) -> F32:
    """`make` for clips in float32, 0 to 255, without rounding; the answer is clipped to that range.

    By chance a second kind comes on top of the first, and grain where detail was lost. Where less
    than LEAST_SHARE of the values changed by a level (nothing moves, say), self-blending comes on
    top: what is labelled as forged is forged.
    """
    fitting = [r for r in context.redrawers if r.channels == clip.shape[-1]]
    context = replace(context, redrawers=fitting)
    allowed = _allowed(kinds, context)
    share = np.array([KINDS[name].share for name in allowed])
    count = 2 if len(allowed) > 1 and rng.random() < SECOND else 1
    forged = clip
    for name in rng.choice(allowed, count, replace=False, p=share / share.sum()):
        forged = KINDS[str(name)].forge(forged, rng, context)
    if rng.random() < REGRAINED:
        forged = regrain_changed(forged, clip, rng)
    forged = np.clip(forged, 0, 255)
    while (np.abs(forged - clip) >= 1).mean() < LEAST_SHARE:
        forged = np.clip(self_blended(forged, rng, context), 0, 255)
    return forged


def _checked(clip: U8) -> tuple[int, int, int]:
    if clip.ndim != 4 or clip.shape[3] not in {1, 3} or min(clip.shape[1:3]) < LEAST_SIDE or len(clip) < 2:
        raise ValueError(
            f"a clip is [T, H, W, C] with two frames or more, sides of {LEAST_SIDE} or more and one or three "
            f"channels, not {clip.shape}"
        )
    return clip.shape[1], clip.shape[2], clip.shape[3]


def _allowed(kinds: Sequence[str] | None, context: Context) -> list[str]:
    has = {"other": context.other is not None, "redrawers": bool(context.redrawers)}
    if kinds is None:
        return [name for name, kind in KINDS.items() if kind.needs is None or has[kind.needs]]
    for name in kinds:
        if name not in KINDS:
            raise ValueError(f"no kind of pseudo-fake is called {name}; there are {', '.join(KINDS)}")
        need = KINDS[name].needs
        if need is not None and not has[need]:
            raise ValueError(f"{name} needs {need}")
    if not kinds:
        raise ValueError("no kind of pseudo-fake to choose from")
    return list(kinds)
