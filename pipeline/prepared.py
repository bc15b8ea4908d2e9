"""What decoding leaves of a clip: facts of the media and, for each face track, its samples.

This is the hand-over between the half of the pipeline that touches strangers' bytes (decode,
detect, track, crop) and the half that runs the model. It crosses a process boundary as one JSON
header and raw pixels, never as a pickle.
"""

import json
import struct
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.frames import F32, U8


@dataclass(frozen=True, slots=True)
class MediaFacts:
    """The clip as its container and its frames describe it. Sizes are of the upright picture."""

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


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of the clip was looked at: seconds of frames, their share of its duration, the number of
    bursts they came in. `why` says what cut the clip short, if anything did."""

    seconds_looked_at: float
    fraction: float
    bursts: int
    truncated: bool
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Quality:
    """Medians over a track. size_px: side of the face box in source pixels; sharpness: variance of
    the Laplacian of the luma inside the box scaled to 112 pixels; brightness: mean luma, 0 to 1;
    yaw: horizontal offset of the nose between the eyes, 0 frontal to 1 profile."""

    size_px: float
    sharpness: float
    brightness: float
    yaw: float
    detection: float


@dataclass(frozen=True, slots=True)
class PreparedTrack:
    """One face followed through the clip.

    samples: uint8 [T, F, S, S, 3] in order of time; start_s, end_s: float32 [T], the time that each
    sample spans; boxes: float32 [K, 5], rows of (time_s, x, y, w, h) in source pixels, one a
    detection; bursts: in how many of them the face was found; frames_used: frames that were cut.
    """

    track: int
    samples: U8
    start_s: F32
    end_s: F32
    boxes: F32
    quality: Quality
    bursts: int
    frames_used: int


@dataclass(frozen=True, slots=True)
class PreparedClip:
    """A clip ready for the model. `faces_seen` counts all tracks, also those not kept."""

    media: MediaFacts
    coverage: Coverage
    tracks: list[PreparedTrack]
    faces_seen: int = 0
    timing_ms: dict[str, float] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Serialise: length of the header, JSON header, then the arrays back to back."""
        arrays: list[NDArray[Any]] = []
        tracks = []
        for t in self.tracks:
            shapes = {}
            for name in ("samples", "start_s", "end_s", "boxes"):
                a = np.ascontiguousarray(getattr(t, name))
                shapes[name] = list(a.shape)
                arrays.append(a)
            tracks.append(
                {
                    "track": t.track,
                    "quality": asdict(t.quality),
                    "bursts": t.bursts,
                    "frames_used": t.frames_used,
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
    def from_bytes(cls, data: bytes) -> "PreparedClip":
        """Inverse of `to_bytes`. Raises ValueError or KeyError on anything malformed."""
        try:
            return cls._parse(data)
        except (struct.error, TypeError) as e:
            raise ValueError(f"malformed prepared clip: {e}") from e

    @classmethod
    def _parse(cls, data: bytes) -> "PreparedClip":
        (size,) = struct.unpack_from("<I", data)
        header = json.loads(data[4 : 4 + size])
        at = 4 + size

        def take(shape: list[int], kind: type) -> NDArray[Any]:
            nonlocal at
            a: NDArray[Any] = np.frombuffer(data, dtype=kind, count=int(np.prod(shape)), offset=at).reshape(
                shape
            )
            at += a.nbytes
            return a

        tracks = [
            PreparedTrack(
                track=t["track"],
                samples=take(t["shapes"]["samples"], np.uint8),
                start_s=take(t["shapes"]["start_s"], np.float32),
                end_s=take(t["shapes"]["end_s"], np.float32),
                boxes=take(t["shapes"]["boxes"], np.float32),
                quality=Quality(**t["quality"]),
                bursts=t["bursts"],
                frames_used=t["frames_used"],
            )
            for t in header["tracks"]
        ]
        return cls(
            MediaFacts(**header["media"]),
            Coverage(**header["coverage"]),
            tracks,
            header["faces_seen"],
            header["timing_ms"],
        )
