"""What is sent: sound clips of several sizes, and bodies that a service should refuse."""

import os
import struct
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from loadtests.judging import Wanted
from loadtests.streams import Endless, Leaving, Stalling, Stream
from pipeline.sampleclip import write_sample
from reliability.cases import Cases
from reliability.forms import BOUNDARY, form, part
from reliability.seeds import Seed, make

CLIP = "DETECTOR_LOAD_CLIP"
PLAIN = "clip"
MADE_S = 2.0
SIZES = {"small": (1.0, 320), "medium": (3.0, 496), "large": (5.0, 960)}
"""Seconds and pixels of the longer side."""
TRICKLE_S = 5.0
"""In which a slow client sends a clip."""
TRICKLES = 50
STALLING = "stalling"
STALL_S = 20.0
"""For which a client stops in the middle of a clip."""
RARELY = 0.1
"""How often it does, for each time that another bad upload comes: it keeps its client busy for so long."""
TOO_LARGE = 2**40
"""Bytes that are announced where a clip is too large, whatever the limit."""
MOST_SENT = 2**20
"""Of these, before the client looks for an answer."""
HUGE_SIDE = 16_000
SEED = 1


@dataclass(frozen=True, slots=True)
class Upload:
    """One request. body: bytes, or a stream that is made for each sending; wanted: the answer that is due."""

    kind: str
    content_type: str
    body: bytes | Callable[[], Stream]
    wanted: Wanted = Wanted.answer


@cache
def made(seconds: float, size: int) -> bytes:
    """A clip as `deepfake-detect sample` makes it."""
    with tempfile.TemporaryDirectory() as folder:
        return write_sample(Path(folder) / "sample.mp4", seconds=seconds, size=size).read_bytes()


@cache
def plain() -> Upload:
    """The file that DETECTOR_LOAD_CLIP names, or a made clip, in a form."""
    given = os.environ.get(CLIP)
    return _sound(PLAIN, Path(given).read_bytes() if given else made(MADE_S, SIZES["medium"][1]))


@cache
def sized(name: str) -> Upload:
    """A clip of one of the SIZES."""
    return _sound(name, made(*SIZES[name]))


@cache
def trickled() -> Upload:
    """The plain clip as a slow client sends it."""
    sent = plain()
    assert isinstance(sent.body, bytes)
    body = sent.body
    piece = len(body) // TRICKLES + 1
    return Upload("slow", sent.content_type, lambda: Stream(body, piece=piece, pause_s=TRICKLE_S / TRICKLES))


def hostile(draw: Random) -> Upload:
    """One of all that a service should refuse, or one that was tampered with at random."""
    bodies = (*refused(), None)
    weights = [RARELY if each is not None and each.kind == STALLING else 1.0 for each in bodies]
    (chosen,) = draw.choices(bodies, weights)
    return tampered(draw) if chosen is None else chosen


def tampered(draw: Random) -> Upload:
    """A clip or a form of which nobody knows what is left: answered or refused, but not with a failure."""
    case = Cases(SEED, _seeds()).case(draw.randrange(100_000))
    return Upload("tampered", case.content_type.decode("latin-1"), case.body, Wanted.either)


@cache
def refused() -> tuple[Upload, ...]:
    """Broken, cut, of the wrong type, too large, and not sent to the end."""
    clip = next(s.data for s in _seeds() if s.name == "mp4-h264")
    picture = next(s.data for s in _seeds() if s.name == "png")
    multipart, sound = form(clip)
    kind = multipart.decode("latin-1")
    other = part(clip, b'Content-Disposition: form-data; name="other"; filename="clip.mp4"')
    end = b"--" + BOUNDARY + b"--\r\n"

    def no(name: str, content_type: str, body: bytes | Callable[[], Stream]) -> Upload:
        return Upload(name, content_type, body, Wanted.refusal)

    return (
        no("text", "video/mp4", b"This is not a clip.\n" * 50),
        no("wrong type", "text/plain", clip),
        no("truncated", "video/mp4", clip[: len(clip) // 3]),
        no("noise for frames", "video/mp4", noise_for_frames(clip)),
        no("huge picture", "image/png", huge_picture(picture)),
        no("empty", "video/mp4", b""),
        no("half a form", kind, sound[: len(sound) // 2]),
        no("wrong field", kind, other + end),
        no("two clips", kind, part(clip) * 2 + end),
        no("too large", "video/mp4", lambda: Endless(clip, claimed=TOO_LARGE, most=MOST_SENT)),
        Upload(STALLING, kind, lambda: Stalling(sound, STALL_S), Wanted.either),
        Upload("leaving", kind, lambda: Leaving(sound), Wanted.nothing),
    )


def noise_for_frames(clip: bytes) -> bytes:
    """An MP4 with a sound index whose frames are noise."""
    start, end = clip.index(b"mdat") + 4, clip.index(b"moov") - 4
    return clip[:start] + Random(SEED).randbytes(end - start) + clip[end:]


def huge_picture(png: bytes) -> bytes:
    """A PNG whose header (its first chunk: PNG, 11.2.2) promises far more pixels than there are."""
    header = b"IHDR" + struct.pack(">II", HUGE_SIDE, HUGE_SIDE) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


def _sound(kind: str, clip: bytes) -> Upload:
    content_type, body = form(clip)
    return Upload(kind, content_type.decode("latin-1"), body)


@cache
def _seeds() -> tuple[Seed, ...]:
    with tempfile.TemporaryDirectory() as folder:
        return make(Path(folder))
