"""One clip of a data set: cut by the service's own pipeline, kept as an array, told as an outcome."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Literal

import av
import cv2
import numpy as np

from pipeline.detect import FaceDetector
from pipeline.detect.registry import open_detector
from pipeline.errors import MediaError
from pipeline.frames import U8
from pipeline.media import Limits
from pipeline.prepare import prepare
from pipeline.prepared import PreparedTrack
from pipeline.spec import CropSpec, SamplingSpec
from training.difference import ALTERED, face_difference
from training.shards import write_json
from training.tracks import largest_track

Kind = Literal[
    "prepared", "unreadable", "no_face", "too_few_frames", "sound_altered", "crashed", "timeout", "failed"
]
VIDEO_RATE = 30
LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Cut:
    """How clips are cut. min_frames: frames with the face that a clip has to have; videos: whether each
    clip's crops are written as a film besides, to DIR/videos."""

    root: Path
    out: Path
    crop: CropSpec
    sampling: SamplingSpec
    min_frames: int
    videos: bool

    @property
    def work(self) -> Path:
        """Where the arrays and outcomes of single clips lie until the shards are packed."""
        return self.out / "work"

    def array(self, file: str) -> Path:
        """The crops of a clip, uint8 [T, S, S, 3]."""
        return self.work / f"{_key(file)}.npy"

    def outcome(self, file: str) -> Path:
        """What became of a clip; written last, so that its array is whole where it exists."""
        return self.work / f"{_key(file)}.json"

    @property
    def videos_at(self) -> Path:
        """Where the films lie."""
        return self.out / "videos"

    def video(self, file: str) -> Path:
        """The film of a clip's crops."""
        name = file if file.lower().endswith(".mp4") else f"{file}.mp4"
        return self.videos_at / name


@dataclass(frozen=True, slots=True)
class Task:
    """A clip to cut. original: the file to compare its face with, empty for none; mixed: whether a fake
    without an original could not be told from an untouched one."""

    file: str
    original: str
    mixed: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a clip. detail: words for a person; frames: crops that were kept; passing: whether
    the machine may be to blame and not the clip, so that a run that goes on tries it again."""

    file: str
    kind: Kind
    detail: str = ""
    frames: int = 0
    passing: bool = False


def cutter(cut: Cut) -> Callable[[Task], Outcome]:
    """The function that a worker process calls for each clip."""
    cv2.setNumThreads(1)
    return partial(_cut_and_keep, cut, open_detector("yunet", threads=1))


def keep(cut: Cut, outcome: Outcome) -> None:
    """Remember what became of a clip, so that a run that goes on does not repeat it."""
    write_json(cut.outcome(outcome.file), asdict(outcome))


def kept(cut: Cut) -> dict[str, Outcome]:
    """What is remembered, by file."""
    found = [json.loads(p.read_text(encoding="utf-8")) for p in sorted(cut.work.glob("*.json"))]
    return {o["file"]: Outcome(**o) for o in found}


def write_film(frames: U8, path: Path) -> None:
    """Write crops uint8 [T, S, S, 3] RGB, S even, as H.264 at 30 frames a second, at once or not at all.

    One film frame a crop, whatever the rate of the clip: as the paper's face-only videos, and nothing is
    repeated or left out that the network would take for motion.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with av.open(str(part), "w", format="mp4") as container:
        # One thread and no macroblock tree: the same crops give the same bytes.
        options = {"crf": "10", "threads": "1", "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=VIDEO_RATE, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for k, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, VIDEO_RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    part.replace(path)


def _cut_and_keep(cut: Cut, faces: FaceDetector, task: Task) -> Outcome:
    outcome = _cut(cut, faces, task)
    if not outcome.passing:
        keep(cut, outcome)
    return outcome


def _cut(cut: Cut, faces: FaceDetector, task: Task) -> Outcome:
    path = cut.root / task.file
    try:
        clip = prepare(path, crop=cut.crop, sampling=cut.sampling, detector=faces, limits=LIMITS)
    except MediaError as e:
        return Outcome(task.file, "unreadable", str(e))
    except OSError as e:
        return Outcome(task.file, "unreadable", e.strerror or str(e), passing=True)
    track = largest_track(clip.tracks)
    if track is None:
        return Outcome(task.file, "no_face", f"no face in {clip.media.frames_used} frames")
    crops = track.samples[:, 0]
    if len(crops) < cut.min_frames:
        return Outcome(task.file, "too_few_frames", f"a face in {len(crops)} frames only", len(crops))
    detail = ""
    if task.mixed:
        difference, detail = _difference(cut, task, track)
        if difference is not None and difference < ALTERED:
            return Outcome(task.file, "sound_altered", detail)
    _save(cut.array(task.file), crops)
    if cut.videos:
        write_film(crops, cut.video(task.file))
    return Outcome(task.file, "prepared", detail, len(crops))


def _difference(cut: Cut, task: Task, track: PreparedTrack) -> tuple[float | None, str]:
    """How far a fake's face is from its original's, and why it is not known or too little."""
    if not task.original:
        return None, "not compared: its original is not there"
    try:
        found = face_difference(cut.root / task.file, cut.root / task.original, track.boxes, LIMITS)
    except (MediaError, OSError) as e:
        return None, f"not compared: its original can not be read: {e}"
    if found is None:
        return None, "not compared: its original has no frame of the same time"
    return found, f"its face differs from {task.original} by {found:.1f} grey levels" * (found < ALTERED)


def _save(path: Path, crops: U8) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("wb") as f:
        np.save(f, crops)
    part.replace(path)


def _key(file: str) -> str:
    return hashlib.sha256(file.encode()).hexdigest()[:32]
