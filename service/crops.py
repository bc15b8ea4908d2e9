"""Faces that a client has cut itself, so that the scene, the voices and the rest of a clip never leave it.

What it sends is what a decoder process would: the samples of each look, and an outline of the whole behind
them. It is checked as strictly as that, and further: a client states numbers that no decoder would.

    MAGIC, a length of four bytes (little endian), a JSON header, then frames as in service.decoder
"""

import asyncio
import hashlib
import struct
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.answer import Answer
from pipeline.bundle import Bundle, Manifest
from pipeline.credentials import Credentials
from pipeline.errors import MalformedCrops
from pipeline.frames import U8
from pipeline.prepared import Coverage, Cut, MediaFacts, Outline, PreparedClip, Quality, TrackOutline
from pipeline.quantiser import COARSEST
from pipeline.spec import CropSpec, SamplingSpec
from service.decoder import HEADER, LOOK, LOOKED, PREPARED
from service.job import SLACK_BYTES, Counts, Job, Looked, most_looks
from service.judge import Judge
from service.tracing import request_span

MAGIC = b"DFCROPS1"
MOST_HEADER_BYTES = 64 * 1024
MOST_OUTLINE_BYTES = 512 * 1024
"""Far more than a decoder writes for the most faces and bursts. Parsing it takes some 40 times its size."""
LARGEST = 1e7
"""Pixels, seconds and measures of quality stay far below."""
MOST_BYTES = 2**53 - 1
"""More than JSON carries exactly (RFC 8785), so that no answer about it could be signed, is no size."""
LONGEST_TEXT = 200
GIVEN = "crops_given: the faces were cut by the client, and so was all that is said of the clip"


class _Header(BaseModel):
    """For which model faces were cut."""

    model_config = ConfigDict(strict=True, extra="forbid")

    model: str
    crop: CropSpec
    sampling: SamplingSpec


def write_crops(out: BinaryIO, clip: PreparedClip, bundle: Bundle) -> None:
    """Write the faces of a clip that was prepared for a bundle, and nothing of any other face."""
    manifest = bundle.manifest
    header = (
        _Header(model=manifest.id, crop=manifest.crop, sampling=manifest.sampling).model_dump_json().encode()
    )
    out.write(MAGIC + struct.pack("<I", len(header)) + header)
    looks: dict[int, list[U8]] = {}
    tracks = []
    for track in clip.tracks:
        if len(track.samples) % len(track.cuts):
            raise MalformedCrops("a burst of the clip is broken off, so that its faces can not be sent")
        cuts: list[Cut] = []
        for (look, _), samples in zip(track.cuts, np.split(track.samples, len(track.cuts)), strict=True):
            cuts.append((look, len(looks.setdefault(look, []))))
            looks[look].append(samples)
        kept = {name: getattr(track, name) for name in TrackOutline.__slots__}
        tracks.append(TrackOutline(**kept | {"cuts": tuple(cuts)}))
    for look, faces in looks.items():
        stacked = np.stack(faces)
        _write_frame(out, LOOKED, LOOK.pack(look, *stacked.shape[:5], 3) + stacked.tobytes())
    outline = Outline(clip.media, clip.coverage, tracks, clip.faces_seen)
    _write_frame(out, PREPARED, outline.to_bytes())


def read_crops(path: Path, manifest: Manifest, max_faces: int) -> tuple[list[Looked], Outline]:
    """The looks of a file of crops that was cut for a bundle, and the outline of the clip.

    Raises MalformedCrops when it is malformed, of another model or of more faces than asked for.
    """
    job = Job(path, manifest, max_faces, "")
    most_look = job.most_bytes - SLACK_BYTES + LOOK.size
    most = most_looks(manifest) * most_look + MOST_HEADER_BYTES + MOST_OUTLINE_BYTES
    if path.stat().st_size > most:
        raise MalformedCrops(f"crops for {manifest.id!r} of so many faces have {most:,} bytes at most")
    content = memoryview(path.read_bytes())
    at = _check_header(content, manifest)
    counts: Counts = {}
    looks: list[Looked] = []
    try:
        while True:
            kind, size = HEADER.unpack_from(content, at)
            if size > (most_look if kind == LOOKED else MOST_OUTLINE_BYTES):
                raise MalformedCrops("a part of the crops is larger than it can be")
            frame = bytes(content[at + HEADER.size : at + HEADER.size + size])
            at += HEADER.size + size
            if at > len(content):
                raise MalformedCrops("the crops end early")
            if kind != LOOKED:
                break
            looks.append(job.looked(frame, counts))
        if kind != PREPARED or at != len(content):
            raise MalformedCrops("behind the samples there has to be one outline, and nothing else")
        outline = job.outlined(frame, counts)
    except (ValueError, TypeError, OverflowError, struct.error) as e:
        raise MalformedCrops(f"the crops can not be read: {' '.join(str(e).split())[:200]}") from e
    _check_outline(outline, manifest)
    return looks, replace(outline, timing_ms={})


