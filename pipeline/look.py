"""One look at a clip: what a single burst of consecutive frames shows of faces, by itself.

A look remembers nothing of other looks, so they may be taken in any order, and what was cut in one can be
encoded while the next is still being decoded. `pipeline.link` joins looks to faces that are followed through
the clip.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from pipeline.crop import cut
from pipeline.detect import FaceDetector, Faces
from pipeline.frames import F32, U8, Burst, Frame
from pipeline.prepared import Quality
from pipeline.quality import measure
from pipeline.sample import key_frames
from pipeline.spec import CropSpec
from pipeline.track import Tracker, interpolate, is_cut

THUMBNAIL = (32, 18)


class Clock:
    """Milliseconds of each stage, on top of those given."""

    def __init__(self, ms: Mapping[str, float] | None = None) -> None:
        self.ms: dict[str, float] = {"decode": 0.0, "detect": 0.0, "crop": 0.0} | dict(ms or {})

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of a block as that of the stage."""
        start = perf_counter()
        try:
            yield
        finally:
            self.ms[name] = self.ms.get(name, 0.0) + (perf_counter() - start) * 1000


@dataclass(frozen=True, slots=True)
class KeyFrame:
    """A frame on which faces were detected, and a thumbnail of it, uint8 BGR."""

    time_s: float
    faces: Faces
    thumbnail: U8


@dataclass(frozen=True, slots=True)
class FaceCut:
    """One face in one burst.

    first: the key frame and the detection in it that it begins with; spans: float32 [n, 2], the seconds that
    each of its samples shows; boxes: rows of time_s, x, y, w, h, and qualities, one a detection;
    frames_used: frames of the burst that were cut.
    """

    first: tuple[int, int]
    spans: F32
    boxes: list[list[float]]
    qualities: list[Quality]
    frames_used: int


@dataclass(frozen=True, slots=True)
class Look:
    """What one burst shows. number: its place in the plan; seconds: for how long its frames are shown;
    frames: how many they are; cuts: its largest faces, largest first; samples: of each of them, uint8
    [n, F, S, S, 3]."""

    number: int
    seconds: float
    frames: int
    keys: list[KeyFrame]
    cuts: list[FaceCut]
    samples: list[U8]


@dataclass(slots=True)
class _Sighting:
    """One face on one key frame of a burst."""

    key: int
    detection: int
    position: int
    quality: Quality


@dataclass(slots=True)
class _Seen:
    sightings: list[_Sighting] = field(default_factory=list)

    @property
    def size_px(self) -> float:
        return max(s.quality.size_px for s in self.sightings)


class Looker:
    """Detects the faces of a burst and cuts the `max_faces` largest of them."""

    def __init__(
        self,
        crop: CropSpec,
        detector: FaceDetector,
        *,
        detect_every: int,
        max_faces: int,
        clock: Clock,
    ) -> None:
        self._crop, self._detector, self._every = crop, detector, detect_every
        self._max_faces, self._clock = max_faces, clock

    def look(self, number: int, burst: Burst, seconds: float) -> Look:
        """Look at one burst, which is shown for so many seconds.

        A burst that has fewer frames than a sample needs is not cut: a model of motion is never shown a
        frozen picture.
        """
        positions = key_frames(len(burst), self._every)
        with self._clock.stage("detect"):
            keys = self._keys([burst[p] for p in positions])
            seen = self._seen(burst, positions, keys)
        found: list[tuple[FaceCut, U8]] = []
        with self._clock.stage("crop"):
            if len(burst) >= self._crop.frames:
                # The largest first: of a crowd only so many faces are cut.
                largest = sorted(seen, key=lambda s: -s.size_px)[: self._max_faces]
                found = [c for c in (self._cut(burst, face, keys) for face in largest) if c is not None]
        return Look(number, seconds, len(burst), keys, [c for c, _ in found], [s for _, s in found])

    def _keys(self, frames: list[Frame]) -> list[KeyFrame]:
        width, height = frames[0].width, frames[0].height
        scale = min(1.0, self._detector.longer_side / max(width, height))
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        found = self._detector.detect([f.bgr(*small) for f in frames])
        return [
            KeyFrame(frame.time_s, faces.scaled(width / small[0], height / small[1]), frame.bgr(*THUMBNAIL))
            for frame, faces in zip(frames, found, strict=True)
        ]

    def _seen(self, burst: Burst, positions: list[int], keys: list[KeyFrame]) -> list[_Seen]:
        """The faces of a burst, each with its detections; a scene cut inside of it parts them."""
        tracker = Tracker()
        seen: dict[int, _Seen] = {}
        for k, (position, key) in enumerate(zip(positions, keys, strict=True)):
            if k and is_cut(keys[k - 1].thumbnail, key.thumbnail):
                tracker.cut()
            faces = key.faces
            for i, number in enumerate(tracker.update(key.time_s, faces)):
                quality = measure(burst[position], faces.boxes[i], faces.landmarks[i], float(faces.scores[i]))
                seen.setdefault(number, _Seen()).sightings.append(_Sighting(k, i, position, quality))
        return list(seen.values())

    def _cut(self, burst: Burst, face: _Seen, keys: list[KeyFrame]) -> tuple[FaceCut, U8] | None:
        sightings = face.sightings
        at = np.array([s.position for s in sightings], np.float32)
        boxes = np.stack([keys[s.key].faces.boxes[s.detection] for s in sightings])
        points = np.stack([keys[s.key].faces.landmarks[s.detection] for s in sightings])
        try:
            samples = cut(
                burst, _between(at, boxes, len(burst)), _between(at, points, len(burst)), self._crop
            )
        except ValueError:  # landmarks that coincide: no face has these
            return None
        times = [keys[s.key].time_s for s in sightings]
        native = self._crop.kind == "native"
        face_cut = FaceCut(
            first=(sightings[0].key, sightings[0].detection),
            spans=self._spans(burst, len(samples)),
            boxes=[[t, *(float(v) for v in box)] for t, box in zip(times, boxes, strict=True)],
            qualities=[s.quality for s in sightings],
            frames_used=self._crop.frames if native else len(burst),
        )
        return face_cut, samples

    def _spans(self, burst: Burst, count: int) -> F32:
        """The time that each sample shows: its own frame, or the burst for all of its windows."""
        times = [f.time_s for f in burst]
        if self._crop.kind == "native":
            return np.array([(times[0], times[self._crop.frames - 1])] * count, np.float32)
        return np.array([(t, t) for t in times], np.float32)


def _between(at: F32, values: F32, count: int) -> F32:
    return np.stack([interpolate(at, values, k) for k in range(count)])
