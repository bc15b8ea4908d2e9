"""Clips judged by a bundle through the service's own pipeline, as they are or under conditions."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from pipeline.answer import Answer
from pipeline.bundle import Calibration, Thresholds, open_bundle
from pipeline.detect.registry import DetectorName, open_detector
from pipeline.engine import Engine, Provider, score
from pipeline.errors import MediaError
from pipeline.frames import F32
from pipeline.media import Limits
from pipeline.prepare import prepare
from pipeline.prepared import PreparedClip, PreparedTrack
from pipeline.runtime import usable_cores
from pipeline.spec import CropSpec
from pipeline.verdict import decide
from training.pool import Lost, run_jobs
from training.transcode import CONDITIONS, under

CLIP_LIMIT_S = 900.0
"""Seconds after which a clip is given up."""
NEUTRAL = Calibration(
    id=None, thresholds=Thresholds(authentic_below=0.5, manipulated_above=0.5), data="the network's softmax"
)
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of R, G and B (ITU-R BT.601)."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The bundle and the settings of the service that shape an answer. neutral: leave the bundle's
    calibration out, so that the probability is the network's own softmax."""

    bundle: Path
    face_detector: DetectorName = "yunet"
    face_model: Path | None = None
    accept_license: bool = False
    provider: Provider = "cpu"
    limits: Limits = field(default_factory=Limits)
    max_faces: int = 8
    neutral: bool = False


@dataclass(frozen=True, slots=True)
class Scored:
    """One clip's answer.

    fake: probability of fake, None when not applicable or unreadable; verdict: as the service's, or
    "unreadable"; doubts: remarks that widened `uncertain`; sharpness: mean absolute second difference
    of the luma that was looked at, NaN without any; why: what is wrong with an unreadable clip; codec: of its
    film, as answers name it.
    """

    fake: float | None
    verdict: str
    doubts: int = 0
    sharpness: float = float("nan")
    why: str = ""
    codec: str = ""


def score_clips(
    pipeline: Pipeline,
    clips: Sequence[tuple[Path, str]],
    *,
    workers: int = 0,
    limit_s: float = CLIP_LIMIT_S,
    on_done: Callable[[], None] = lambda: None,
) -> list[Scored]:
    """Answers for (path, name of a condition), in order; what can not be read never ends the run.

    workers: processes, 0 for all usable cores; on_done is called after each clip. Raises PoolError.
    """
    found: dict[tuple[Path, str], Scored] = {}
    count = min(len(set(clips)), workers or usable_cores())
    for clip, result in run_jobs(
        dict.fromkeys(clips), partial(_setup, pipeline), workers=count, timeout_s=limit_s
    ):
        found[clip] = Scored(None, "unreadable", why=result.detail) if isinstance(result, Lost) else result
        on_done()
    return [found[clip] for clip in clips]


def _setup(pipeline: Pipeline) -> Callable[[tuple[Path, str]], Scored]:
    cv2.setNumThreads(1)
    bundle = open_bundle(pipeline.bundle, allow_untrained=True)
    if pipeline.neutral:
        bundle = replace(bundle, manifest=bundle.manifest.model_copy(update={"calibration": NEUTRAL}))
    engine = Engine(bundle, provider=pipeline.provider, threads=1)
    detector = open_detector(
        pipeline.face_detector, pipeline.face_model, accept_license=pipeline.accept_license, threads=1
    )
    crop, sampling = bundle.manifest.crop, bundle.manifest.sampling

    def judge(clip: tuple[Path, str]) -> Scored:
        path, name = clip
        condition = CONDITIONS[name][1]
        with tempfile.TemporaryDirectory() as scratch:
            try:
                if condition is not None:
                    path = under(condition, path, Path(scratch) / "clip.mp4", pipeline.limits)
                prepared = prepare(
                    path,
                    crop=crop,
                    sampling=sampling,
                    detector=detector,
                    limits=pipeline.limits,
                    max_faces=pipeline.max_faces,
                )
            except MediaError as e:
                return Scored(None, "unreadable", why=str(e))
            except OSError as e:
                return Scored(None, "unreadable", why=e.strerror or str(e))
        answer = decide(prepared, score(engine, prepared), bundle, timeline=False)
        sharp = sharpness(prepared, crop)
        return Scored(_fake(answer), answer.verdict, _doubts(answer), sharp, codec=prepared.media.codec)

    return judge


def _fake(answer: Answer) -> float | None:
    return answer.probabilities.fake if answer.probabilities else None


def _doubts(answer: Answer) -> int:
    """Remarks on the face that decided, and on the coverage, as `decide` counts them."""
    judged = [(f.probabilities.fake, f) for f in answer.faces if f.usable and f.probabilities]
    if not judged:
        return 0
    _, worst = max(judged, key=lambda pair: pair[0])
    return len(worst.quality.remarks) + answer.coverage.truncated


def sharpness(clip: PreparedClip, crop: CropSpec) -> float:
    """Mean absolute second difference of the luma of a clip's largest track; NaN without a track."""
    if not clip.tracks:
        return float("nan")
    luma = _luma(max(clip.tracks, key=lambda t: len(t.samples) * t.quality.size_px), crop)
    vertical = 2 * luma[:, 1:-1] - luma[:, :-2] - luma[:, 2:]
    horizontal = 2 * luma[..., 1:-1] - luma[..., :-2] - luma[..., 2:]
    return float(np.abs(vertical).mean() + np.abs(horizontal).mean()) / 2 + 1e-3


def _luma(track: PreparedTrack, crop: CropSpec) -> F32:
    """The first frame of each sample, float32 [T, S, S]."""
    first = track.samples[:, 0].astype(np.float32)
    return np.asarray(first[..., 0] if crop.colour == "yuv" else first @ LUMA, np.float32)
