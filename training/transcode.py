"""Clips encoded once more, as platforms and people do with what they pass on."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np

from pipeline.decode import Clip, open_clip
from pipeline.frames import Frame
from pipeline.media import Limits

TICKS = 90_000
"""Of a second, in which times are written: the clock of MPEG."""
BLACK = 16
CHUNK = 16
GENTLE_CRF = 18
"""Constant rate factor at which encoding itself is hardly to be seen."""

MPEG4_TICKS = 60_000
"""MPEG-4 counts less than 65,536 ticks a second."""

Encoder = Literal["libx264", "libx265", "libvpx-vp9", "mpeg4"]


@dataclass(frozen=True, slots=True)
class Condition:
    """What is done to a clip before it is judged, in this order.

    Frames dropped to at most `fps` a second, none made up; the middle `crop` of its width and height
    cut out, pixels untouched; luma above black multiplied by `gain`; both sides scaled by `scale`,
    bicubic; H.264 at `crf`, or as another encoder writes it, at its own rate factor or, in MPEG-4, quantiser.
    """

    crf: int = GENTLE_CRF
    scale: float = 1.0
    fps: float | None = None
    crop: float = 1.0
    gain: float = 1.0
    encoder: Encoder = "libx264"

    @property
    def options(self) -> dict[str, str]:
        """What its encoder is told."""
        if self.encoder == "libvpx-vp9":
            return {"crf": str(self.crf), "b": "0", "deadline": "realtime", "cpu-used": "8"}
        if self.encoder == "libx265":
            return {"crf": str(self.crf), "preset": "veryfast", "x265-params": "log-level=none"}
        if self.encoder == "mpeg4":
            return {"qmin": str(self.crf), "qmax": str(self.crf)}
        # x264's macroblock tree gives other bytes now and then where the width is no multiple of 16.
        return {"crf": str(self.crf), "x264-params": "mbtree=0"}


PUBLISHED = "as-published"
CONDITIONS: dict[str, tuple[str, Condition | None]] = {
    PUBLISHED: ("the files as they are", None),
    "crf-23": ("encoded again, H.264 crf 23", Condition(crf=23)),
    "crf-30": ("encoded again, H.264 crf 30", Condition(crf=30)),
    "crf-38": ("encoded again, H.264 crf 38", Condition(crf=38)),
    "half-size": ("scaled to half of width and height, H.264 crf 18", Condition(scale=0.5)),
    "15-fps": ("frames dropped to at most 15 a second, H.264 crf 18", Condition(fps=15.0)),
    "crop-70": (
        "the middle 70% of width and of height cut out, not enlarged, H.264 crf 18",
        Condition(crop=0.7),
    ),
    "brighter": ("luma times 1.3, H.264 crf 18", Condition(gain=1.3)),
    "darker": ("luma times 0.7, H.264 crf 18", Condition(gain=0.7)),
}
"""The ladder of conditions, each with its words and what it does."""


def transcode(source: Path, out: Path, *, crf: int, scale: float = 1.0) -> Path:
    """Write the picture of `source` to `out` as H.264 at a constant rate factor, scaled on both sides."""
    return under(Condition(crf=crf, scale=scale), source, out)


def under(condition: Condition, source: Path, out: Path, limits: Limits | None = None) -> Path:
    """Write the picture of `source`, upright, to `out` under a condition, H.264 by x264 at medium.

    Sizes are rounded to even ones; sound is dropped; times are kept. Raises MediaError.
    """
    with open_clip(source, limits) as clip, av.open(str(out), "w", format="mp4") as writer:
        rate = Fraction(clip.frame_rate or 25).limit_denominator(1000)
        stream = writer.add_stream(condition.encoder, rate=rate, options=condition.options | {"threads": "1"})
        stream.codec_context.time_base = Fraction(1, MPEG4_TICKS if condition.encoder == "mpeg4" else TICKS)
        for k, frame in enumerate(_kept(clip, condition.fps)):
            picture = _picture(frame, condition)
            if k == 0:
                stream.width, stream.height, stream.pix_fmt = picture.width, picture.height, "yuv420p"
            writer.mux(stream.encode(picture))
        writer.mux(stream.encode(None))
    return out


def _kept(clip: Clip, fps: float | None) -> Iterator[Frame]:
    """The clip's frames, of each 1/fps seconds the first one alone."""
    count = len(clip.times_s)
    plan = [range(k, min(k + CHUNK, count)) for k in range(0, count, CHUNK)]
    last = -1
    for burst in clip.bursts(plan):
        for frame in burst:
            # Half a tick, so that a time that is rounded down falls into its own slot.
            slot = frame.index if fps is None else int(frame.time_s * fps + 0.5 * fps / TICKS)
            if slot > last:
                last = slot
                yield frame


def _picture(frame: Frame, condition: Condition) -> av.VideoFrame:
    width, height = (_even(n * condition.crop, n) for n in (frame.width, frame.height))
    x, y = (frame.width - width) // 4 * 2, (frame.height - height) // 4 * 2
    luma = frame.y[y : y + height, x : x + width]
    if condition.gain != 1:
        luma = np.clip(np.rint((luma - float(BLACK)) * condition.gain + BLACK), 0, 255).astype(np.uint8)
    inside = slice(y // 2, (y + height) // 2), slice(x // 2, (x + width) // 2)
    packed = np.concatenate([p.ravel() for p in (luma, frame.u[inside], frame.v[inside])])
    picture = av.VideoFrame.from_ndarray(packed.reshape(height * 3 // 2, width), format="yuv420p")
    if condition.scale != 1:
        small, low = _even(width * condition.scale), _even(height * condition.scale)
        picture = picture.reformat(small, low, "yuv420p", interpolation="BICUBIC")
    picture.pts, picture.time_base = round(frame.time_s * TICKS), Fraction(1, TICKS)
    return picture


def _even(size: float, most: int | None = None) -> int:
    """The nearest even number of pixels, at least 2 and at most `most`."""
    nearest = max(2, round(size / 2) * 2)
    return nearest if most is None else min(nearest, most // 2 * 2)
