"""Opened media: when its frames are shown, and the frames themselves in order."""

import struct
import warnings
from collections.abc import Container, Iterator, Set
from pathlib import Path
from typing import Protocol

import av
from av import Packet, VideoFrame, VideoStream
from av.container import InputContainer
from av.stream import Disposition
from PIL import Image, UnidentifiedImageError

from pipeline.errors import NoFrames, NoVideoStream, PictureTooLarge, UndecodableMedia
from pipeline.inflight import Doubt, InFlight
from pipeline.media import STILLS, Limits
from pipeline.quantiser import EXPORT
from pipeline.scan import Place, Scan, Scanner, packets, words
from pipeline.skip import may_skip

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

_INDEXED = frozenset({"mov", "matroska"})
"""Demuxers that find the first packet again."""

_HELD_BACK = 64
"""More packets than any decoder takes in before the picture of the first comes out, its threads aside."""


class Source(Protocol):
    """One clip, opened.

    damage: the first place where decoding failed. An error in a picture that was skipped goes unseen.
    wanted: stamps of the pictures that somebody will look at, None for all; the decoder may leave out
    others to which no picture refers, and changes no wanted one by that. May be changed at any time:
    it holds for what has not gone into the decoder yet. skipped: stamps since the start of the last
    pass that were not wanted, so that their pictures may never come.
    """

    codec: str
    damage: str | None
    wanted: Container[int] | None

    @property
    def skipped(self) -> Set[int]:
        """See above."""
        ...

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
        self.wanted: Container[int] | None = None
        self.skipped: set[int] = set()
        self._at_start = False
        self._most_packets: int | None = None
        self._container: InputContainer | None
        self._container, self._stream = self._open()
        self.codec = self._stream.codec_context.name
        self._may_skip = may_skip(self._stream.codec_context)

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
        stream.codec_context.options = {"max_pixels": str(self._limits.max_pixels)} | EXPORT
        stream.thread_count = self._threads
        # PyAV asks for threads within a picture, which most encoders leave nothing to do.
        stream.thread_type = "AUTO"
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
        scanner = Scanner(stream, self._demuxer, self._limits, size)
        scan = scanner.run(container)
        self._most_packets = scan.packets
        self._at_start = scan.damage is None and self._rewind(container, stream, scanner.first)
        return scan

    def _rewind(self, container: InputContainer, stream: VideoStream, first: Place | None) -> bool:
        """Go back to the first packet, which costs less than to open the file again; whether that worked."""
        if self._demuxer not in _INDEXED or first is None:
            return False
        start = min(t for t in (first.pts, first.dts, 0) if t is not None)
        try:
            container.seek(start, stream=stream)
            again = next(container.demux(stream))
            container.seek(start, stream=stream)
        except (av.FFmpegError, ValueError, StopIteration):
            return False
        return Place.of(again) == first

    def pictures(self, stamp: int | None = None) -> Iterator[VideoFrame]:
        given, stamps = 0, set()
        try:
            for picture in self._pass(stamp):
                given += 1
                stamps.add(picture.pts)
                yield picture
        except Doubt:
            # Only a single thread tells which packet failed, so from here on there is but one.
            self._threads = 1
            self.close()
        else:
            return
        by_stamp = bool(self.skipped)
        for k, picture in enumerate(self._pass(stamp)):
            if picture.pts not in stamps if by_stamp else k >= given:
                yield picture

    def _pass(self, stamp: int | None) -> Iterator[VideoFrame]:
        if stamp is None and not self._at_start:
            self.close()
        self._at_start = False
        container, stream = self._opened()
        if stamp is not None:
            try:
                container.seek(stamp, stream=stream)
            except av.FFmpegError:
                # Its reader then finds no picture here and decodes from the start instead.
                return
        self.skipped = set()
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
        in_flight = InFlight(self._threads)
        for k, packet in enumerate(packets(container, stream, self._note)):
            if self._is_past(k):
                # An index of a few bytes can name the same sample a million times.
                return
            if not packet.size and packet.dts is not None:
                continue  # it says that nothing is shown anew; a decoder would take it for the end
            if packet.is_keyframe:
                failed = False
                spoilt.discard(None)
            needless = self._is_needless(packet)
            stream.codec_context.skip_frame = "NONREF" if needless else "DEFAULT"
            try:
                pictures = _decoded(packet)
            except (av.FFmpegError, ValueError) as e:
                self._note(f"decoding failed after {last:.2f} s: {words(e)}")
                failed, pictures = True, []
            if failed:
                spoilt.add(packet.pts)
            if not needless:
                in_flight.sent(packet)
            for picture in pictures:
                in_flight.came(picture)
                if picture.pts not in spoilt and not picture.is_corrupt:
                    last = picture.time if picture.pts is not None else last
                    yield picture
        in_flight.landed()

    def _is_past(self, packets: int) -> bool:
        """Whether a pass has read so many packets that no picture within the limits can come any more."""
        return self._most_packets is not None and packets >= self._most_packets + _HELD_BACK + self._threads

    def _is_needless(self, packet: "Packet[VideoStream]") -> bool:
        """Whether nobody wants the picture of a packet, unless others refer to it."""
        if self.wanted is None or not self._may_skip or packet.pts is None or packet.pts in self.wanted:
            return False
        self.skipped.add(packet.pts)
        return True

    def _note(self, damage: str) -> None:
        if self._threads > 1:
            raise Doubt
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
