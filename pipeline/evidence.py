"""What an answer shows of a face's track: its way through the clip, and the looks that carried its score."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.answer import Box, FaceAt, FaceLook, Stretch
from pipeline.bundle import Manifest
from pipeline.frames import F32
from pipeline.prepared import TrackOutline
from pipeline.scores import TrackScores, calibrated

MOST_LOOKS = 5
"""Looks named as the evidence for a face's score."""
APART_S = 0.25
"""Looks that lie closer show the same, and only the most suspicious of them is named."""


@dataclass(frozen=True, slots=True)
class LookAt:
    """One look at a face: all windows of a burst, or one aligned frame.

    first, stop: its samples in the track; fake: the calibrated mean of their probabilities; box: float32 [4],
    the face meanwhile, x, y, width and height.
    """

    first: int
    stop: int
    time_s: float
    fake: float
    box: F32


def looks_at(track: TrackOutline, scores: TrackScores, manifest: Manifest) -> list[LookAt]:
    """All whole looks at a face, in order of time."""
    each = manifest.crop.samples_per_burst
    looks = []
    for first in range(0, len(scores.steps) - each + 1, each):
        fake = float(scores.steps[first : first + each, 1].mean())
        start, end = float(track.start_s[first]), float(track.end_s[first])
        looks.append(
            LookAt(
                first, first + each, start, calibrated(fake, manifest.calibration), _box(track, start, end)
            )
        )
    return looks


def most_suspicious(looks: Sequence[LookAt], count: int) -> list[LookAt]:
    """The looks of highest score, the highest first, none within `APART_S` of a higher one."""
    chosen: list[LookAt] = []
    for look in sorted(looks, key=lambda look: (-look.fake, look.time_s)):
        if len(chosen) == count:
            break
        if all(abs(look.time_s - other.time_s) >= APART_S for other in chosen):
            chosen.append(look)
    return chosen


def evidence(looks: Sequence[LookAt]) -> list[FaceLook]:
    """The few looks that carried the score of a face, as the answer names them."""
    return [
        FaceLook(time_s=seconds(look.time_s), fake=look.fake, box=rounded(look.box))
        for look in most_suspicious(looks, MOST_LOOKS)
    ]


def way(track: TrackOutline) -> list[FaceAt]:
    """Where the face was found, in order of time."""
    return [FaceAt(time_s=seconds(row[0]), box=rounded(row[1:])) for row in _in_order(track)]


def gaps(spans: Sequence[tuple[float, float]], duration_s: float, *, shortest_s: float) -> list[Stretch]:
    """The stretches of a clip between spans, of `shortest_s` at least; none where no span is known."""
    found = []
    until = 0.0
    for start, end in [*sorted(spans), (duration_s, duration_s)] if spans else []:
        if start - until >= shortest_s and start > until:
            found.append(Stretch(start_s=seconds(until), end_s=seconds(start)))
        until = max(until, end)
    return found


def seconds(time: float) -> float:
    """A time as an answer gives it."""
    return round(float(time), 3)


def rounded(box: F32) -> Box:
    """A box as an answer gives it."""
    x, y, w, h = (round(float(v), 1) for v in box)
    return x, y, w, h


def _in_order(track: TrackOutline) -> F32:
    ordered: F32 = track.boxes[np.argsort(track.boxes[:, 0], kind="stable")]
    return ordered


def _box(track: TrackOutline, start_s: float, end_s: float) -> F32:
    """The face between two times, on average: from where it was found then, as its samples were cut, or else
    from before and after."""
    rows = _in_order(track)
    meanwhile = rows[(rows[:, 0] >= start_s) & (rows[:, 0] <= end_s)]
    if len(meanwhile):
        rows = meanwhile
    ends = [[np.interp(t, rows[:, 0], rows[:, k]) for k in range(1, 5)] for t in (start_s, end_s)]
    return np.asarray(np.mean(ends, axis=0), np.float32)
