"""Masks of parts of a face: outlines placed by five landmarks, deformed, filled and softened."""

import cv2
import numpy as np
from numpy.random import Generator

from pipeline.align import TEMPLATE, similarity
from pipeline.frames import F32
from training.pseudofakes.context import Context

POINTS = 24
PICTURE = "picture"


def _oval(x: float, y: float, radius_x: float, radius_y: float, power: float = 2.0) -> F32:
    # |x|^p + |y|^p = 1: an ellipse for 2, nearer to a rectangle the larger p is.
    angle = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    c, s = np.cos(angle), np.sin(angle)
    point = np.stack([np.sign(c) * np.abs(c) ** (2 / power), np.sign(s) * np.abs(s) ** (2 / power)], axis=1)
    return (point * [radius_x, radius_y] + [x, y]).astype(np.float32)


REGIONS: dict[str, F32] = {
    "face": _oval(56, 69, 42, 52, 2.3),
    "inner": _oval(56, 72, 31, 38, 2.3),
    "lower": _oval(56, 92, 36, 28, 2.5),
    "eyes": _oval(56, 51, 33, 13, 2.8),
    "mouth": _oval(56, 92, 24, 15),
    "box": _oval(56, 70, 44, 54, 40),
    "lower box": _oval(56, 93, 38, 28, 40),
    "left eye": _oval(38, 51, 14, 11),
    "right eye": _oval(74, 51, 14, 11),
    "nose": _oval(56, 68, 13, 16),
}
"""Outlines in the pixels of the 112 template, float32 [POINTS, 2]. The boxes are what lip-sync
generators paste back. Besides them there is PICTURE: everything is redrawn."""

FORGED = ("face", "face", "inner", "inner", "lower", "eyes", "mouth", "box", "lower box", PICTURE)
"""What forgeries replace, as often as a kind chooses it when nothing narrows the choice."""


def outline(region: str, landmarks: F32, rng: Generator, rough: float = 0.12) -> F32:
    """The outline of a region on a face, float32 [POINTS, 2], pixels, randomly deformed.

    rough: how far the radius swings, as a share of itself; the whole is also shifted and scaled a
    little. Boxes stay boxes. Raises KeyError for an unknown region.
    """
    to_face = similarity(TEMPLATE.astype(np.float32), landmarks)
    points = REGIONS[region] @ to_face[:, :2].T + to_face[:, 2]
    centre = points.mean(axis=0)
    scale = rng.uniform(0.85, 1.15, 2)
    shift = rng.uniform(-0.06, 0.06, 2) * np.ptp(points, axis=0)
    swing = np.zeros(POINTS)
    if not region.endswith("box"):
        angle = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
        for order in range(1, 5):
            swing += rng.uniform(-rough, rough) / order * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    return np.asarray((points - centre) * scale * (1 + swing[:, None]) + centre + shift, np.float32)


def fill(points: F32, height: int, width: int, softness: float) -> F32:
    """The mask of an outline, float32 [height, width], 0 to 1; zero beyond three `softness` of it.

    softness: standard deviation in pixels of the Gaussian that softens the edge.
    """
    mask = np.zeros((height, width), np.float32)
    # Sixteenths of a pixel; far points are cut since OpenCV keeps coordinates in 32 bits.
    fixed = np.rint(np.clip(points, -1e4, 1e4) * 16).astype(np.int32)
    cv2.fillPoly(mask, [fixed], 1.0, cv2.LINE_8, 4)
    reach = max(1, int(3 * softness)) * 2 + 1
    soft = cv2.GaussianBlur(mask, (reach, reach), softness)
    return np.asarray(soft, np.float32)


def softness(rng: Generator, context: Context) -> float:
    """How soft the edge of a mask is, in pixels: from a hard cut to an eighth of the face."""
    return max(0.5, context.face_width * float(rng.choice([0.01, 0.03, 0.06, 0.12])) * rng.uniform(0.6, 1.2))


def region_mask(
    rng: Generator, height: int, width: int, context: Context, *, of: tuple[str, ...] = FORGED
) -> F32:
    """The mask of a random region, float32 [height, width, 1], 0 to 1; something of it is 0.5 or more.

    of: regions to choose from, unless the context names its own. A region that lies outside of the
    picture gives way to the face, and that to the whole picture.
    """
    region = str(rng.choice(list(context.regions or of)))
    for chosen in (region, "face"):
        if chosen == PICTURE:
            break
        mask = fill(outline(chosen, context.landmarks, rng), height, width, softness(rng, context))
        if mask.max() >= 0.5:
            return mask[..., None]
    return np.ones((height, width, 1), np.float32)
