"""Decoded pictures as they travel through the pipeline."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Frame:
    """One upright picture in planar YUV 4:2:0, 8 bit, limited range, as the decoder gave it.

    y: uint8 [H, W]; u, v: uint8 [ceil(H / 2), ceil(W / 2)]; time_s: presentation time in seconds
    from the first frame of the clip; index: position in presentation order, from 0.
    """

    y: U8
    u: U8
    v: U8
    time_s: float
    index: int

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
        return yuv_to_bgr(np.stack(planes, axis=-1))

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


def yuv_to_bgr(yuv: U8) -> U8:
    """Limited-range BT.601 YUV 4:4:4 uint8 [..., 3] to BGR uint8 of the same shape."""
    y = (yuv[..., 0].astype(np.float32) - 16.0) * 1.164383
    u = yuv[..., 1].astype(np.float32) - 128.0
    v = yuv[..., 2].astype(np.float32) - 128.0
    bgr = np.stack([y + 2.017232 * u, y - 0.391762 * u - 0.812968 * v, y + 1.596027 * v], axis=-1)
    return np.asarray(np.clip(np.rint(bgr), 0, 255), np.uint8)
