"""What is accepted as media, decided from the first bytes, before any decoder sees the file."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PictureTooLarge, PictureTooSmall, UnsupportedMedia

HEAD_BYTES = 65536
"""How much of a file's beginning `sniff` wants to see; less is enough for most kinds."""

ANIMATED_WEBP = "webp"
"""What `sniff` says of an animated WebP, for which libav has no demuxer."""

NAMES = {
    "mov": "mp4",
    "matroska": "matroska",
    "avi": "avi",
    "mpegts": "mpeg-ts",
    "mpeg": "mpeg-ps",
    "flv": "flv",
    "gif": "gif",
    "apng": "apng",
    "jpeg_pipe": "jpeg",
    "png_pipe": "png",
    "bmp_pipe": "bmp",
    "webp_pipe": "webp",
    ANIMATED_WEBP: "webp",
}
"""Demuxers that may be used, each with the name of its container in answers."""

STILLS = frozenset({"jpeg_pipe", "png_pipe", "bmp_pipe", "webp_pipe"})
"""Demuxers that give a single picture."""

_ISO_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"moof", b"styp", b"sidx"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis"}

_REFUSED: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a ZIP archive or an office document"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"%PDF", "a PDF document"),
    (b"#EXTM3U", "an HLS playlist, which refers to other files"),
    (b"ffconcat", "a concat script, which refers to other files"),
    (b"v=0", "an SDP description, which refers to other hosts"),
    (b"ID3", "an MP3 audio file"),
    (b"OggS", "an Ogg file, which is not supported"),
    (b"fLaC", "a FLAC audio file"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "an ASF or WMV file, which is not supported"),
    (b"II*\x00", "a TIFF picture, which is not supported"),
    (b"MM\x00*", "a TIFF picture, which is not supported"),
    (b"\x7fELF", "an executable"),
    (b"MZ", "an executable"),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What is decoded at most.

    max_pixels: width times height of one picture; min_side: pixels of the shorter side;
    max_duration_s, max_frames: what follows is not looked at, and the clip says so; max_streams:
    streams of one container.
    """

    max_pixels: int = 36_000_000
    min_side: int = 16
    max_duration_s: float = 600.0
    max_frames: int = 36_000
    max_streams: int = 64

    def reached(self, frames: int, seconds: float) -> str | None:
        """Why nothing beyond this many frames and seconds is looked at, None while there is room."""
        if frames >= self.max_frames:
            return f"only the first {self.max_frames} frames are looked at"
        if seconds >= self.max_duration_s:
            return f"only the first {self.max_duration_s:g} s are looked at"
        return None

    def check_size(self, width: int, height: int) -> None:
        """Raise PictureTooLarge or PictureTooSmall for a picture outside of the limits."""
        if width * height > self.max_pixels:
            raise PictureTooLarge(
                f"the picture has {width}x{height} pixels; at most {self.max_pixels:,} are decoded"
            )
        if min(width, height) < self.min_side:
            raise PictureTooSmall(
                f"the picture has {width}x{height} pixels; a face needs at least {self.min_side} a side"
            )


def sniff(head: bytes) -> str:
    """Name of the libav demuxer for a file that begins with `head` (at best HEAD_BYTES of it).

    One of the keys of NAMES: the demuxer is then forced, so libav never guesses, and formats that
    refer to other files or hosts (playlists, DASH, SDP, concat scripts, image sequences) are out
    of reach. Raises UnsupportedMedia, saying what the bytes look like.
    """
    if not head:
        raise UnsupportedMedia("the file is empty")
    found = _iso(head) or _riff(head) or _other(head)
    if found is None:
        raise UnsupportedMedia(f"this is {_describe(head)}, not a picture or a video that is supported")
    return found


def sniff_file(path: Path) -> str:
    """`sniff` on the beginning of a file."""
    with path.open("rb") as f:
        return sniff(f.read(HEAD_BYTES))


def _iso(head: bytes) -> str | None:
    if head[4:8] not in _ISO_BOXES:
        return None
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        raise UnsupportedMedia("this is a HEIF or AVIF picture, which is not supported; convert it to JPEG")
    return "mov"


def _riff(head: bytes) -> str | None:
    if head[:4] != b"RIFF":
        return None
    if head[8:12] == b"AVI ":
        return "avi"
    if head[8:12] == b"WEBP":
        animated = head[12:16] == b"VP8X" and len(head) > 20 and head[20] & 0x02
        return ANIMATED_WEBP if animated else "webp_pipe"
    return None


def _other(head: bytes) -> str | None:
    simple = (
        (b"\x1aE\xdf\xa3", "matroska"),
        (b"FLV\x01", "flv"),
        (b"GIF87a", "gif"),
        (b"GIF89a", "gif"),
        (b"\xff\xd8\xff", "jpeg_pipe"),
        (b"\x00\x00\x01\xba", "mpeg"),
    )
    for magic, name in simple:
        if head.startswith(magic):
            return name
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "apng" if _is_animated_png(head) else "png_pipe"
    if head.startswith(b"BM") and len(head) >= 26 and head[15:18] == bytes(3):
        return "bmp_pipe"
    return "mpegts" if _is_transport_stream(head) else None


def _is_animated_png(head: bytes) -> bool:
    """An acTL chunk stands before the first IDAT (PNG 3rd edition, 11.3.6.1)."""
    at = 8
    while at + 8 <= len(head):
        kind = head[at + 4 : at + 8]
        if kind in (b"acTL", b"IDAT"):
            return kind == b"acTL"
        at += 12 + int.from_bytes(head[at : at + 4], "big")
    return False


def _is_transport_stream(head: bytes) -> bool:
    """Sync bytes at the distance of packets, 188 bytes, or 192 behind a time code of four."""
    for offset, size in ((0, 188), (4, 192)):
        syncs = head[offset::size][:4]
        if len(syncs) >= 2 and set(syncs) == {0x47}:
            return True
    return False


def _describe(head: bytes) -> str:
    for magic, words in _REFUSED:
        if head.startswith(magic):
            return words
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "a WAV audio file"
    start = head[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "an HTML page"
    if start.startswith((b"<?xml", b"<svg", b"<mpd", b"<smil", b"<smoothstreamingmedia")):
        return "an XML document"
    if start.startswith((b"{", b"[")):
        return "JSON or other text"
    return "text" if _is_text(head[:4096]) else "data in no known format"


def _is_text(head: bytes) -> bool:
    try:
        words = head.decode("utf-8", errors="strict")
    except UnicodeDecodeError as e:
        # A character may be cut in two at the end of what was read.
        if e.start < len(head) - 4:
            return False
        words = head[: e.start].decode("utf-8")
    return all(c.isprintable() or c.isspace() for c in words)
