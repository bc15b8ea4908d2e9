"""Aligned face crops: the five-point similarity transform, computed in one place."""

from math import ceil

import cv2
import numpy as np

from pipeline.frames import F32, U8, Frame, yuv_to_bgr

TEMPLATE_SIDE = 112
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Eyes, nose and mouth corners in a crop of 112 pixels: the template of ArcFace and InsightFace."""

MAX_FINE_SIDE = 2048
MAX_PICTURES = 3
"""Bounds of the work that implausible landmarks can ask for: samples a side of the finer crop, at all and
in sides of the picture. Only faces of more pixels lose by them."""


def similarity(source: F32, target: F32) -> F32:
    """The least-squares similarity transform from `source` to `target` points, both [N, 2].

    Rotation, uniform scale and translation without reflection, float32 [2, 3] (S. Umeyama,
    "Least-squares estimation of transformation parameters between two point patterns", 1991; in
    the plane its solution is the quotient of two complex inner products). Raises ValueError when
    the source points coincide.
    """
    p, q = source.astype(np.float64) @ [1, 1j], target.astype(np.float64) @ [1, 1j]
    from_centre = p - p.mean()
    spread = np.vdot(from_centre, from_centre).real
    if spread < 1e-9:
        raise ValueError("the landmarks coincide, no transform is defined")
    turn = np.vdot(from_centre, q - q.mean()) / spread
    shift = q.mean() - turn * p.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]], np.float32)


def transform(landmarks: F32, side: int, margin: float) -> F32:
    """From pixels of the picture to pixels of the aligned crop, float32 [2, 3].

    landmarks: [5, 2] in picture pixels; `margin` widens what the crop shows about its centre: 1
    is the plain template, 1.3 shows 30% more to each dimension.
    """
    centre = TEMPLATE_SIDE / 2
    widened = (TEMPLATE - centre) / margin + centre
    return similarity(landmarks, (widened * (side / TEMPLATE_SIDE)).astype(np.float32))


def align(frame: Frame, landmarks: F32, side: int, margin: float, colour: str) -> U8:
    """One aligned crop, uint8 [side, side, 3], RGB or YUV as `colour` says.

    Each plane is sampled by itself and only inside of the crop. Where the crop shrinks the picture
    every pixel is the mean of the area that it covers; where it enlarges, it is bilinear. Outside of
    the picture its border is repeated. Raises ValueError when the landmarks coincide.
    """
    to_crop = transform(landmarks, side, margin)
    # A chroma sample stands in the middle of its four luma samples.
    halved = to_crop.copy()
    halved[:, 2] += halved[:, :2].sum(axis=1) / 2
    halved[:, :2] *= 2
    planes = [warp(frame.y, to_crop, side), warp(frame.u, halved, side), warp(frame.v, halved, side)]
    yuv = np.stack(planes, axis=-1)
    return yuv if colour == "yuv" else np.ascontiguousarray(yuv_to_bgr(yuv)[..., ::-1])


def warp(plane: U8, to_crop: F32, side: int) -> U8:
    """`plane` seen through `to_crop`, uint8 [side, side], free of aliasing.

    A crop that shrinks is sampled at least every two thirds of the plane's pixel, close enough for a
    pattern of single pixels seen along its diagonal, and then averaged.
    """
    scale = float(np.hypot(to_crop[0, 0], to_crop[1, 0]))
    wanted = 1 if scale > 0.999 else ceil(1.5 / max(scale, 1e-6))
    most = min(MAX_FINE_SIDE, MAX_PICTURES * max(plane.shape))
    finer = min(wanted, max(1, most // side))
    to_fine = to_crop * finer
    to_fine[:, 2] += (finer - 1) / 2
    size = (side * finer, side * finer)
    # Not a mirrored border: OpenCV folds far coordinates step by step, and a wild landmark costs minutes.
    fine = cv2.warpAffine(plane, to_fine, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(fine, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
