"""Whether a fake's face differs from its original's, measured: some fakes of DFDC have only their sound
altered, and a detector of pictures must not be taught that these are fakes."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.align import warp
from pipeline.decode import open_clip
from pipeline.frames import F32, Frame
from pipeline.media import Limits

LOOKS = 16
"""Frames of a clip that are compared."""

SIDE, CELL = 112, 8
"""Faces are compared at this size, in cells of this many pixels a side."""

ALTERED = 8.0
"""Grey levels of 255 from which a face is altered. Measured as below on 44 pairs of a forgery and its own
footage: 13.7 and more. On 23 clips re-encoded by x264: at most 1.9 at crf 23, 4.7 at crf 32."""


ROUNDING_S = 0.001
"""Matroska keeps times in milliseconds."""

F64 = NDArray[np.float64]


def face_difference(fake: Path, original: Path, boxes: F32, limits: Limits) -> float | None:
    """How far a face is from the same place and time in the original, in grey levels, 0 to 255.

    boxes: float32 [K, 5], rows of (time_s, x, y, w, h) where the fake shows the face, in its pixels. Of
    each frame it is the mean difference of the most different cell: encoding moves single pixels to and
    fro, which a mean cancels, a forgery moves features. The clip's value is the median over its frames.
    Moments that one of the two does not show are left out.
    None when no frame can be compared. Raises MediaError or OSError.
    """
    rows = boxes[np.linspace(0, len(boxes) - 1, min(LOOKS, len(boxes))).round().astype(int)]
    times = [float(t) for t in rows[:, 0]]
    altered, untouched = _frames(fake, times, limits), _frames(original, times, limits)
    found = [
        _largest(a, b, row[1:])
        for a, b, row in zip(altered, untouched, rows, strict=True)
        if a is not None and b is not None
    ]
    return float(np.median(found)) if found else None


def _frames(path: Path, times: Sequence[float], limits: Limits) -> list[Frame | None]:
    """The frame shown at each of the times, which grow; None where there is none or it can not be decoded."""
    with open_clip(path, limits) as clip:
        indexes = nearest(np.array(clip.times_s), times)
        plan = [range(k, k + 1) for k in sorted({k for k in indexes if k is not None})]
        frames = {burst[0].index: burst[0] for burst in clip.bursts(plan)}
    return [None if k is None else frames.get(k) for k in indexes]


def nearest(shown_s: F64, times: Sequence[float]) -> list[int | None]:
    """Of each time the index of the frame that is nearest, None where it is over half a frame away.

    shown_s: float64 [N], when frames are shown, in seconds, in order; a frame lasts as long as most do. After
    the end of a clip, or in a gap, there is no picture to compare with.
    """
    reach = (float(np.median(np.diff(shown_s))) / 2 if len(shown_s) > 1 else 0.0) + ROUNDING_S
    found = [int(np.abs(shown_s - t).argmin()) for t in times]
    return [k if abs(shown_s[k] - t) <= reach else None for k, t in zip(found, times, strict=True)]


def _largest(a: Frame, b: Frame, box: F32) -> float:
    scale = np.array([b.width / a.width, b.height / a.height] * 2, np.float32)
    difference = _face(a, box) - _face(b, box * scale)
    cells = cv2.resize(difference, (SIDE // CELL, SIDE // CELL), interpolation=cv2.INTER_AREA)
    return float(np.abs(cells).max())


def _face(frame: Frame, box: F32) -> F32:
    """The luma of a box at sub-pixel places, so that a copy of another size shows the same cells."""
    x, y, w, h = (float(v) for v in box)
    across, down = SIDE / max(w, 1.0), SIDE / max(h, 1.0)
    places = [[across, 0, (0.5 - x) * across - 0.5], [0, down, (0.5 - y) * down - 0.5]]
    return warp(frame.y, np.array(places, np.float32), SIDE).astype(np.float32)
