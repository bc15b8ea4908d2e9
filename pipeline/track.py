"""Following faces from key frame to key frame."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.detect import Faces
from pipeline.frames import F32, U8

MAX_GAP_S = 1.0
LEAST_AFFINITY = 0.1
LEAST_AFFINITY_LATER = -0.15
LATER_S = 0.5
MIN_CUT_DIFFERENCE = 8.0
MAX_CUT_CORRELATION = 0.6
MAX_CUT_OVERLAP = 0.8
COLOUR_BINS = 16


@dataclass(slots=True)
class _Track:
    number: int
    time_s: float
    box: F32
    speed: F32

    def at(self, time_s: float) -> F32:
        """The box at a later time, moving on at the last speed and keeping its size."""
        moved = self.box.copy()
        moved[:2] += self.speed * (time_s - self.time_s)
        return moved


class Tracker:
    """Gives each detection the number of the face that it belongs to.

    Tracks move at constant velocity; a detection joins the track whose predicted box it overlaps
    best. A face that is not seen for longer than `max_gap_s` seconds, or that a cut parts from its
    past, gets a new number; no number is given twice.
    """

    def __init__(self, max_gap_s: float = MAX_GAP_S) -> None:
        """`max_gap_s` must be longer than the time between key frames, or nothing is followed."""
        self.max_gap_s = max_gap_s
        self._tracks: list[_Track] = []
        self._next = 0

    def cut(self) -> None:
        """A scene ends here: all tracks do."""
        self._tracks = []

    def update(self, time_s: float, faces: Faces) -> list[int]:
        """The track of each of the faces detected at `time_s`, in their order.

        Times must grow from call to call. The order of the detections changes no assignment.
        """
        self._tracks = [t for t in self._tracks if time_s - t.time_s <= self.max_gap_s]
        pairs = self._pairs(time_s, faces.boxes)
        given: dict[int, _Track] = {}
        taken: set[int] = set()
        for _, track, i in pairs:
            if i not in given and track.number not in taken:
                given[i] = track
                taken.add(track.number)
        for i, track in given.items():
            self._move(track, time_s, faces.boxes[i])
        # New faces are numbered from the left, whatever the order of the detections.
        new = sorted(set(range(len(faces))) - given.keys(), key=lambda i: tuple(faces.boxes[i]))
        for i in new:
            given[i] = _Track(self._next, time_s, faces.boxes[i].copy(), np.zeros(2, np.float32))
            self._tracks.append(given[i])
            self._next += 1
        return [given[i].number for i in range(len(faces))]

    def _pairs(self, time_s: float, boxes: F32) -> list[tuple[float, _Track, int]]:
        """Pairs of track and detection that may belong together, the closest first."""
        pairs = []
        for track in self._tracks:
            least = least_affinity(time_s - track.time_s)
            predicted = track.at(time_s)
            for i, box in enumerate(boxes):
                affinity = generalised_iou(predicted, box)
                if affinity >= least:
                    pairs.append((affinity, track, i))
        pairs.sort(key=lambda p: (-p[0], p[1].number, tuple(boxes[p[2]])))
        return pairs

    @staticmethod
    def _move(track: _Track, time_s: float, box: F32) -> None:
        passed = time_s - track.time_s
        if passed > 0:
            step = (box[:2] + box[2:] / 2 - track.box[:2] - track.box[2:] / 2) / passed
            track.speed = step.astype(np.float32)
        track.time_s, track.box = time_s, box.copy()


def least_affinity(passed_s: float) -> float:
    """The generalised IoU that a detection needs to join a track last seen `passed_s` ago.

    The longer ago, the farther from its prediction a face may be: sideways up to 0.8 of its width
    in the next frame, 1.35 after half a second and more; less on the diagonal.
    """
    share = min(passed_s / LATER_S, 1.0)
    return LEAST_AFFINITY + share * (LEAST_AFFINITY_LATER - LEAST_AFFINITY)


def iou(a: F32, b: F32) -> float:
    """Intersection over union of two boxes x, y, w, h; 0 to 1, 0 where either is empty."""
    shared, union, _ = _areas(a, b)
    return shared / union if union > 0 else 0.0


def generalised_iou(a: F32, b: F32) -> float:
    """GIoU (Rezatofighi et al., 2019) of two boxes x, y, w, h: IoU less the share of their hull that
    neither covers; -1 (far apart) to 1 (equal)."""
    shared, union, hull = _areas(a, b)
    return shared / union - (hull - union) / hull if union > 0 else -1.0


def _areas(a: F32, b: F32) -> tuple[float, float, float]:
    ax, ay, aw, ah = (float(v) for v in a)
    bx, by, bw, bh = (float(v) for v in b)
    shared_w = max(0.0, min(ax + aw, bx + bw) - max(ax, bx))
    shared_h = max(0.0, min(ay + ah, by + bh) - max(ay, by))
    hull = (max(ax + aw, bx + bw) - min(ax, bx)) * (max(ay + ah, by + bh) - min(ay, by))
    shared = shared_w * shared_h
    return shared, aw * ah + bw * bh - shared, hull


def is_cut(previous: U8, current: U8) -> bool:
    """Whether a scene ends between two thumbnails of one shape, uint8 [h, w] or [h, w, 3].

    True when they differ by more than noise, in what is where and in which colours there are. A
    flash or a fade keeps the first (correlation ignores brightness and contrast), a moving camera or
    subject the second.
    """
    a, b = previous.astype(np.float32), current.astype(np.float32)
    return (
        float(np.abs(a - b).mean()) >= MIN_CUT_DIFFERENCE
        and _correlation(a, b) < MAX_CUT_CORRELATION
        and _colours_shared(a, b) < MAX_CUT_OVERLAP
    )


def _correlation(a: F32, b: F32) -> float:
    a, b = a - a.mean(axis=(0, 1)), b - b.mean(axis=(0, 1))
    norm = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(np.vdot(a, b)) / norm if norm > 0 else 0.0


def _colours_shared(a: F32, b: F32) -> float:
    """Overlap of the histograms of each channel, 0 to 1."""
    channels = zip(np.atleast_3d(a).T, np.atleast_3d(b).T, strict=True)
    shared = [int(np.minimum(_histogram(p), _histogram(q)).sum()) for p, q in channels]
    return sum(shared) / a.size


def _histogram(channel: F32) -> NDArray[np.int64]:
    return np.histogram(channel, COLOUR_BINS, (0, 256))[0]


def interpolate(times: NDArray[np.floating], values: F32, t: float) -> F32:
    """Boxes or landmarks at time t, linear between observations and constant beyond them.

    times: [K], growing; values: [K, ...]; the answer has the shape of one value.
    """
    columns = values.reshape(len(times), -1)
    at = [np.interp(t, times, column) for column in columns.T]
    return np.array(at, np.float32).reshape(values.shape[1:])
