"""From a burst of frames and a face in it to the samples that a model sees."""

import numpy as np
from numpy.typing import NDArray

from pipeline.align import align
from pipeline.frames import F32, U8, Burst, Frame, yuv_to_bgr
from pipeline.spec import CropSpec


def cut(burst: Burst, boxes: F32, landmarks: F32, spec: CropSpec) -> U8:
    """Samples of one face in one burst, uint8 [n, F, S, S, 3].

    boxes: [len(burst), 4] as x, y, w, h and landmarks: [len(burst), 5, 2], the face in each frame,
    in pixels of the picture. An aligned burst gives one sample a frame, so n is len(burst) and F is
    1. A native burst gives `spec.grid` squared windows, row by row, of its first F frames; where it
    has fewer its last frame is repeated. Raises ValueError when an aligned face's landmarks coincide.
    """
    if spec.kind == "aligned":
        crops = [
            align(f, p, spec.side, spec.margin, spec.colour) for f, p in zip(burst, landmarks, strict=True)
        ]
        return np.stack(crops)[:, None]
    return native_windows(burst, boxes, spec)


def native_windows(burst: Burst, boxes: F32, spec: CropSpec) -> U8:
    """Windows of untouched pixels, at the same places in each frame, uint8 [grid * grid, F, S, S, 3].

    boxes: [len(burst), 4]; the places follow from their mean. YUV windows hold the decoder's luma
    byte for byte. A picture that is smaller than the window is continued by its mirror image.
    """
    frames = [burst[min(i, len(burst) - 1)] for i in range(spec.frames)]
    places = window_places(boxes.mean(axis=0), frames[0].width, frames[0].height, spec)
    return np.stack([np.stack([window(f, int(x), int(y), spec) for f in frames]) for x, y in places])


def window_places(box: F32, width: int, height: int, spec: CropSpec) -> NDArray[np.int64]:
    """Where the native windows lie, int [grid * grid, 2]: x, y of their top left corners, row by row.

    The windows are spread evenly over a square of `spec.margin` times the width of `box` (x, y, w,
    h) about its centre, and pushed into the picture of `width` x `height`. Of a face that is smaller
    than a window all lie about its centre: they show its surroundings rather than padding. Places
    are even, so that chroma samples stay whole; they are negative only where the picture is smaller
    than a window, which it then fills centred.
    """
    centre = box[:2] + box[2:] / 2
    region = max(float(spec.margin * box[2]), float(spec.side))
    steps = np.linspace(-0.5, 0.5, spec.grid) if spec.grid > 1 else np.zeros(1)
    offsets = steps * (region - spec.side) - spec.side / 2
    x = _inside(centre[0] + offsets, width, spec.side)
    y = _inside(centre[1] + offsets, height, spec.side)
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def _inside(starts: NDArray[np.float64], extent: int, side: int) -> NDArray[np.int64]:
    room = extent - side
    if room < 0:
        return np.full(len(starts), room // 4 * 2, np.int64)
    even = np.rint(starts / 2).astype(np.int64) * 2
    return np.clip(even, 0, room // 2 * 2)


def window(frame: Frame, x: int, y: int, spec: CropSpec) -> U8:
    """One window of untouched pixels, uint8 [S, S, 3], its top left corner at x, y."""
    side = spec.side
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + side, frame.width), min(y + side, frame.height)
    yuv = frame.yuv(left, top, right - left, bottom - top)
    if yuv.shape[:2] != (side, side):
        around = ((top - y, y + side - bottom), (left - x, x + side - right), (0, 0))
        yuv = np.pad(yuv, around, mode="symmetric")
    return yuv if spec.colour == "yuv" else np.ascontiguousarray(yuv_to_bgr(yuv)[..., ::-1])
