"""Clips of a corpus through the service's own pipeline: regions to train on, samples to judge.

Both are cut by `pipeline.prepare`, so their pixels are the bytes that the service sees. A region is
one large window about the face; the windows that the service would cut lie inside of it.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pipeline.decode import open_clip
from pipeline.detect import FaceDetector
from pipeline.detect.registry import open_detector
from pipeline.errors import MediaError
from pipeline.frames import U8
from pipeline.media import Limits
from pipeline.prepare import prepare
from pipeline.prepared import PreparedClip
from pipeline.spec import CropSpec, SamplingSpec
from training.corpus import ClipRow
from training.recipe import Footage
from training.sequences import Clip
from training.tracks import largest_track

LIMITS = Limits()


def detector() -> FaceDetector:
    """The embedded face detector, on one thread: corpora are read by several processes."""
    return open_detector("yunet", None, threads=1)


def face_region(path: Path, crop: CropSpec, footage: Footage, faces: FaceDetector) -> U8 | None:
    """Luma about the largest face of a clip, uint8 [bursts, frames, side, side], side even.

    The square is `crop.margin` times as wide as the face box and centred on it, as the square of
    the service's windows, at least `crop.side` and at most `footage.region` pixels. None without a
    face, or when the picture is smaller than one window. Raises MediaError.
    """
    with open_clip(path, LIMITS) as clip:
        room = min(clip.width, clip.height) // 2 * 2
    if room < crop.side:
        return None
    widest = min(footage.region, room)
    whole = CropSpec(
        kind="native", side=widest, frames=footage.burst_frames, colour="yuv", margin=crop.margin
    )
    sampling = SamplingSpec(bursts=footage.bursts, burst_frames=footage.burst_frames)
    track = largest_track(prepare(path, crop=whole, sampling=sampling, detector=faces, limits=LIMITS).tracks)
    if track is None:
        return None
    wanted = int(crop.margin * float(np.median(track.boxes[:, 3]))) // 2 * 2
    side = min(widest, max(crop.side, wanted))
    edge = (widest - side) // 4 * 2
    inner = slice(edge, edge + side)
    return np.ascontiguousarray(track.samples[:, :, inner, inner, 0])


def training_clips(
    root: Path, rows: Iterable[ClipRow], crop: CropSpec, footage: Footage, cache: Path
) -> list[Clip]:
    """The regions of real clips, cut once and kept in `cache`; clips without a usable face are left out."""
    cache.mkdir(parents=True, exist_ok=True)
    faces = detector()
    clips = []
    for row in rows:
        kept = cache / f"{_key(root / row.file, crop, footage)}.npy"
        if not kept.exists():
            try:
                region = face_region(root / row.file, crop, footage, faces)
            except MediaError:
                region = None
            part = kept.with_suffix(".part.npy")
            np.save(part, np.zeros((0,), np.uint8) if region is None else region)
            part.replace(kept)
        region = np.load(kept)
        if len(region):
            clips.append(Clip(row.file, row.source, region))
    return clips


def samples_of(path: Path, crop: CropSpec, sampling: SamplingSpec, faces: FaceDetector) -> PreparedClip:
    """The clip exactly as the service prepares it for a bundle. Raises MediaError."""
    return prepare(path, crop=crop, sampling=sampling, detector=faces, limits=LIMITS)


def _key(path: Path, crop: CropSpec, footage: Footage) -> str:
    with path.open("rb") as f:
        digest = hashlib.file_digest(f, "sha256")
    digest.update(f"{crop.side} {crop.margin} {footage.model_dump_json()}".encode())
    return digest.hexdigest()[:32]
