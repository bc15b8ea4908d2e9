"""From what a decoder gives to upright planar YUV 4:2:0, leaving pixels alone wherever possible."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
from av import VideoFrame
from av.filter import Graph
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as SideDataType
from av.video.plane import VideoPlane

from pipeline.frames import U8, Frame
from pipeline.quantiser import Box, Quantisers, quantisers_of

FULL_RANGE = 2
"""libav's AVCOL_RANGE_JPEG. Anything else is taken for limited range, as players do."""

_NATIVE = frozenset({"yuv420p", "yuva420p"})


@dataclass(frozen=True, slots=True)
class Turn:
    """One of the eight ways to set a picture upright: transpose, then mirror columns, then rows."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    def apply(self, plane: U8) -> U8:
        """A copy of the plane [H, W] set upright, contiguous; only moves samples."""
        turned = plane.T if self.transpose else plane
        turned = turned[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]
        return np.array(turned, order="C")

    def undone(self, box: Box, width: int, height: int) -> Box:
        """Where a box x, y, w, h of the upright picture lies in the one of that width and height before."""
        x, y, w, h = box
        across, down = (height, width) if self.transpose else (width, height)
        x = across - x - w if self.mirror_x else x
        y = down - y - h if self.mirror_y else y
        return (y, x, h, w) if self.transpose else (x, y, w, h)

    @classmethod
    def of_matrix(cls, a: int, b: int, c: int, d: int) -> "Turn":
        """From a display matrix (ISO/IEC 14496-12, 6.2.2): x' = a x + c y, y' = b x + d y.

        Angles between the quarter turns are rounded to the nearest one.
        """
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(transpose=True, mirror_x=c < 0, mirror_y=b < 0)
        return cls(mirror_x=a < 0, mirror_y=d < 0)

    @classmethod
    def of_exif(cls, orientation: int) -> "Turn":
        """From the EXIF tag Orientation (CIPA DC-008, 4.6.5), 1 to 8; others count as 1."""
        return {
            2: cls(mirror_x=True),
            3: cls(mirror_x=True, mirror_y=True),
            4: cls(mirror_y=True),
            5: cls(transpose=True),
            6: cls(transpose=True, mirror_x=True),
            7: cls(transpose=True, mirror_x=True, mirror_y=True),
            8: cls(transpose=True, mirror_y=True),
        }.get(orientation, cls())


def turn_of(picture: VideoFrame) -> Turn:
    """How the container asks for the picture to be turned."""
    try:
        # PyAV's stubs take this mapping for one of strings.
        side_data = cast(Iterable[SideData], picture.side_data)
        matrices = [data for data in side_data if data.type is SideDataType.DISPLAYMATRIX]
    except ValueError:
        # PyAV knows not all kinds of side data and then shows none of them, but still the angle.
        quarters = round(picture.rotation / 90) % 4
        return (Turn(), Turn(True, False, True), Turn(False, True, True), Turn(True, True, False))[quarters]
    if not matrices:
        return Turn()
    a, b, _, c, d, *_ = np.frombuffer(memoryview(matrices[0]), np.int32).tolist()
    return Turn.of_matrix(a, b, c, d)


class Converter:
    """Makes `Frame`s of decoded pictures.

    Planes of 8-bit 4:2:0 in limited range are left as they are, so luma is what the decoder made, byte
    for byte; alpha is left out. Everything else (more bits, other subsampling, full range, grey, RGB,
    palettes) is scaled to that layout by libswscale, rounded without dithering, because a dither
    pattern would be taken for texture of the picture; RGB becomes BT.601. Pixels that are not
    square stay as they are.
    """

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._graph: Graph | None = None
        self._layout: tuple[object, ...] = ()

    def frame(self, picture: VideoFrame, time_s: float, index: int) -> Frame:
        """The upright frame. Where nothing has to be turned it holds the decoder's own buffers, read-only.

        Quantisers are read of the decoder's picture once they are asked for, so the frame always keeps it.

        libav counts references to a buffer and writes to none that it shares, so a frame may be kept
        for as long as one likes, also beyond its clip.
        """
        quantisers = self._quantisers(picture)
        if picture.format.name not in _NATIVE or picture.color_range == FULL_RANGE:
            picture = self._convert(picture)
        y, u, v = (self._upright(_samples(plane)) for plane in picture.planes[:3])
        return Frame(y, u, v, time_s, index, quantisers)

    def _quantisers(self, picture: VideoFrame) -> Callable[[], Quantisers | None]:
        if self._turn == Turn():
            return partial(quantisers_of, picture)
        stored = partial(self._turn.undone, width=picture.width, height=picture.height)
        return partial(quantisers_of, picture, stored)

    def _upright(self, plane: U8) -> U8:
        return plane if self._turn == Turn() else self._turn.apply(plane)

    def _convert(self, picture: VideoFrame) -> VideoFrame:
        layout = (picture.format.name, picture.width, picture.height, picture.color_range, picture.colorspace)
        if self._graph is None or layout != self._layout:
            scale = "out_range=tv:flags=bicubic+accurate_rnd+full_chroma_int:sws_dither=none"
            if picture.format.is_rgb:
                scale += ":out_color_matrix=bt601"
            self._graph = _graph(picture, ("scale", scale), ("format", "pix_fmts=yuv420p"))
            self._layout = layout
        self._graph.vpush(picture)
        return self._graph.vpull()


def deinterlace(
    before: VideoFrame | None, run: list[VideoFrame], after: VideoFrame | None
) -> list[VideoFrame]:
    """Progressive pictures for a run of consecutive ones, as many as came.

    Motion-adaptive (libavfilter's bwdif), which looks at both neighbours: `before` and `after` are
    those of the run, where they exist. Progressive pictures pass untouched.
    """
    around = [before] if before is not None else []
    ahead = len(around)
    around += run
    if after is not None:
        around.append(after)
    graph = _graph(run[0], ("bwdif", "mode=send_frame:parity=auto:deint=interlaced"))
    for picture in around:
        graph.vpush(picture)
    graph.vpush(None)
    return [graph.vpull() for _ in around][ahead : ahead + len(run)]


def _graph(picture: VideoFrame, *filters: tuple[str, str]) -> Graph:
    graph = Graph()
    last = graph.add_buffer(
        width=picture.width, height=picture.height, format=picture.format, time_base=picture.time_base
    )
    for name, arguments in filters:
        step = graph.add(name, arguments)
        last.link_to(step)
        last = step
    last.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


def _samples(plane: VideoPlane) -> U8:
    """The samples of a plane [H, W], seen in place; whoever holds them holds the picture."""
    lines: U8 = np.frombuffer(memoryview(plane).toreadonly(), np.uint8).reshape(-1, plane.line_size)
    return lines[: plane.height, : plane.width]
