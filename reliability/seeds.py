"""Sound clips to begin with: one of each kind that the service accepts, a few kilobytes each."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from pipeline.frames import U8
from pipeline.sampleclip import FRAME_RATE, write_sample
from reliability.formats import GIF, JPEG, MATROSKA, MP4, PNG, RIFF, Format

SIZE = 176
PICTURES = 8
"""Of a film; an animation has half as many."""
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}


@dataclass(frozen=True, slots=True)
class Seed:
    """A sound clip. form: how it is taken apart; None where it is only bytes."""

    name: str
    data: bytes
    form: Format | None


def make(folder: Path) -> tuple[Seed, ...]:
    """All seeds, of one film with a face. The same versions of the encoders make the same bytes."""
    film = _film(folder / "film.mp4")
    short = film[: PICTURES // 2]
    x264 = {"preset": "veryfast", "x264-params": "threads=1"}
    return (
        Seed("mp4-h264", _video(film, "mp4", "libx264", x264), MP4),
        Seed("mp4-fragmented", _video(film, "mp4", "libx264", x264 | {"g": "4"}, FRAGMENTED), MP4),
        Seed("mp4-mpeg4", _video(film, "mp4", "mpeg4"), MP4),
        Seed("mov-h264", _video(film, "mov", "libx264", x264), MP4),
        Seed("mkv-h264", _video(film, "matroska", "libx264", x264), MATROSKA),
        Seed("webm-vp8", _video(film, "webm", "libvpx"), MATROSKA),
        Seed("webm-vp9", _video(film, "webm", "libvpx-vp9"), MATROSKA),
        Seed("avi-mjpeg", _video(film, "avi", "mjpeg", pixels="yuvj420p"), RIFF),
        Seed("avi-mpeg4", _video(film, "avi", "mpeg4"), RIFF),
        Seed("ts-mpeg2", _video(film, "mpegts", "mpeg2video"), None),
        Seed("ps-mpeg1", _video(film, "mpeg", "mpeg1video"), None),
        Seed("flv-h263", _video(film, "flv", "flv"), None),
        Seed("gif", _pictures(short, "GIF"), GIF),
        Seed("webp-animated", _pictures(short, "WEBP"), RIFF),
        Seed("apng", _pictures(short, "PNG"), PNG),
        Seed("webp", _pictures(short[:1], "WEBP"), RIFF),
        Seed("png", _pictures(short[:1], "PNG"), PNG),
        Seed("jpeg", _pictures(short[:1], "JPEG"), JPEG),
        Seed("bmp", _pictures(short[:1], "BMP"), None),
    )


def _film(path: Path) -> list[U8]:
    """Pictures of the sample clip, uint8 RGB [H, W, 3]."""
    with av.open(str(write_sample(path, seconds=PICTURES / FRAME_RATE, size=SIZE))) as film:
        return [np.asarray(f.to_ndarray(format="rgb24"), np.uint8) for f in film.decode(video=0)]


def _video(
    pictures: Sequence[U8],
    container: str,
    codec: str,
    options: dict[str, str] | None = None,
    muxing: dict[str, str] | None = None,
    *,
    pixels: str = "yuv420p",
) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container, options={"fflags": "+bitexact"} | (muxing or {})) as made:
        stream = made.add_stream(codec, rate=FRAME_RATE, options=options or {})
        assert isinstance(stream, av.VideoStream)  # noqa: S101 - all of these codecs are for pictures
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixels
        stream.thread_count = 1
        for k, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = k, Fraction(1, FRAME_RATE)
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))
    return buffer.getvalue()


def _pictures(pictures: Sequence[U8], name: str) -> bytes:
    buffer = io.BytesIO()
    first, *others = (Image.fromarray(p) for p in pictures)
    more: dict[str, Any] = (
        {"save_all": True, "append_images": others, "duration": 40, "loop": 0} if others else {}
    )
    first.save(buffer, name, **more)
    return buffer.getvalue()
