"""Media that the tests make for themselves: sound, odd and broken."""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType
from PIL import Image

from pipeline.frames import U8
from pipeline.sampleclip import write_sample

TIME_BASE = Fraction(1, 1000)


def face_clip(path: Path, *, seconds: float = 2.0, size: int = 496, faces: int = 1) -> Path:
    """A clip in which the embedded detector finds its faces."""
    return write_sample(path, seconds=seconds, size=size, faces=faces)


def pattern(count: int, width: int = 96, height: int = 64, seed: int = 0) -> list[U8]:
    """Frames of texture that moves and grows brighter, uint8 RGB [H, W, 3]."""
    y, x = np.mgrid[:height, :width]
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 6, 3)
    return [
        np.stack(
            [
                np.clip(100 + 40 * np.sin((x + 2 * k) / 7 + p) + 30 * np.cos(y / 5 - p) + k, 0, 255)
                for p in phase
            ],
            -1,
        ).astype(np.uint8)
        for k in range(count)
    ]


def write_clip(
    path: Path,
    frames: Iterable[U8],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rate: int = 25,
    times_ms: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    audio: bool = False,
    interlaced: bool = False,
) -> Path:
    """Encode RGB frames; the container follows the suffix. times_ms: presentation times, if uneven."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        sound = container.add_stream("aac", rate=16000, layout="mono") if audio else None
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = TIME_BASE if times_ms else Fraction(1, rate)
        if interlaced:
            stream.codec_context.options = {"flags": "+ildct+ilme", "x264-params": "tff=1"} | (options or {})
        for k, pixels in enumerate(frames):
            if k == 0:
                stream.height, stream.width = pixels.shape[:2]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = frame.reformat(format=pix_fmt)
            frame.pts = times_ms[k] if times_ms else k
            frame.time_base = stream.codec_context.time_base
            frame.pict_type = PictureType.NONE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            _mux_silence(container, sound)
    return path


def rotated(path: Path, frames: Iterable[U8], degrees: int) -> Path:
    """An MP4 whose display matrix asks for a turn: the matrix of its track header is rewritten."""
    data = bytearray(write_clip(path, frames).read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    one = 1 << 16
    c, s = {0: (one, 0), 90: (0, one), 180: (-one, 0), 270: (0, -one)}[degrees]
    data[at : at + 36] = struct.pack(">9i", c, s, 0, -s, c, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def animation(path: Path, frames: Sequence[U8], duration_ms: int = 100) -> Path:
    """An animated GIF, WebP or PNG, as the suffix says."""
    pictures = [Image.fromarray(f) for f in frames]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=duration_ms, loop=0)
    return path


def still(path: Path, pixels: U8, orientation: int | None = None) -> Path:
    """A picture, as the suffix says; orientation: its EXIF tag."""
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif) if orientation else Image.fromarray(pixels).save(path)
    return path


def audio_only(path: Path) -> Path:
    """An MP4 with sound and no picture."""
    with av.open(str(path), "w", format="mp4") as container:
        _mux_silence(container, container.add_stream("aac", rate=16000, layout="mono"))
    return path


def _mux_silence(container: av.container.OutputContainer, stream: av.AudioStream) -> None:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
    frame.sample_rate = 16000
    for k in range(16):
        frame.pts = k * 1024
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def no_frames(path: Path) -> Path:
    """An MP4 whose video track has a header and not a single sample."""
    with av.open(str(path), "w", format="mp4", options={"movflags": "+empty_moov"}) as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        container.start_encoding()
    return path


def moov_missing(path: Path) -> Path:
    """An MP4 that breaks off before its index, which stands at the end."""
    data = write_clip(path, pattern(30)).read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])
    return path


def broken_off(path: Path, share: float = 0.5, count: int = 60) -> Path:
    """An MP4 with its index first that breaks off within its frames."""
    data = write_clip(path, pattern(count), options={"g": "10"}).read_bytes()
    fast = _faststart(path, data)
    start = fast.index(b"mdat")
    path.write_bytes(fast[: start + int((len(fast) - start) * share)])
    return path


def _faststart(path: Path, data: bytes) -> bytes:
    with (
        av.open(io.BytesIO(data)) as source,
        av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return path.read_bytes()


def header_then_garbage(path: Path) -> Path:
    """An MP4 with a sound index whose frames are noise."""
    data = bytearray(_faststart(path, write_clip(path, pattern(30)).read_bytes()))
    start = data.index(b"mdat") + 4
    data[start:] = np.random.default_rng(0).integers(0, 256, len(data) - start, dtype=np.uint8).tobytes()
    path.write_bytes(data)
    return path


def huge_png(path: Path, side: int = 16000) -> Path:
    """A PNG whose header promises side x side pixels; its data are a few bytes of zeros."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


def huge_mov(path: Path, side: int = 16000) -> Path:
    """A MOV whose sample description promises side x side pixels."""
    data = bytearray(write_clip(path, pattern(2), codec="rawvideo", pix_fmt="rgb24").read_bytes())
    at = data.index(b"raw ") + 4 + 24
    data[at : at + 4] = struct.pack(">HH", side, side)
    path.write_bytes(data)
    return path


def zip_archive() -> bytes:
    """A ZIP archive with one file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("clip.mp4", "not a clip")
    return buffer.getvalue()


TEXT = b"This is not a clip.\n" * 20
HTML = b"<!DOCTYPE html><html><body>not a clip</body></html>"