class CropsJudge(Judge):
    """Answers a question about crops instead of a clip."""

    kind = "crops"

    async def answer(self) -> Answer:
        """Raises MalformedCrops, DeadlineExceeded or Unavailable."""
        answer = await super().answer()
        identity = hashlib.sha256(f"crops {self._upload.sha256.hex()} {answer.id}".encode()).hexdigest()[:32]
        return answer.model_copy(update={"id": identity, "reasons": [*answer.reasons, GIVEN]})

    async def _seen(self) -> Outline:
        self._stage = "encode"
        question = self._question
        manifest = question.model.bundle.manifest
        with request_span.get().start("look"):
            looks, outline = await asyncio.to_thread(
                read_crops, self._upload.path, manifest, question.max_faces
            )
        for looked in looks:
            await self._encoding.add(looked)
        await self._encoding.finish()
        return replace(outline, credentials=Credentials(unchecked="crops"))


def _write_frame(out: BinaryIO, kind: bytes, content: bytes) -> None:
    out.write(HEADER.pack(kind, len(content)) + content)


def _check_header(content: memoryview, manifest: Manifest) -> int:
    """Where the frames begin. Raises MalformedCrops."""
    start = len(MAGIC) + 4
    if bytes(content[: len(MAGIC)]) != MAGIC or len(content) < start:
        raise MalformedCrops("these are no crops: `deepfake-detect crop` makes them")
    size = int(struct.unpack_from("<I", content, len(MAGIC))[0])
    try:
        header = _Header.model_validate_json(bytes(content[start : start + min(size, MOST_HEADER_BYTES)]))
    except ValidationError as e:
        raise MalformedCrops("the header of the crops can not be read") from e
    if (header.crop, header.sampling) != (manifest.crop, manifest.sampling):
        raise MalformedCrops(
            f"the crops were cut for {header.model[:64]!r}, which sees other ones than {manifest.id!r}"
        )
    return start + size


def _check_outline(outline: Outline, manifest: Manifest) -> None:
    """Numbers that a decoder of ours would not give. Raises MalformedCrops."""
    media, coverage = outline.media, outline.coverage
    numbers = [*_numbers(replace(media, bytes=0)), *_numbers(coverage), outline.faces_seen]
    spans_sound = len(coverage.spans) <= most_looks(manifest) and all(
        0 <= start <= end <= LARGEST for start, end in coverage.spans
    )
    texts = [media.sha256, media.container, media.codec, coverage.why or ""]
    for t in outline.tracks:
        numbers += [*_numbers(t.quality), t.track, t.bursts, t.frames_used]
        if (t.quality.quantiser or 0) > COARSEST:
            raise MalformedCrops("the quantiser of a face is out of range")
        spans = np.stack([t.start_s, t.end_s], axis=1)
        if not ((np.abs(t.boxes) <= LARGEST).all() and ((spans >= 0) & (spans <= LARGEST)).all()):
            raise MalformedCrops("a time or a place of a face is out of range")
        if (t.end_s < t.start_s).any() or (np.diff(t.start_s) < 0).any():
            raise MalformedCrops("the samples of a face are not in order of time")
        if len(t.start_s) % manifest.crop.samples_per_burst:
            raise MalformedCrops("a burst of a face lacks samples")
    sound = all(0 <= n <= LARGEST for n in numbers) and 0 <= media.bytes <= MOST_BYTES
    if not (sound and spans_sound) or coverage.fraction > 1:
        raise MalformedCrops("a number of the outline is out of range")
    if any(len(text) > LONGEST_TEXT or not text.isprintable() for text in texts):
        raise MalformedCrops("a text of the outline is too long")


def _numbers(part: MediaFacts | Coverage | Quality) -> list[float]:
    values = [getattr(part, name) for name in part.__slots__]
    return [v for v in values if isinstance(v, int | float)]
