"""How coarsely a picture was quantised, block by block, as its decoder tells, on one scale for all codecs.

An encoder divides what it has transformed by a step and rounds: what is smaller than half a step is gone. The
step is in the stream, so nothing has to be guessed from the pixels; but it is that of the last encoding
alone, and says nothing of those before.
"""

from collections.abc import Iterable, Sequence
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

_PLACE = ("x", "y", "w", "h")
_FIELDS = (*_PLACE, "delta")
_BYTES = 4


@dataclass(frozen=True, slots=True)
class Quantisers:
    """The quantisers of the blocks of one picture.

    blocks: [N] of x, y, w, h in pixels, and delta, which is added to `base`; both are on the scale of the
    kind of codec. bits: of a sample.
    """

    kind: VideoEncParamsType
    base: int
    bits: int
    blocks: NDArray[np.void]

    def under(self, box: Sequence[float] | NDArray[np.float32]) -> float | None:
        """The mean over what blocks cover of a box x, y, w, h, from 0 to COARSEST; None where none does."""
        x, y, w, h = (float(v) for v in box)
        left, top, wide, high, delta = (self.blocks[name].astype(np.float64) for name in _FIELDS)
        across = np.minimum(left + wide, x + w) - np.maximum(left, x)
        down = np.minimum(top + high, y + h) - np.maximum(top, y)
        shared = np.maximum(across, 0) * np.maximum(down, 0)
        if not shared.any():
            return None
        return float(np.average(self._scaled(self.base + delta), weights=shared))

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

    def moved(self, places: Iterable[NDArray[np.int32]]) -> "Quantisers":
        """The same at other places: x, y, w, h, int32 [N]."""
        blocks = self.blocks.copy()
        for name, values in zip(_PLACE, places, strict=True):
            blocks[name] = values
        return Quantisers(self.kind, self.base, self.bits, blocks)

    @property
    def places(self) -> tuple[NDArray[np.int32], ...]:
        """x, y, w, h of all blocks, int32 [N]."""
        return tuple(self.blocks[name] for name in _PLACE)


def _of_step(step: NDArray[np.float64]) -> NDArray[np.float64]:
    return 6 * np.log2(np.maximum(step, _STEP_AT_0) / _STEP_AT_0)


def quantisers_of(picture: VideoFrame) -> Quantisers | None:
    """What the decoder told of a picture's blocks, as a copy; None where it told nothing."""
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
        content = memoryview(cast(SideData, told)).cast("B")
        blocks = blocks_in(content, told.nb_blocks, told.block_size, told.blocks_offset)
    else:
        # VP9 tells of blocks only where they differ, others where they know any.
        whole = np.array([(0, 0, picture.width, picture.height, 0)], _layout(_BYTES * len(_FIELDS)))
        blocks = whole if kind is VideoEncParamsType.VP9 else None
    if blocks is None:
        return None
    return Quantisers(kind, told.qp, picture.format.components[0].bits, blocks)


def blocks_in(content: memoryview, count: int, size: int, start: int) -> NDArray[np.void] | None:
    """A copy of libav's table of `count` blocks (AVVideoBlockParams) of `size` bytes, which begins at `start`
    in the content [bytes]; None where it does not lie inside of that."""
    if size < _BYTES * len(_FIELDS) or start + count * size > len(content):
        return None
    return np.frombuffer(bytes(content[start : start + count * size]), _layout(size))


def _layout(size: int) -> np.dtype[np.void]:
    offsets = [_BYTES * k for k in range(len(_FIELDS))]
    formats = ["i4"] * len(_FIELDS)
    return np.dtype({"names": list(_FIELDS), "formats": formats, "offsets": offsets, "itemsize": size})
