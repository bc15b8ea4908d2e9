"""How coarsely a picture was quantised, block by block, as its decoder tells, on one scale for all codecs.

An encoder divides what it has transformed by a step and rounds: what is smaller than half a step is gone. The
step is in the stream, so nothing has to be guessed from the pixels; but it is that of the last encoding
alone, and says nothing of those before.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from av import VideoFrame
from av.sidedata.encparams import VideoEncParams, VideoEncParamsType
from av.sidedata.sidedata import SideData
from numpy.typing import NDArray

EXPORT = {"export_side_data": "venc_params"}
"""By this those decoders of libav tell that can: H.264, VP9, MPEG-1, 2 and 4, H.263 and their kin."""

COARSEST = 51.0
_STEP_AT_0 = 0.625
"""The scale is that of H.264's quantisation parameter (ITU-T H.264, 8.5.9): a step of so many levels of luma
at 0, which doubles every 6."""

_VP9_INDEX = (0, 1, 95, 119, 136, 152, 168, 184, 200, 216, 232, 248, 255)
_VP9_STEP = (4, 8, 102, 150, 200, 265, 353, 474, 639, 864, 1173, 1597, 1828)
"""Eighths of a level at some of VP9's indexes (bitstream specification, 8.6.1, AC, 8 bits); lines between
them are within 1.4% of the others."""

_INT = np.dtype(np.int32)
_FIELDS = 5
"""x, y, w, h and delta, at the beginning of libav's AVVideoBlockParams."""

I32 = NDArray[np.int32]
Box = tuple[float, float, float, float]


def _as_it_is(box: Box) -> Box:
    return box


@dataclass(frozen=True, slots=True)
class Quantisers:
    """The quantisers of the blocks of one picture.

    blocks: [N, 5 or more], rows of x, y, w, h in pixels, and delta, which is added to `base`; both are on the
    scale of the kind of codec. bits: of a sample. stored: where a box of the upright picture lies among them.
    """

    kind: VideoEncParamsType
    base: int
    bits: int
    blocks: I32
    stored: Callable[[Box], Box] = _as_it_is

    def under(self, box: Sequence[float] | NDArray[np.float32]) -> float | None:
        """The mean over what blocks cover of a box x, y, w, h, from 0 to COARSEST; None where none does."""
        x, y, w, h = self.stored((float(box[0]), float(box[1]), float(box[2]), float(box[3])))
        left, top, wide, high = self.blocks.T[:4]
        near = (left < x + w) & (top < y + h) & (left + wide > x) & (top + high > y)
        left, top, wide, high, delta = self.blocks[near].T[:_FIELDS].astype(np.float64)
        across = np.minimum(left + wide, x + w) - np.maximum(left, x)
        down = np.minimum(top + high, y + h) - np.maximum(top, y)
        shared = np.maximum(across, 0) * np.maximum(down, 0)
        area = float(shared.sum())
        return float(self._scaled(self.base + delta) @ shared) / area if area > 0 else None

    def _scaled(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values of the codec on the common scale."""
        if self.kind is VideoEncParamsType.H264:
            # libav counts from the finest quantiser of the bit depth.
            found = values - 6 * (self.bits - 8)
        elif self.kind is VideoEncParamsType.VP9:
            found = _of_step(np.interp(values, _VP9_INDEX, _VP9_STEP) / 8)
        else:
            # Of MPEG's kin libav tells twice the quantiser, which is the step of a flat matrix.
            found = _of_step(values)
        return np.clip(found, 0, COARSEST)


def _of_step(step: NDArray[np.float64]) -> NDArray[np.float64]:
    return 6 * np.log2(np.maximum(step, _STEP_AT_0) / _STEP_AT_0)


def quantisers_of(picture: VideoFrame, stored: Callable[[Box], Box] = _as_it_is) -> Quantisers | None:
    """What the decoder told of a picture's blocks, seen in place; None where it told nothing.

    Whoever holds it holds the picture.
    """
    try:
        # PyAV's stubs take this mapping for one of strings.
        side_data = cast(Iterable[object], picture.side_data)
        told = next((data for data in side_data if isinstance(data, VideoEncParams)), None)
        kind = told.codec_type if told else VideoEncParamsType.NONE
    except ValueError:
        # PyAV knows not all kinds of side data and then shows none of them, and not all kinds of codecs.
        return None
    if told is None or kind is VideoEncParamsType.NONE:
        return None
    if told.nb_blocks:
        blocks = blocks_in(
            memoryview(cast(SideData, told)), told.nb_blocks, told.block_size, told.blocks_offset
        )
    else:
        # VP9 tells of blocks only where they differ, others where they know any.
        whole = np.array([(0, 0, picture.width, picture.height, 0)], _INT)
        blocks = whole if kind is VideoEncParamsType.VP9 else None
    if blocks is None:
        return None
    return Quantisers(kind, told.qp, picture.format.components[0].bits, blocks, stored)


def blocks_in(content: memoryview, count: int, size: int, start: int) -> I32 | None:
    """libav's table of `count` blocks of `size` bytes each, which begins at `start` in the content [bytes]:
    int32 [count, size / 4]; None where that is no such table or does not lie in the content."""
    if size < _FIELDS * _INT.itemsize or size % _INT.itemsize or start + count * size > len(content):
        return None
    return np.frombuffer(content, _INT, count * size // _INT.itemsize, start).reshape(count, -1)
