"""Opened media: when its frames are shown, and the frames themselves in order."""

import struct
import warnings
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Protocol

import av
import numpy as np
from av import Packet, VideoFrame, VideoStream
from av.container import InputContainer
from av.stream import Disposition
from PIL import Image, UnidentifiedImageError

from pipeline.errors import NoFrames, NoVideoStream, PictureTooLarge, UndecodableMedia
from pipeline.media import STILLS, Limits
from pipeline.scan import Scan, Scanner, packets, words

_PICTURES = {
    "jpeg_pipe": "JPEG",
    "png_pipe": "PNG",
    "apng": "PNG",
    "bmp_pipe": "BMP",
    "gif": "GIF",
    "webp_pipe": "WEBP",
    "webp": "WEBP",
}

_EXIF_ORIENTATION = 0x0112


class Source(Protocol):
    """One clip, opened. `damage` tells the first place where decoding failed."""

    codec: str
    damage: str | None

    def scan(self) -> Scan:
        """Presentation times without decoding."""
        ...

    def pictures(self, stamp: int | None = None) -> Iterator[VideoFrame]:
        """Decode in presentation order from the start, or from the key frame at or before `stamp`.

        Where that can not be sought, other pictures may come, or none.
        """
        ...

    def close(self) -> None:
        """Free the decoder and the file."""
        ...


def picture_orientation(path: Path, demuxer: str, limits: Limits) -> int:
    """Check the size that a picture file's header states; its EXIF orientation, 1 if it has none.

    Reads the header only. 1 for containers that are not picture files. Raises PictureTooLarge,
    PictureTooSmall or UndecodableMedia.
    """
    if demuxer not in _PICTURES:
        return 1
    kind = _PICTURES[demuxer]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=[kind]) as picture:
                limits.check_size(*picture.size)
                return _exif_orientation(picture) if demuxer in STILLS else 1
    except Image.DecompressionBombError as e:
        raise PictureTooLarge(
            f"the picture has far more pixels than the {limits.max_pixels:,} that are decoded"
        ) from e
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError) as e:
        raise UndecodableMedia(f"the {kind} header can not be read") from e


def _exif_orientation(picture: Image.Image) -> int:
    # Writers get EXIF wrong in many ways, and none of them spoils the pixels.
    try:
        orientation = picture.getexif().get(_EXIF_ORIENTATION, 1)
    except (OSError, ValueError, TypeError, SyntaxError, KeyError, struct.error):
        return 1
    return orientation if isinstance(orientation, int) else 1


