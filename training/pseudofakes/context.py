"""What a pseudo-fake may draw on besides its clip, and the shape of every kind of pseudo-fake."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.random import Generator

from pipeline.align import TEMPLATE, TEMPLATE_SIDE
from pipeline.frames import F32

LatentChange = Callable[[F32], F32]
"""From latents [T, D, h, w] of a clip to the latents that are decoded instead, of the same shape."""

ALIGNED_MARGIN = 1.3

CENTRED = np.array([[0.30, 0.34], [0.70, 0.34], [0.50, 0.58], [0.35, 0.82], [0.65, 0.82]], np.float32)
"""Landmarks of a native region, in shares of its width and height: the face fills it, eyebrows to chin."""


class Redrawer(Protocol):
    """A network that draws a clip anew."""

    @property
    def channels(self) -> int:
        """Channels of the clips that it draws: 1 (luma) or 3 (RGB)."""
        ...

    def redraw(self, clip: F32, change: LatentChange | None = None) -> F32:
        """The clip as the network draws it, float32 [T, H, W, C], 0 to 255, of the same shape."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """What goes with a clip.

    landmarks: float32 [5, 2], pixels: eyes, nose and mouth corners, where they are on average;
    regions: names of masks.REGIONS to choose from, empty for the kind's own choice; other: a clip
    of another person, float32 [T', H', W', C] with any T', H', W', and its landmarks; redrawers:
    networks that draw faces.
    """

    landmarks: F32
    regions: Sequence[str] = ()
    other: F32 | None = None
    other_landmarks: F32 | None = None
    redrawers: Sequence[Redrawer] = ()

    @property
    def face_width(self) -> float:
        """Pixels from cheek to cheek, from the distance between eyes and mouth: it outlives a turned head."""
        eyes, mouth = self.landmarks[:2].mean(axis=0), self.landmarks[3:].mean(axis=0)
        return max(8.0, 2.0 * float(np.hypot(*(eyes - mouth))))


Forge = Callable[[F32, Generator, Context], F32]
"""From a real clip, float32 [T, H, W, C], 0 to 255, to a forged one of the same shape, not yet clipped to
the range. Pure: the clip is not written to and the generator alone decides."""


def aligned_landmarks(side: int, margin: float = ALIGNED_MARGIN) -> F32:
    """Where the landmarks of an aligned crop lie, float32 [5, 2]: the template that it was aligned to."""
    centre = TEMPLATE_SIDE / 2
    return (((TEMPLATE - centre) / margin + centre) * (side / TEMPLATE_SIDE)).astype(np.float32)


def centred_landmarks(height: int, width: int) -> F32:
    """Where the landmarks of a native region about lie when the face is centred, float32 [5, 2]."""
    return CENTRED * np.array([width, height], np.float32)


def default_landmarks(height: int, width: int, channels: int) -> F32:
    """Three channels are taken for an aligned crop, one for a native region of luma."""
    return aligned_landmarks(min(height, width)) if channels == 3 else centred_landmarks(height, width)
