"""How well a face can be judged: size, sharpness, light, pose and compression, and remarks on them."""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from pipeline.frames import F32, U8, Frame
from pipeline.prepared import Quality
from pipeline.spec import CropSpec

SHARPNESS_SIDE = 112
MIN_SIZE_PX = 32.0
MIN_SHARPNESS = 5.0
MIN_BRIGHTNESS = 0.08
MAX_YAW = 0.9
"""Each lies beyond what nearly all ordinary clips of the training corpus show."""

MAX_QUANTISER = 32.0
"""Beyond it a score drifts by about as much as a remark moves the thresholds (docs/training-log.md)."""

BOX_IN_TEMPLATE = 0.83
"""Side of a face box in units of the plain aligned template's side: the median over detections."""

UNUSABLE = ("face_too_small", "too_blurred", "too_dark")
"""Remarks that make a face unfit for a judgement; the others only lessen the trust in it."""


def measure(frame: Frame, box: F32, landmarks: F32, score: float) -> Quality:
    """Quality of one detection. box: x, y, w, h and landmarks: [5, 2], in pixels of the frame."""
    luma = _inside(frame, box)
    quantisers = frame.quantisers()
    shrinks = luma.shape[0] * luma.shape[1] > SHARPNESS_SIDE**2
    face = cv2.resize(
        luma,
        (SHARPNESS_SIDE, SHARPNESS_SIDE),
        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
    )
    return Quality(
        size_px=float(np.sqrt(max(box[2], 0) * max(box[3], 0))),
        sharpness=float(cv2.Laplacian(face, cv2.CV_32F).var()),
        brightness=float(np.clip((face.mean() - 16) / 219, 0, 1)),
        yaw=yaw(landmarks),
        detection=float(score),
        quantiser=quantisers.under(box) if quantisers else None,
    )


def _inside(frame: Frame, box: F32) -> U8:
    """Luma of the part of the box that lies in the picture; at least one pixel."""
    x, y = int(np.clip(box[0], 0, frame.width - 1)), int(np.clip(box[1], 0, frame.height - 1))
    right = int(np.clip(np.ceil(box[0] + box[2]), x + 1, frame.width))
    bottom = int(np.clip(np.ceil(box[1] + box[3]), y + 1, frame.height))
    return frame.y[y:bottom, x:right]


def yaw(landmarks: F32) -> float:
    """How far the nose stands from the middle between the eyes, along the line through them: 0 in
    the middle (frontal), 1 under an eye or beyond (profile). Independent of roll and size."""
    left, right, nose = landmarks[0], landmarks[1], landmarks[2]
    eyes = right - left
    length = float(eyes @ eyes)
    if length == 0:
        return 1.0
    return min(1.0, abs(float((nose - (left + right) / 2) @ eyes)) / (length / 2))


def median_quality(qualities: Sequence[Quality]) -> Quality:
    """The median of each measure over the detections of a track that have it; at least one."""

    def median(name: str) -> float:
        return float(np.median([getattr(q, name) for q in qualities]))

    known = [q.quantiser for q in qualities if q.quantiser is not None]
    found = Quality(*(median(n) for n in ("size_px", "sharpness", "brightness", "yaw", "detection")))
    return replace(found, quantiser=float(np.median(known)) if known else None)


def remarks(quality: Quality, spec: CropSpec | None = None) -> list[str]:
    """Codes of what is wrong with a face, the worst first; empty for an ordinary one.

    With the crop specification of a model also `upscaled`: an aligned crop has more pixels than the
    face that it shows.
    """
    found = []
    if quality.size_px < MIN_SIZE_PX:
        found.append("face_too_small")
    if quality.sharpness < MIN_SHARPNESS:
        found.append("too_blurred")
    if quality.brightness < MIN_BRIGHTNESS:
        found.append("too_dark")
    if quality.yaw > MAX_YAW:
        found.append("profile")
    if quality.quantiser is not None and quality.quantiser > MAX_QUANTISER:
        found.append("heavily_compressed")
    if (
        spec is not None
        and spec.kind == "aligned"
        and quality.size_px * spec.margin < BOX_IN_TEMPLATE * spec.side
    ):
        found.append("upscaled")
    return found
