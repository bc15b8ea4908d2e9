"""What decoding leaves of a clip: facts of the media and, for each face track, its samples.

This is the hand-over between the half of the pipeline that touches strangers' bytes (decode,
detect, track, crop) and the half that runs the model. An outline has all but the samples, which it
names by the look and the place in it where they were cut. It crosses a process boundary as one JSON
header and raw numbers, never as a pickle.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, with_config

from pipeline.c2pa import C2pa
from pipeline.credentials import NOT_ASKED, Credentials
from pipeline.frames import F32, U8

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
"""How what another process sends is read."""


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class MediaFacts:
    """The clip as its container and its frames describe it. Sizes are of the upright picture; c2pa: whether
    the file carries a manifest of its provenance."""

    sha256: str
    bytes: int
    container: str
    codec: str
    width: int
    height: int
    duration_s: float
    frame_rate: float
    frames_decoded: int
    frames_used: int
    c2pa: C2pa = "not_checked"


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of the clip was looked at: seconds of frames, their share of its duration, the number of
    bursts they came in, of `planned` ones. `why` says what cut the clip short, if anything did; `expired`: a
    deadline; spans: from when to when each burst is shown, where that is known."""

    seconds_looked_at: float
    fraction: float
    bursts: int
    truncated: bool
    why: str | None = None
    expired: bool = False
    planned: int = 0
    spans: tuple[tuple[float, float], ...] = ()


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class Quality:
    """Medians over a track. size_px: side of the face box in source pixels; sharpness: variance of
    the Laplacian of the luma inside the box scaled to 112 pixels; brightness: mean luma, 0 to 1;
    yaw: horizontal offset of the nose between the eyes, 0 frontal to 1 profile; quantiser: mean over the box,
    0 to 51 on the scale of H.264 (`pipeline.quantiser`), None where the decoder tells none."""

    size_px: float
    sharpness: float
    brightness: float
    yaw: float
    detection: float
    quantiser: float | None = None


Cut = tuple[int, int]
"""A look's number and the place among its cuts: the samples of one face in one burst."""

_ARRAYS: tuple[Literal["start_s", "end_s", "boxes"], ...] = ("start_s", "end_s", "boxes")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackOutline:
    """One face followed through the clip, without its samples.

    start_s, end_s: float32 [T], the time that each sample spans, in order; boxes: float32 [K, 5], rows of
    (time_s, x, y, w, h) in source pixels, one a detection; bursts: in how many of them the face was cut;
    frames_used: frames that were cut; cuts: where its samples are, in order of time.
    """

    track: int
    start_s: F32
    end_s: F32
    boxes: F32
    quality: Quality
    bursts: int
    frames_used: int
    cuts: tuple[Cut, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedTrack(TrackOutline):
    """One face followed through the clip. samples: uint8 [T, F, S, S, 3] in order of time."""

    samples: U8


@dataclass(frozen=True, slots=True)
class Outline:
    """A clip as far as it was looked at. `faces_seen` counts all tracks, also those not kept; `credentials`,
    of a manifest that the file carries, are no part of what is serialised."""

    media: MediaFacts
    coverage: Coverage
    tracks: Sequence[TrackOutline]
    faces_seen: int = 0
    timing_ms: dict[str, float] = field(default_factory=dict)
    credentials: Credentials = NOT_ASKED

    def filled(self, samples: Mapping[Cut, U8]) -> "PreparedClip":
        """The clip with its samples, uint8 [n, F, S, S, 3] for each cut."""
        tracks = [
            PreparedTrack(
                samples=np.concatenate([samples[cut] for cut in t.cuts]),
                **{name: getattr(t, name) for name in TrackOutline.__slots__},
            )
            for t in self.tracks
        ]
        return PreparedClip(
            self.media, self.coverage, tracks, self.faces_seen, self.timing_ms, self.credentials
        )

    def to_bytes(self) -> bytes:
        """Serialise: length of the header, JSON header, then the arrays back to back."""
        arrays: list[NDArray[Any]] = []
        tracks = []
        for t in self.tracks:
            shapes = {}
            for name in _ARRAYS:
                a = np.ascontiguousarray(getattr(t, name))
                shapes[name] = list(a.shape)
                arrays.append(a)
            tracks.append(
                {
                    "track": t.track,
                    "quality": asdict(t.quality),
                    "bursts": t.bursts,
                    "frames_used": t.frames_used,
                    "cuts": t.cuts,
                    "shapes": shapes,
                }
            )
        header = {
            "media": asdict(self.media),
            "coverage": asdict(self.coverage),
            "tracks": tracks,
            "faces_seen": self.faces_seen,
            "timing_ms": self.timing_ms,
        }
        head = json.dumps(header).encode()
        return b"".join([struct.pack("<I", len(head)), head, *(a.tobytes() for a in arrays)])

    @classmethod
    def from_bytes(cls, data: bytes) -> "Outline":
        """Inverse of `to_bytes`. Every value is checked; raises ValueError on anything malformed."""
        try:
            (size,) = struct.unpack_from("<I", data)
            header = _Header.model_validate_json(data[4 : 4 + size])
        except struct.error as e:
            raise ValueError(f"malformed outline of a clip: {e}") from e
        if any(set(t.shapes) != set(_ARRAYS) for t in header.tracks):
            raise ValueError("malformed outline of a clip: an array is missing")
        at = 4 + size

        def take(shape: Sequence[int]) -> F32:
            nonlocal at
            a: F32 = np.frombuffer(data, np.float32, int(np.prod(shape)), at).reshape(shape)
            at += a.nbytes
            if not np.isfinite(a).all():
                raise ValueError("malformed outline of a clip: a number is not finite")
            return a

        tracks = [
            TrackOutline(
                track=t.track,
                quality=t.quality,
                bursts=t.bursts,
                frames_used=t.frames_used,
                cuts=t.cuts,
                **{name: take(t.shapes[name]) for name in _ARRAYS},
            )
            for t in header.tracks
        ]
        return Outline(header.media, header.coverage, tracks, header.faces_seen, header.timing_ms)


class _Part(BaseModel):
    model_config = _STRICT


class _TrackHeader(_Part):
    """What of a track is no array."""

    track: int
    quality: Quality
    bursts: int
    frames_used: int
    cuts: tuple[tuple[int, int], ...]
    shapes: dict[Literal["start_s", "end_s", "boxes"], list[Annotated[int, Field(ge=0, le=2**31)]]]


class _Header(_Part):
    """What of an outline is no array."""

    media: MediaFacts
    coverage: Coverage
    tracks: list[_TrackHeader]
    faces_seen: int
    timing_ms: dict[str, float]


@dataclass(frozen=True, slots=True)
class PreparedClip(Outline):
    """A clip ready for the model."""

    tracks: Sequence[PreparedTrack]
