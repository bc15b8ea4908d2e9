"""Decoded pictures as they travel through the pipeline."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

from pipeline.quantiser import Quantisers

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]


def _untold() -> None:
    """No decoder made it."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One upright picture in planar YUV 4:2:0, 8 bit, limited range, as the decoder gave it.

    y: uint8 [H, W]; u, v: uint8 [ceil(H / 2), ceil(W / 2)]; all three may be read-only and have gaps
    between their rows. time_s: presentation time in seconds from the first frame of the clip; index:
    position in presentation order, from 0. quantisers: reads those of its blocks, where the decoder tells.
    """

    y: U8
    u: U8
    v: U8
    time_s: float
    index: int
    quantisers: Callable[[], Quantisers | None] = _untold

    @property
    def height(self) -> int:
        """Rows of the upright picture."""
        return int(self.y.shape[0])

    @property
    def width(self) -> int:
        """Columns of the upright picture."""
        return int(self.y.shape[1])

    def bgr(self, width: int | None = None, height: int | None = None) -> U8:
        """The whole picture as uint8 BGR [height, width, 3], area-filtered when it shrinks (BT.601).

        Each plane is scaled before the conversion, so a small picture never costs a large one.
        """
        w, h = width or self.width, height or self.height
        shrinks = w < self.width or h < self.height
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        planes = [
            p if p.shape == (h, w) else cv2.resize(p, (w, h), interpolation=how)
            for p in (self.y, self.u, self.v)
        ]
        return _bgr_of_planes(*planes)

    def yuv(self, x: int, y: int, width: int, height: int) -> U8:
        """A window of untouched luma with its chroma repeated, uint8 [height, width, 3].

        The window must lie inside the picture. Chroma is repeated, not interpolated.
        """
        if x < 0 or y < 0 or x + width > self.width or y + height > self.height:
            raise ValueError(f"window {x},{y} {width}x{height} leaves the {self.width}x{self.height} picture")
        rows = np.arange(y, y + height) // 2
        columns = np.arange(x, x + width) // 2
        chroma = np.ix_(rows, columns)
        return np.stack([self.y[y : y + height, x : x + width], self.u[chroma], self.v[chroma]], axis=-1)


Burst = list[Frame]
"""Consecutive frames of one clip, in presentation order; at least one."""


_LEVELS = np.arange(256, dtype=np.float32)
_LUMA, _CHROMA = (_LEVELS - 16.0) * 1.164383, _LEVELS - 128.0
_U_TO_B, _U_TO_G = 2.017232 * _CHROMA, 0.391762 * _CHROMA
_V_TO_G, _V_TO_R = 0.812968 * _CHROMA, 1.596027 * _CHROMA
"""What each value of a plane adds to a colour: the products of the conversion, in single precision."""


def yuv_to_bgr(yuv: U8) -> U8:
    """Limited-range BT.601 YUV 4:4:4 uint8 [..., 3] to BGR uint8 of the same shape."""
    flat = np.ascontiguousarray(yuv).reshape(1, -1, 3)
    return _bgr_of_planes(*cv2.split(flat)).reshape(yuv.shape)


def _bgr_of_planes(y: MatLike, u: MatLike, v: MatLike) -> U8:
    """BGR uint8 [H, W, 3] of planes [H, W], computed in single precision and rounded to the nearest."""
    light = cv2.LUT(y, _LUMA)
    less_u = cv2.subtract(light, cv2.LUT(u, _U_TO_G))
    # Where eight bits are asked for, OpenCV rounds halves to even and clips, as numpy's rint and clip do.
    blue = cv2.add(light, cv2.LUT(u, _U_TO_B), dtype=cv2.CV_8U)
    green = cv2.subtract(less_u, cv2.LUT(v, _V_TO_G), dtype=cv2.CV_8U)
    red = cv2.add(light, cv2.LUT(v, _V_TO_R), dtype=cv2.CV_8U)
    return np.asarray(cv2.merge([blue, green, red]), np.uint8)
