"""From a file to samples: decode, detect, track and crop in one pass over the clip."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from pipeline.crop import cut
from pipeline.decode import Clip, open_clip
from pipeline.detect import FaceDetector, Faces
from pipeline.frames import F32, U8, Burst, Frame
from pipeline.media import Limits
from pipeline.prepared import Coverage, MediaFacts, PreparedClip, PreparedTrack, Quality
from pipeline.quality import measure, median_quality
from pipeline.sample import key_frames, plan_bursts
from pipeline.spec import CropSpec, SamplingSpec
from pipeline.track import MAX_GAP_S, Tracker, interpolate, is_cut

THUMBNAIL = (32, 18)
GAP_BURSTS = 1.6
"""A face may be missed in one burst, not in two, and still be the same track."""


def prepare(
    path: Path,
    *,
    crop: CropSpec,
    sampling: SamplingSpec,
    detector: FaceDetector,
    limits: Limits,
    max_faces: int = 8,
) -> PreparedClip:
    """Decode the clip at `path` once and cut the samples that a bundle's model wants to see.

    At most `max_faces` tracks are kept, those with the most and largest samples. A burst that has
    fewer frames than a sample needs is not cut: a model of motion is never shown a frozen picture.
    Raises MediaError subclasses for anything wrong with the file.
    """
    clock = _Clock()
    with open_clip(path, limits) as clip:
        plan = plan_bursts(clip.times_s, sampling)
        follower = _Follower(
            crop, sampling, detector, max_gap_s=_gap(clip, plan), max_faces=max_faces, clock=clock
        )
        looked = 0.0
        frames_used = 0
        bursts = clip.bursts(plan)
        while not follower.satisfied and (burst := _next(bursts, clock)) is not None:
            follower.follow(burst)
            looked += _span(burst, clip)
            frames_used += len(burst)
        tracks = follower.tracks(max_faces)
        facts = _facts(path, clip, frames_used)
        why = clip.truncated or clip.damage
        fraction = min(1.0, looked / clip.duration_s) if clip.duration_s > 0 else 1.0
        coverage = Coverage(round(looked, 3), round(fraction, 4), follower.bursts, why is not None, why)
    return PreparedClip(facts, coverage, tracks, follower.faces_seen, clock.ms)


class _Clock:
    """Milliseconds of each stage."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {"decode": 0.0, "detect": 0.0, "crop": 0.0}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.ms[name] += (time.perf_counter() - start) * 1000


@dataclass(slots=True)
class _Sighting:
    """One face on one key frame of a burst."""

    position: int
    time_s: float
    box: F32
    landmarks: F32
    quality: Quality


@dataclass(slots=True)
class _Followed:
    """What has been gathered of one face so far."""

    samples: list[U8] = field(default_factory=list)
    start_s: list[float] = field(default_factory=list)
    end_s: list[float] = field(default_factory=list)
    boxes: list[list[float]] = field(default_factory=list)
    qualities: list[Quality] = field(default_factory=list)
    bursts: int = 0
    frames_used: int = 0


