"""How far sparse detection leads from detecting on every frame.

Sparse is what `prepare` does at the bundle's sampling. Dense detects on every frame of the clip and
follows with the same Tracker; it may lose a face for as long as the sparse one may. Both are compared
on the frames of the bursts that were looked at, where sparse boxes are interpolated between
detections and constant beyond them. Tracks that were seen in fewer than two of these bursts are
ignored on both sides. A sparse and a dense track are the same when they overlap by more than half on
more frames than either does with any other; the set is the same when every track has its partner.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench import Bench, BenchError, prepared
from pipeline.decode import open_clip
from pipeline.detect import FaceDetector
from pipeline.detect.registry import open_detector
from pipeline.errors import MediaError
from pipeline.frames import F32, Frame
from pipeline.look import THUMBNAIL
from pipeline.media import Limits
from pipeline.prepare import GAP_BURSTS
from pipeline.runtime import usable_cores
from pipeline.sample import key_frames, plan_bursts
from pipeline.sampleclip import write_sample
from pipeline.track import MAX_GAP_S, Tracker, interpolate, iou, is_cut

SAME = 0.5
LEAST_BURSTS = 2
BATCH = 8
MADE = ((1, 496), (2, 640), (3, 960), (6, 1280))
"""Faces and widths of the clips that are made where no corpus is given."""

LIMITS = Limits(max_duration_s=60.0)
"""Of a longer clip the beginning is compared."""

Boxes = dict[int, F32]
"""Boxes x, y, w, h of one track by the index of the frame."""


@dataclass(frozen=True, slots=True)
class Found:
    """Tracks of one clip on the frames of the bursts that were looked at; `key` frames had a detection."""

    sparse: dict[int, Boxes]
    dense: dict[int, Boxes]
    key: dict[int, set[int]]
    detections: tuple[int, int]


def measure(bench: Bench) -> dict[str, Any]:
    """One row a clip. Clips without a track on either side count as having the same set."""
    detector = open_detector("yunet", threads=usable_cores())
    rows, unreadable = [], 0
    files = chosen(bench)
    for file in files:
        try:
            rows.append(compared(found(bench, file, detector)))
        except MediaError:
            unreadable += 1
    if not any(row["iou"] for row in rows):
        raise BenchError(f"no face was followed in {len(rows)} clips, {unreadable} more can not be read")
    return {
        "clips": "given" if bench.corpus else "made",
        "readable": len(rows),
        "unreadable": unreadable,
        "rows": rows,
    }


def found(bench: Bench, file: Path, detector: FaceDetector) -> Found:
    """Both kinds of tracks of a clip. Raises MediaError."""
    sampling = bench.bundle.manifest.sampling
    sparse = prepared(bench.bundle, file, detector, LIMITS)
    with open_clip(file, LIMITS) as clip:
        times = clip.times_s
        plan = plan_bursts(times, sampling)[: sparse.coverage.bursts]
        every = [range(at, min(at + BATCH, len(times))) for at in range(0, len(times), BATCH)]
        dense = _dense(clip.bursts(every), detector, _gap(times, plan))
    tracks = {t.track: _spread(t.boxes, times, plan) for t in sparse.tracks}
    looked = {k for run in plan for k in run}
    kept = {n: {k: b for k, b in boxes.items() if k in looked} for n, boxes in dense.items()}
    return Found(
        _lasting({n: boxes for n, (boxes, _) in tracks.items()}, plan),
        _lasting(kept, plan),
        {n: key for n, (_, key) in tracks.items()},
        (sum(len(key_frames(len(run), sampling.detect_every)) for run in plan), len(times)),
    )


def compared(found: Found) -> dict[str, Any]:
    """IoU of partners on every frame that both have, and whether the sets of tracks are the same."""
    partners = matched(found.sparse, found.dense)
    overlaps: list[float] = []
    between: list[float] = []
    alone = 0
    for s, d in partners.items():
        for frame, box in found.sparse[s].items():
            if frame not in found.dense[d]:
                alone += 1
                continue
            overlaps.append(iou(box, found.dense[d][frame]))
            if frame not in found.key[s]:
                between.append(overlaps[-1])
    return {
        "iou": overlaps,
        "iou_between": between,
        "frames_alone": alone,
        "sparse_tracks": len(found.sparse),
        "dense_tracks": len(found.dense),
        "same_tracks": len(partners) == len(found.sparse) == len(found.dense),
        "sparse_frames_detected": found.detections[0],
        "dense_frames_detected": found.detections[1],
    }


def matched(sparse: dict[int, Boxes], dense: dict[int, Boxes]) -> dict[int, int]:
    """Partners, those that overlap on the most frames first; each track has one at most."""
    shared = []
    for s, boxes in sparse.items():
        for d, others in dense.items():
            frames = sum(k in others and iou(box, others[k]) > SAME for k, box in boxes.items())
            if frames:
                shared.append((-frames, s, d))
    partners: dict[int, int] = {}
    for _, s, d in sorted(shared):
        if s not in partners and d not in partners.values():
            partners[s] = d
    return partners


def _dense(bursts: Iterable[list[Frame]], detector: FaceDetector, gap_s: float) -> dict[int, Boxes]:
    tracker = Tracker(gap_s)
    tracks: dict[int, Boxes] = {}
    last = None
    for frames in bursts:
        width, height = frames[0].width, frames[0].height
        scale = min(1.0, detector.longer_side / max(width, height))
        small = max(1, round(width * scale)), max(1, round(height * scale))
        for frame, faces in zip(frames, detector.detect([f.bgr(*small) for f in frames]), strict=True):
            thumbnail = frame.bgr(*THUMBNAIL)
            if last is not None and is_cut(last, thumbnail):
                tracker.cut()
            last = thumbnail
            whole = faces.scaled(width / small[0], height / small[1])
            for i, number in enumerate(tracker.update(frame.time_s, whole)):
                tracks.setdefault(number, {})[frame.index] = whole.boxes[i]
    return tracks


def _spread(rows: F32, times: list[float], plan: list[range]) -> tuple[Boxes, set[int]]:
    """Boxes on every frame of the bursts in which a track was detected, and the frames of detections.

    rows: float32 [K, 5], time_s, x, y, w, h.
    """
    boxes: Boxes = {}
    key: set[int] = set()
    at = np.array([int(np.argmin(np.abs(np.array(times) - t))) for t in rows[:, 0]])
    for run in plan:
        mine = (at >= run.start) & (at < run.stop)
        if mine.any():
            key |= {int(k) for k in at[mine]}
            boxes |= {k: interpolate(at[mine], rows[mine, 1:], k) for k in run}
    return boxes, key


def _lasting(tracks: dict[int, Boxes], plan: list[range]) -> dict[int, Boxes]:
    """Those that were seen in two bursts or more, or in all where there are fewer."""
    least = min(LEAST_BURSTS, len(plan))
    return {
        n: boxes for n, boxes in tracks.items() if sum(any(k in boxes for k in run) for run in plan) >= least
    }


def _gap(times: list[float], plan: list[range]) -> float:
    between = max((times[b.start] - times[a.start] for a, b in pairwise(plan)), default=0.0)
    return max(MAX_GAP_S, GAP_BURSTS * between)


def chosen(bench: Bench) -> list[Path]:
    """The clips that are compared, made or of the corpus."""
    if bench.corpus is None:
        made = bench.folder / "faces"
        made.mkdir(exist_ok=True)
        return [
            write_sample(made / f"{faces}.mp4", seconds=4.0, size=size, faces=faces) for faces, size in MADE
        ]
    with bench.corpus.open(newline="", encoding="utf-8") as table:
        files = [bench.corpus.parent / row["file"] for row in csv.DictReader(table)]
    # Evenly over the table, which may be sorted by kind.
    count = min(bench.counts.sparse_clips, len(files))
    return [files[k * len(files) // count] for k in range(count)]
