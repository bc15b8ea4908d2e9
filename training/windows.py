"""Clips of a corpus through the service's own pipeline: regions to train on, samples to judge.

Both are cut by `pipeline.prepare`, so their pixels are the bytes that the service sees. A region is
one large window about the face; the windows that the service would cut lie inside of it.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import cv2
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
from training.pool import Lost, PoolError, run_jobs
from training.recipe import Footage
from training.sequences import Clip
from training.tracks import largest_track

LIMITS = Limits()
CLIP_S = 120.0
"""Seconds in which a worker has to have read a clip, or the run ends."""

R = TypeVar("R")


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
    root: Path, rows: Iterable[ClipRow], crop: CropSpec, footage: Footage, cache: Path, *, workers: int = 0
) -> list[Clip]:
    """The regions of real clips, cut once and kept in `cache`; clips without a usable face are left out.

    workers: processes that cut; 0: this one. They change no result. Raises PoolError.
    """
    cache.mkdir(parents=True, exist_ok=True)
    named = {row: cache / f"{_key(root / row.file, crop, footage)}.npy" for row in rows}
    missing = [row for row, kept in named.items() if not kept.exists()]
    for row, region in _done(missing, partial(_region_cutter, root, crop, footage), workers):
        part = named[row].with_suffix(".part.npy")
        np.save(part, np.zeros((0,), np.uint8) if region is None else region)
        part.replace(named[row])
    clips = [Clip(row.file, row.source, np.load(kept)) for row, kept in named.items()]
    return [clip for clip in clips if len(clip.luma)]


def prepared_clips(
    root: Path, rows: Iterable[ClipRow], crop: CropSpec, sampling: SamplingSpec, *, workers: int = 0
) -> Iterator[tuple[ClipRow, PreparedClip]]:
    """The clips exactly as the service prepares them for a bundle, but for those that can not be decoded.

    workers: processes that prepare, and then they come in any order; 0: this one. Raises PoolError.
    """
    for row, clip in _done(rows, partial(_sample_cutter, root, crop, sampling), workers):
        if clip is not None:
            yield row, clip


def _done(
    rows: Iterable[ClipRow], make: Callable[[], Callable[[ClipRow], R | None]], workers: int
) -> Iterator[tuple[ClipRow, R | None]]:
    """What the function that `make` gives says of each row.

    Raises PoolError for a clip whose worker died, hung or failed, since that may be the machine's fault: left
    out, it would be missing from what is learnt without a word.
    """
    if workers == 0:
        work = make()
        yield from ((row, work(row)) for row in rows)
        return
    for row, result in run_jobs(rows, make, workers=workers, timeout_s=CLIP_S):
        if isinstance(result, Lost):
            raise PoolError(f"{row.file} could not be cut ({result.why}): {result.detail}")
        yield row, result


def _region_cutter(root: Path, crop: CropSpec, footage: Footage) -> Callable[[ClipRow], U8 | None]:
    faces = detector()
    return _read(lambda row: face_region(root / row.file, crop, footage, faces))


def _sample_cutter(
    root: Path, crop: CropSpec, sampling: SamplingSpec
) -> Callable[[ClipRow], PreparedClip | None]:
    faces = detector()
    return _read(
        lambda row: prepare(root / row.file, crop=crop, sampling=sampling, detector=faces, limits=LIMITS)
    )


def _read(work: Callable[[ClipRow], R | None]) -> Callable[[ClipRow], R | None]:
    """The same work, which says None of a clip that can not be read."""
    cv2.setNumThreads(1)

    def tolerant(row: ClipRow) -> R | None:
        try:
            return work(row)
        except MediaError:
            return None

    return tolerant


def _key(path: Path, crop: CropSpec, footage: Footage) -> str:
    with path.open("rb") as f:
        digest = hashlib.file_digest(f, "sha256")
    digest.update(f"{crop.side} {crop.margin} {footage.model_dump_json()}".encode())
    return digest.hexdigest()[:32]