class LibavSource:
    """A file that libav demuxes and decodes, always by the demuxer that was sniffed.

    Raises UndecodableMedia when the container can not be read, NoVideoStream, NoFrames,
    PictureTooLarge or PictureTooSmall. Pictures over the limit are refused from the container's
    header and once more by the decoder itself, before it allocates them.
    """

    def __init__(self, path: Path, demuxer: str, limits: Limits, threads: int = 1) -> None:
        self._path, self._demuxer, self._limits, self._threads = path, demuxer, limits, threads
        self.damage: str | None = None
        self._container: InputContainer | None
        self._container, self._stream = self._open()
        self.codec = self._stream.codec_context.name

    def _open(self) -> tuple[InputContainer, VideoStream]:
        container = self._open_container({"max_pixels": str(self._limits.max_pixels)})
        try:
            return container, self._choose(container)
        except BaseException:
            container.close()
            raise

    def _open_container(self, options: dict[str, str]) -> InputContainer:
        options = {
            "protocol_whitelist": "file",
            "max_streams": str(self._limits.max_streams),
            **options,
        }
        try:
            return av.open(
                str(self._path.absolute()),
                format=self._demuxer,
                options=options,
                metadata_errors="replace",
            )
        except (av.FFmpegError, ValueError) as e:
            raise UndecodableMedia(f"the container can not be read: {words(e)}") from e

    def _choose(self, container: InputContainer) -> VideoStream:
        stream = container.streams.best("video")
        covers = Disposition.attached_pic | Disposition.timed_thumbnails
        if not isinstance(stream, VideoStream) or stream.disposition & covers:
            kinds = sorted({s.type for s in container.streams if not isinstance(s, VideoStream)})
            raise NoVideoStream(
                f"there is no video in this file, only {', '.join(kinds) or 'cover pictures'}"
            )
        # Without this check PyAV 18 crashes the interpreter (PyAV #2344).
        if stream.codec_context is None:
            raise UndecodableMedia("there is no decoder for the video stream")
        if stream.width and stream.height:
            self._limits.check_size(stream.width, stream.height)
        else:
            self._refuse_unsized()
        stream.codec_context.options = {"max_pixels": str(self._limits.max_pixels)}
        stream.thread_count = self._threads
        return stream

    def _refuse_unsized(self) -> None:
        # Over `max_pixels`, libav forgets the size; without any decoder it keeps what the container says.
        with self._open_container({"codec_whitelist": "none"}) as container:
            stream = container.streams.best("video")
            if isinstance(stream, VideoStream) and stream.codec_context is not None and stream.width:
                self._limits.check_size(stream.width, stream.height)
        raise NoFrames("the video stream holds no frame from which its size can be told")

    def scan(self) -> Scan:
        container, stream = self._opened()
        size = self._path.stat().st_size
        scan = Scanner(stream, self._demuxer, self._limits, size).run(container)
        self.close()
        return scan

    def pictures(self, stamp: int | None = None) -> Iterator[VideoFrame]:
        if stamp is None:
            self.close()
        container, stream = self._opened()
        if stamp is not None:
            try:
                container.seek(stamp, stream=stream)
            except av.FFmpegError:
                # Its reader then finds no picture here and decodes from the start instead.
                return
        yield from self._decode(container, stream)

    def _opened(self) -> tuple[InputContainer, VideoStream]:
        if self._container is None:
            self._container, self._stream = self._open()
        return self._container, self._stream

    def _decode(self, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
        # What follows a failure is patched from pictures that were never there, until a key frame;
        # what the decoder still held back before it is sound.
        spoilt: set[int | None] = set()
        failed, last = False, 0.0
        for packet in packets(container, stream, self._note):
            if packet.is_keyframe:
                failed = False
                spoilt.discard(None)
            try:
                pictures = _decoded(packet)
            except (av.FFmpegError, ValueError) as e:
                self._note(f"decoding failed after {last:.2f} s: {words(e)}")
                failed, pictures = True, []
            if failed:
                spoilt.add(packet.pts)
            for picture in pictures:
                if picture.pts not in spoilt and not picture.is_corrupt:
                    last = picture.time if picture.pts is not None else last
                    yield picture

    def _note(self, damage: str) -> None:
        self.damage = self.damage or damage

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None


def _decoded(packet: "Packet[VideoStream]") -> list[VideoFrame]:
    """What comes out of the decoder for a packet; a part of a packet never goes in (PyAV #2344)."""
    if packet.is_corrupt:
        raise ValueError("a part of the file is damaged or missing")
    return packet.decode()


class WebpSource:
    """An animated WebP, which Pillow decodes: libav has no demuxer for it. One tick is 1 ms."""

    codec = "webp"

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path, self._limits = path, limits
        self.damage: str | None = None

    def scan(self) -> Scan:
        starts: list[int] = []
        now, shown, end, truncated = 0, 0, 0, None
        with self._path.open("rb") as f:
            for shown in _webp_durations(f):
                truncated = truncated or self._limits.reached(len(starts), now / 1000)
                if truncated is None:
                    starts.append(now)
                    end = now + shown
                now += shown
        beyond_s = (now - end) / 1000
        last_s = (end - starts[-1]) / 1000 if starts else 0.0
        return Scan(starts, [], 0.001, "counted", last_s, beyond_s, truncated=truncated)

    def pictures(self, stamp: int | None = None) -> Iterator[VideoFrame]:
        if stamp is not None:
            raise ValueError("an animated WebP has no key frames")
        try:
            with Image.open(self._path, formats=["WEBP"]) as animation:
                for k in range(getattr(animation, "n_frames", 1)):
                    animation.seek(k)
                    picture = VideoFrame.from_ndarray(np.asarray(animation.convert("RGB")), "rgb24")
                    picture.pts, picture.time_base = k, Fraction(1, 1000)
                    yield picture
        except (OSError, ValueError, EOFError, SyntaxError) as e:
            self.damage = self.damage or f"decoding failed: {e}"

    def close(self) -> None:
        """Nothing stays open between calls."""


def _webp_durations(f: BinaryIO) -> Iterator[int]:
    """Milliseconds of each frame: the ANMF chunks of an animated WebP (RFC 9649, 2.7.1.1)."""
    f.seek(12)
    while len(chunk := f.read(8)) == 8:
        size = int.from_bytes(chunk[4:], "little")
        padded = size + size % 2
        if chunk[:4] == b"ANMF":
            head = f.read(16)
            # As browsers do: a picture that is to be shown for no time is shown for a tenth of a second.
            yield int.from_bytes(head[12:15], "little") or 100
            padded -= len(head)
        f.seek(padded, 1)
