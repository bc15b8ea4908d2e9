"""Clips encoded once more, as platforms do with what is uploaded."""

from fractions import Fraction
from pathlib import Path

import av


def transcode(source: Path, out: Path, *, crf: int, scale: float = 1.0) -> Path:
    """Write the picture of `source` to `out` as H.264 (x264, medium) at a constant rate factor.

    scale: of both sides, bicubic, to even sizes. Sound is dropped; times are kept.
    """
    with av.open(str(source)) as reader, av.open(str(out), "w") as writer:
        video = reader.streams.video[0]
        rate = Fraction(video.average_rate or 25).limit_denominator(1000)
        # x264's macroblock tree gives other bytes now and then where the width is no multiple of 16.
        options = {"crf": str(crf), "threads": "1", "x264-params": "mbtree=0"}
        stream = writer.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height = (max(2, round(n * scale / 2) * 2) for n in (video.width, video.height))
        stream.pix_fmt = "yuv420p"
        for frame in reader.decode(video):
            picture = frame.reformat(stream.width, stream.height, "yuv420p", interpolation="BICUBIC")
            picture.pict_type = av.video.frame.PictureType.NONE
            writer.mux(stream.encode(picture))
        writer.mux(stream.encode(None))
    return out
