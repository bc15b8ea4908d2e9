"""Animated WebP, which Pillow decodes: libav has no demuxer for it."""

from collections.abc import Container, Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np
from av import VideoFrame
from PIL import Image

from pipeline.media import Limits
from pipeline.scan import Scan


class WebpSource:
    """An animated WebP as a `Source`: every picture is made. One tick is 1 ms."""

    codec = "webp"
    wanted: Container[int] | None = None
    skipped: frozenset[int] = frozenset()

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
