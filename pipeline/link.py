"""From looks to faces that are followed through a clip."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from pipeline.frames import U8
from pipeline.look import FaceCut, Look
from pipeline.prepared import Quality, TrackOutline
from pipeline.quality import median_quality
from pipeline.track import Tracker, is_cut


@dataclass(slots=True)
class _Followed:
    """What has been gathered of one face so far."""

    cuts: list[tuple[int, int]] = field(default_factory=list)
    spans: list["np.ndarray[tuple[int, ...], np.dtype[np.float32]]"] = field(default_factory=list)
    boxes: list[list[float]] = field(default_factory=list)
    qualities: list[Quality] = field(default_factory=list)
    frames_used: int = 0

    @property
    def weight(self) -> float:
        return len(self.boxes) * median_quality(self.qualities).size_px


class Linker:
    """Follows faces from look to look, which must come in order of time; a scene cut ends all tracks.

    max_gap_s: how long a face may go unseen; it must be longer than the time between two looks.
    """

    def __init__(self, max_gap_s: float) -> None:
        self._tracker = Tracker(max_gap_s)
        self._thumbnail: U8 | None = None
        self._followed: dict[int, _Followed] = {}
        self._seen: set[int] = set()

    @property
    def faces_seen(self) -> int:
        """Tracks that were begun, whether or not anything could be cut."""
        return len(self._seen)

    @property
    def most_looks(self) -> int:
        """Looks in which the face that was cut most often was cut."""
        return max((len(f.cuts) for f in self._followed.values()), default=0)

    def add(self, look: Look) -> None:
        """Take in the next look."""
        numbers = []
        for key in look.keys:
            if self._thumbnail is not None and is_cut(self._thumbnail, key.thumbnail):
                self._tracker.cut()
            self._thumbnail = key.thumbnail
            numbers.append(self._tracker.update(key.time_s, key.faces))
            self._seen.update(numbers[-1])
        for k, face in enumerate(look.cuts):
            first, detection = face.first
            self._take(numbers[first][detection], (look.number, k), face)

    def tracks(self, max_faces: int) -> list[TrackOutline]:
        """The tracks of which anything was cut, the `max_faces` weightiest, in order of their numbers."""
        faces = self._followed
        weights = {n: f.weight for n, f in faces.items()}
        kept = sorted(sorted(faces, key=lambda n: (-weights[n], n))[:max_faces])
        return [_outline(n, faces[n]) for n in kept]

    def _take(self, number: int, cut: tuple[int, int], face: FaceCut) -> None:
        followed = self._followed.setdefault(number, _Followed())
        if followed.cuts and followed.cuts[-1][0] == cut[0]:
            return  # the larger of two that one burst takes for the same face
        followed.cuts.append(cut)
        followed.spans.append(face.spans)
        followed.boxes += face.boxes
        followed.qualities += face.qualities
        followed.frames_used += face.frames_used


def linked(looks: Iterable[Look], max_gap_s: float) -> Linker:
    """All looks, given in any order, linked in order of time."""
    linker = Linker(max_gap_s)
    for look in sorted(looks, key=lambda look: look.number):
        linker.add(look)
    return linker


def _outline(number: int, face: _Followed) -> TrackOutline:
    spans = np.concatenate(face.spans)
    return TrackOutline(
        track=number,
        start_s=np.ascontiguousarray(spans[:, 0]),
        end_s=np.ascontiguousarray(spans[:, 1]),
        boxes=np.array(face.boxes, np.float32),
        quality=median_quality(face.qualities),
        bursts=len(face.cuts),
        frames_used=face.frames_used,
        cuts=tuple(face.cuts),
    )
