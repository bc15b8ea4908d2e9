"""What a decoder process is asked, and what of its answers can be right."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.bundle import Manifest
from pipeline.frames import U8
from pipeline.prepared import Outline
from pipeline.sample import SEARCHED
from service.decoder import LOOK
from service.graphs import longest_sequence, samples_a_look

SLACK_BYTES = 4 * 1024 * 1024
"""Room for all of an answer but its samples."""

Counts = dict[int, tuple[int, int]]
"""Of each look that was sent: its faces, and the samples of each."""


@dataclass(frozen=True, slots=True)
class Looked:
    """The samples of one look, uint8 [K, n, F, S, S, 3]: n of each of its K faces."""

    number: int
    samples: U8


Told = Looked | Outline
"""What a child says of a clip while it is at work on it."""
Listener = Callable[[Told], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Job:
    """One clip, and what a bundle's model wants to see of it.

    sha256: of its bytes, in hexadecimal; budget_s: seconds in which looking has to end; cpu_s: seconds of
    CPU time after which the decoder is ended; outlines: whether to tell now and then what was seen so far;
    threads: of the decoder.
    """

    path: Path
    manifest: Manifest
    max_faces: int
    sha256: str
    budget_s: float | None = None
    cpu_s: float | None = None
    outlines: bool = False
    threads: int = 1

    def line(self) -> bytes:
        """The job as the child reads it."""
        job = {
            "path": str(self.path),
            "crop": self.manifest.crop.model_dump(),
            "sampling": self.manifest.sampling.model_dump(),
            **{
                name: getattr(self, name)
                for name in ("max_faces", "sha256", "budget_s", "cpu_s", "outlines", "threads")
            },
        }
        return json.dumps(job).encode() + b"\n"

    @property
    def most_bytes(self) -> int:
        """Size of the largest frame that can be right."""
        crop = self.manifest.crop
        sample = crop.frames * crop.side * crop.side * 3
        return self.max_faces * samples_a_look(self.manifest) * sample + SLACK_BYTES

    def looked(self, content: bytes, counts: Counts) -> Looked:
        """The samples in a frame, which are added to the counts. Raises ValueError when they are not of the
        shape that the model takes, or of a look that no plan has."""
        crop = self.manifest.crop
        number, *shape = LOOK.unpack_from(content)
        faces, count, *sample = shape
        if sample != [crop.frames, crop.side, crop.side, 3]:
            raise ValueError(f"samples of shape {shape}")
        if not (0 < faces <= self.max_faces and 0 < count <= samples_a_look(self.manifest)):
            raise ValueError(f"{count} samples of {faces} faces in a look")
        if number in counts or len(counts) >= most_looks(self.manifest):
            raise ValueError("more looks than were planned")
        counts[number] = (faces, count)
        return Looked(number, np.frombuffer(content, np.uint8, offset=LOOK.size).reshape(shape))

    def outlined(self, content: bytes, counts: Counts) -> Outline:
        """The outline in a frame. Raises ValueError when it is malformed or not of what was counted."""
        outline = Outline.from_bytes(content)
        if len(outline.tracks) > self.max_faces:
            raise ValueError("more tracks than asked for")
        longest, burst = longest_sequence(self.manifest), self.manifest.sampling.burst_frames
        for t in outline.tracks:
            sent = [counts.get(look, (0, 0)) for look, _ in t.cuts]
            steps = sum(count for _, count in sent)
            known = all(0 <= place < faces for (_, place), (faces, _) in zip(t.cuts, sent, strict=True))
            rows = len(t.boxes) if t.boxes.ndim == 2 and t.boxes.shape[1] == 5 else 0
            right = known and 0 < steps <= longest and 0 < rows <= burst * len(t.cuts)
            if not (right and t.start_s.shape == t.end_s.shape == (steps,)):
                raise ValueError(f"track {t.track} is not of what was sent")
        return outline


def most_looks(manifest: Manifest) -> int:
    """Looks at one clip at most."""
    sampling = manifest.sampling
    return sampling.bursts * (SEARCHED if sampling.spread == "head" else 1)
