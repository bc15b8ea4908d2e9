"""What all peers share: the project's own functions, cut where a framework wants to cut them."""

import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from pipeline.bundle import Bundle, open_bundle
from pipeline.detect.registry import open_detector
from pipeline.engine import Engine
from pipeline.frames import U8
from pipeline.media import Limits
from pipeline.prepare import prepare
from pipeline.prepared import Cut, Outline, PreparedClip
from pipeline.runtime import usable_cores
from pipeline.scores import TrackScores
from pipeline.verdict import decide

BUNDLE, PORT = "BENCH_BUNDLE", "BENCH_PORT"


def port() -> int:
    """Where to listen."""
    return int(os.environ[PORT])


def cores() -> int:
    """As many workers as this project's service has decoders."""
    return usable_cores()


def bundle() -> Bundle:
    """The bundle that is served."""
    return open_bundle(Path(os.environ[BUNDLE]), allow_untrained=True)


def packed(clip: PreparedClip) -> bytes:
    """A prepared clip as it travels from process to process, without a pickle."""
    file = io.BytesIO()
    np.save(file, np.frombuffer(clip.to_bytes(), np.uint8))
    for track in clip.tracks:
        np.save(file, track.samples)
    return file.getvalue()


def unpacked(data: bytes) -> PreparedClip:
    """Inverse of `packed`."""
    file = io.BytesIO(data)
    outline = Outline.from_bytes(np.load(file).tobytes())
    cuts: dict[Cut, U8] = {}
    for track in outline.tracks:
        cuts |= dict(zip(track.cuts, np.split(np.load(file), len(track.cuts)), strict=True))
    return outline.filled(cuts)


class Preparer:
    """Decodes, detects, tracks and cuts, on one thread, as a decoder of the service does."""

    def __init__(self) -> None:
        cv2.setNumThreads(1)
        self._manifest = bundle().manifest
        self._detector = open_detector("yunet", threads=1)

    def prepare(self, content: bytes) -> PreparedClip:
        """A clip from its bytes."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            return prepare(
                Path(file.name),
                crop=self._manifest.crop,
                sampling=self._manifest.sampling,
                detector=self._detector,
                limits=Limits(),
            )


class Scorer:
    """Runs both graphs. threads: those of ONNX Runtime; 0 for all cores."""

    def __init__(self, threads: int) -> None:
        self._engine = Engine(bundle(), provider="cpu", threads=threads)

    def score(self, clips: Sequence[PreparedClip]) -> list[str]:
        """Answers as JSON, in order. Samples of all clips share the encoder's batches."""
        tracks = [track for clip in clips for track in clip.tracks]
        samples = np.concatenate([track.samples for track in tracks])
        size = self._engine.best_batch
        chunks = range(0, len(samples), size)
        features = np.concatenate([self._engine.encode(samples[i : i + size]) for i in chunks])
        scores, at = [], 0
        for track in tracks:
            part = features[at : at + len(track.samples)]
            steps, pooled = self._engine.temporal(part[None], np.array([len(part)], np.int64))
            scores.append(TrackScores(steps[0], pooled[0]))
            at += len(part)
        rest = iter(scores)
        return [
            decide(clip, [next(rest) for _ in clip.tracks], self._engine.bundle).model_dump_json()
            for clip in clips
        ]