class _Follower:
    """Detects, follows and cuts burst by burst, so that no more than one burst is held."""

    def __init__(
        self,
        crop: CropSpec,
        sampling: SamplingSpec,
        detector: FaceDetector,
        *,
        max_gap_s: float,
        max_faces: int,
        clock: _Clock,
    ) -> None:
        self._crop, self._sampling, self._detector = crop, sampling, detector
        self._max_faces, self._clock = max_faces, clock
        self._tracker = Tracker(max_gap_s)
        self._thumbnail: U8 | None = None
        self._followed: dict[int, _Followed] = {}
        self._seen: set[int] = set()
        self.bursts = 0

    @property
    def faces_seen(self) -> int:
        """Tracks that were begun, whether or not samples could be cut."""
        return len(self._seen)

    @property
    def satisfied(self) -> bool:
        """Whether some face was cut from as many bursts as were asked for."""
        return any(f.bursts >= self._sampling.bursts for f in self._followed.values())

    def follow(self, burst: Burst) -> None:
        """Take in the next burst."""
        self.bursts += 1
        with self._clock.stage("detect"):
            sightings = self._sightings(burst)
        with self._clock.stage("crop"):
            # The largest first: of a crowd only so many faces are cut.
            largest = sorted(sightings, key=lambda n: -max(s.quality.size_px for s in sightings[n]))
            for number in largest[: self._max_faces]:
                self._cut(burst, number, sightings[number])

    def tracks(self, max_faces: int) -> list[PreparedTrack]:
        """The tracks with samples, the `max_faces` weightiest, in order of their numbers."""
        faces = self._followed
        weight = {n: len(f.boxes) * median_quality(f.qualities).size_px for n, f in faces.items()}
        kept = sorted(sorted(faces, key=lambda n: (-weight[n], n))[:max_faces])
        return [_prepared(n, faces[n]) for n in kept]

    def _sightings(self, burst: Burst) -> dict[int, list[_Sighting]]:
        positions = key_frames(len(burst), self._sampling.detect_every)
        found = self._detect([burst[p] for p in positions])
        sightings: dict[int, list[_Sighting]] = {}
        for position, faces in zip(positions, found, strict=True):
            frame = burst[position]
            self._watch_for_cut(frame)
            for i, number in enumerate(self._tracker.update(frame.time_s, faces)):
                self._seen.add(number)
                box, points = faces.boxes[i], faces.landmarks[i]
                quality = measure(frame, box, points, float(faces.scores[i]))
                sightings.setdefault(number, []).append(
                    _Sighting(position, frame.time_s, box, points, quality)
                )
        return sightings

    def _detect(self, frames: Burst) -> list[Faces]:
        width, height = frames[0].width, frames[0].height
        scale = min(1.0, self._detector.longer_side / max(width, height))
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        found = self._detector.detect([f.bgr(*small) for f in frames])
        return [f.scaled(width / small[0], height / small[1]) for f in found]

    def _watch_for_cut(self, frame: Frame) -> None:
        thumbnail = frame.bgr(*THUMBNAIL)
        if self._thumbnail is not None and is_cut(self._thumbnail, thumbnail):
            self._tracker.cut()
        self._thumbnail = thumbnail

    def _cut(self, burst: Burst, number: int, sightings: list[_Sighting]) -> None:
        if len(burst) < self._crop.frames:
            return
        at = np.array([s.position for s in sightings], np.float32)
        boxes, points = np.stack([s.box for s in sightings]), np.stack([s.landmarks for s in sightings])
        try:
            samples = cut(
                burst,
                np.stack([interpolate(at, boxes, k) for k in range(len(burst))]),
                np.stack([interpolate(at, points, k) for k in range(len(burst))]),
                self._crop,
            )
        except ValueError:  # landmarks that coincide: no face has these
            return
        face = self._followed.setdefault(number, _Followed())
        face.bursts += 1
        for s in sightings:
            face.boxes.append([s.time_s, *(float(v) for v in s.box)])
            face.qualities.append(s.quality)
        face.samples.append(samples)
        for first, last in self._spans(burst, len(samples)):
            face.start_s.append(first)
            face.end_s.append(last)
        face.frames_used += self._crop.frames if self._crop.kind == "native" else len(burst)

    def _spans(self, burst: Burst, count: int) -> list[tuple[float, float]]:
        """The time that each sample shows: its own frame, or the burst for all of its windows."""
        times = [f.time_s for f in burst]
        if self._crop.kind == "native":
            return [(times[0], times[self._crop.frames - 1])] * count
        return [(t, t) for t in times]


def _prepared(number: int, face: _Followed) -> PreparedTrack:
    return PreparedTrack(
        track=number,
        samples=np.concatenate(face.samples),
        start_s=np.array(face.start_s, np.float32),
        end_s=np.array(face.end_s, np.float32),
        boxes=np.array(face.boxes, np.float32),
        quality=median_quality(face.qualities),
        bursts=face.bursts,
        frames_used=face.frames_used,
    )


def _next(bursts: Iterator[Burst], clock: _Clock) -> Burst | None:
    with clock.stage("decode"):
        return next(bursts, None)


def _gap(clip: Clip, plan: list[range]) -> float:
    """How long a face may go unseen: longer where bursts lie farther apart."""
    starts = [clip.times_s[run.start] for run in plan]
    between = max((b - a for a, b in pairwise(starts)), default=0.0)
    return max(MAX_GAP_S, GAP_BURSTS * between)


def _span(burst: Burst, clip: Clip) -> float:
    """Seconds for which the frames of a burst are shown."""
    one = 1 / clip.frame_rate if clip.frame_rate > 0 else clip.duration_s / len(clip.times_s)
    return burst[-1].time_s - burst[0].time_s + one


def _facts(path: Path, clip: Clip, frames_used: int) -> MediaFacts:
    with path.open("rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    return MediaFacts(
        sha256=digest,
        bytes=path.stat().st_size,
        container=clip.container,
        codec=clip.codec,
        width=clip.width,
        height=clip.height,
        duration_s=round(clip.duration_s, 3),
        frame_rate=round(clip.frame_rate, 3),
        frames_decoded=clip.frames_decoded,
        frames_used=frames_used,
    )
