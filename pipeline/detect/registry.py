"""Choosing a face detector by its name."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pipeline.bundle import default_models, sha256
from pipeline.detect import FaceDetector
from pipeline.detect.insight import InsightFace
from pipeline.detect.yunet import YuNet
from pipeline.errors import FaceModelError
from pipeline.runtime import CPU

DetectorName = Literal["yunet", "insightface"]


def open_detector(
    name: DetectorName,
    model: Path | None = None,
    *,
    accept_license: bool = False,
    threads: int = 1,
    providers: Sequence[str] = (CPU,),
) -> FaceDetector:
    """The detector `name`, ready to use.

    model: its file (or, for insightface, the directory of a pack); None takes the embedded YuNet.
    Raises FaceModelError when the name is unknown, the model is missing or foreign, or the terms of
    the InsightFace weights were not accepted.
    """
    if name == "yunet":
        return YuNet(model or embedded_yunet(), threads=threads, providers=providers)
    if name != "insightface":
        raise FaceModelError(f"unknown face detector {name!r}: there are yunet and insightface")
    if model is None:
        raise FaceModelError(
            "the insightface detector needs a model: set DETECTOR_FACE_MODEL to its file or pack"
        )
    return InsightFace(model, accept_license=accept_license, threads=threads, providers=providers)


def embedded_yunet() -> Path:
    """The detector that comes with this project."""
    return default_models() / "detectors" / "yunet.onnx"


def digest_of(model: Path | None) -> str | None:
    """Digest of a detector's file, or of all graphs of a pack; None for the embedded one."""
    if model is None:
        return None
    if not model.is_dir():
        return sha256(model)
    digests = [sha256(file) for file in sorted(model.glob("*.onnx"))]
    return "sha256:" + hashlib.sha256("".join(digests).encode()).hexdigest()
