"""Data sets to prepared shards, once: which clips, cut by many processes, packed in a fixed order.

Nothing that is written depends on how fast or in which order clips are done, so a run that was killed and
goes on ends with the same bytes as one that was not.
"""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cells import csv_line
from pipeline.spec import CropSpec, SamplingSpec
from training.cutter import Cut, Outcome, Task, cutter, keep, kept
from training.datasets.record import Dataset, Record
from training.pool import Lost, run_jobs
from training.selection import Selection, SelectionError, Stratum, strata
from training.shards import (
    INDEX,
    SHARD_FRAMES,
    ShardClip,
    layout,
    open_shards,
    shard_entry,
    write_index,
    write_json,
    write_shard,
)
from training.split import KIN, Split, assign
from training.workplace import PLAN, PrepareError, agree, locked, sweep

REPORT, PROBLEMS = "report.json", "report.csv"

PAPER_CROP = CropSpec(kind="aligned", side=112)
PAPER_SAMPLING = SamplingSpec(bursts=150, burst_frames=1, spread="head")
"""The first 150 frames with a face, at the clip's own rate."""

MIN_FRAMES = 15
"""Half a second at 30 frames a second: less shows no motion to learn from."""

Progress = Callable[[int, int], None]
"""Told after each clip: how many of this run are done, and how many there are."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to prepare. timeout_s: wall-clock seconds for one clip, after which its process is killed."""

    crop: CropSpec = PAPER_CROP
    sampling: SamplingSpec = PAPER_SAMPLING
    min_frames: int = MIN_FRAMES
    as_video: bool = False
    workers: int = 1
    timeout_s: float = 300.0
    shard_frames: int = SHARD_FRAMES


def prepare_dataset(
    data: Dataset,
    out: Path,
    selection: Selection,
    options: Options | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Prepare a data set into `out`, or go on where a killed run stopped; returns the report.

    Of each clip the largest face is kept. Clips that are unreadable, without a usable face, or fakes with
    an untouched picture are reported and replaced by the next of their kind where a quota asks for it.
    Raises SelectionError, PoolError, or PrepareError when `out` holds something else or is in use, or when
    no clip is usable: then nothing is left in `out`.
    """
    options = options or Options()
    if options.crop.kind != "aligned" or options.crop.colour != "rgb":
        raise PrepareError("shards hold aligned RGB crops")
    if options.as_video and options.crop.side % 2:
        raise PrepareError(f"films need an even side, not {options.crop.side}")
    split = _split(data, selection)
    plan = strata(data.records, split.split, data.kind, selection)
    cut = Cut(data.root, out, options.crop, options.sampling, options.min_frames, options.as_video)
    with locked(out):
        agree(out, _described(data, plan, selection, options))
        sweep(out)
        if (out / INDEX).exists():
            open_shards(out)
            shutil.rmtree(cut.work, ignore_errors=True)
            report: dict[str, Any] = json.loads((out / REPORT).read_text(encoding="utf-8"))
            return report
        cut.work.mkdir(exist_ok=True)
        tried = _cut_all(data, plan, cut, options, progress or (lambda _done, _total: None))
        outcomes = settled(plan, tried)
        if not any(o.kind == "prepared" for o in outcomes.values()):
            _forget(cut)
            raise PrepareError(f"no clip of {data.kind} can be used: {_reasons(outcomes)}")
        _pin(cut, outcomes)
        clips, shards = _packed(plan, outcomes, cut, options)
        report = _report(data, plan, split, outcomes, clips)
        _write_problems(out / PROBLEMS, data, split, outcomes)
        write_json(out / REPORT, report)
        _drop_films(plan, cut, clips)
        sweep(out)
        facts = {"kind": data.kind, "detector": "yunet"}
        write_index(
            out, crop=options.crop, sampling=options.sampling, shards=shards, clips=clips, facts=facts
        )
        shutil.rmtree(cut.work)
    return report


def _split(data: Dataset, selection: Selection) -> Split:
    """The split of all clips. Raises SelectionError where it leaves training without a class."""
    methods = {r.method for r in data.records if r.fake}
    quota = selection.quota(data.kind)
    for name in [*selection.hold_out, *(quota.methods if quota else ())]:
        if name not in methods:
            raise SelectionError(
                f"no clip of {data.kind} is by {name!r}: there are {', '.join(sorted(methods))}"
            )
    split = assign(
        data.records,
        train=selection.train,
        validation=selection.validation,
        seed=selection.seed,
        official=selection.split == "official",
        hold_out=selection.hold_out,
    )
    for fake, word in ((False, "real"), (True, "fake")):
        lost = [r for r in data.records if r.fake == fake and split.left_out.get(r.file) == KIN]
        if lost and not any(r.fake == fake and split.split.get(r.file) == "train" for r in data.records):
            raise SelectionError(
                f"no {word} clip of {data.kind} is left to train on: all {len(lost)} share a person or a "
                "recording with another split. Draw a split instead: --split seeded"
            )
    return split


def _described(data: Dataset, plan: list[Stratum], selection: Selection, options: Options) -> dict[str, Any]:
    """All that the result depends on but the pixels."""
    clips = json.dumps([asdict(s) for s in plan], sort_keys=True)
    return {
        "kind": data.kind,
        "root": "sha256:" + hashlib.sha256(os.fsencode(data.root.resolve())).hexdigest(),
        "crop": options.crop.model_dump(mode="json"),
        "sampling": options.sampling.model_dump(mode="json"),
        "min_frames": options.min_frames,
        "as_video": options.as_video,
        "shard_frames": options.shard_frames,
        "selection": selection.model_dump(mode="json"),
        "clips": "sha256:" + hashlib.sha256(clips.encode()).hexdigest(),
    }


def _forget(cut: Cut) -> None:
    """Leave the directory as if nothing had been tried; the plan goes last, as it says whose the rest is."""
    shutil.rmtree(cut.work)
    shutil.rmtree(cut.videos_at, ignore_errors=True)
    (cut.out / PLAN).unlink()


def _reasons(outcomes: dict[str, Outcome]) -> str:
    """How often clips came to each end, with an example of each."""
    ends: dict[str, list[Outcome]] = {}
    for _, outcome in sorted(outcomes.items()):
        ends.setdefault(outcome.kind, []).append(outcome)
    words = [
        f"{len(of)} {kind.replace('_', ' ')} ({of[0].file}: {of[0].detail})" for kind, of in ends.items()
    ]
    return ", ".join(words) or "none is wanted"


def _pin(cut: Cut, outcomes: dict[str, Outcome]) -> None:
    """Remember all outcomes: once shards are written, a clip more would shift those after it."""
    for outcome in outcomes.values():
        if outcome.passing:
            keep(cut, outcome)


def _drop_films(plan: list[Stratum], cut: Cut, clips: list[ShardClip]) -> None:
    """Delete the films of clips that were not taken in the end."""
    if cut.videos:
        films = {cut.video(r.file) for stratum in plan for r in stratum.candidates}
        for film in films - {cut.video(c.file) for c in clips}:
            film.unlink(missing_ok=True)


def outstanding(stratum: Stratum, outcomes: dict[str, Outcome]) -> list[Record]:
    """The candidates that have to be tried next: as many as are lacking if all of them are usable.

    In the order of the candidates, so that in the end the first `wanted` usable ones are taken, whatever
    the order in which outcomes come in.
    """
    lacking: list[Record] = []
    usable = 0
    for r in stratum.candidates:
        if usable + len(lacking) >= stratum.wanted:
            break
        if r.file not in outcomes:
            lacking.append(r)
        elif outcomes[r.file].kind == "prepared":
            usable += 1
    return lacking


def settled(plan: list[Stratum], outcomes: dict[str, Outcome]) -> dict[str, Outcome]:
    """The outcomes that count: of each stratum those up to the last clip that is wanted.

    There may be more: a clip that was replaced in a run that was killed may be usable in the next.
    """
    counted: dict[str, Outcome] = {}
    for stratum in plan:
        usable = 0
        for r in stratum.candidates:
            if usable == stratum.wanted:
                break
            counted[r.file] = outcomes[r.file]
            usable += outcomes[r.file].kind == "prepared"
    return counted


def _cut_all(
    data: Dataset, plan: list[Stratum], cut: Cut, options: Options, progress: Progress
) -> dict[str, Outcome]:
    """Cut clips until every stratum is full or has no candidate left.

    What ended for a reason that may pass counts in this run, and is tried again by the next.
    """
    outcomes = kept(cut)
    done = 0
    while todo := [r for stratum in plan for r in outstanding(stratum, outcomes)]:
        tasks = [Task(r.file, r.original, mixed=data.mixed and r.fake) for r in todo]
        total = done + len(tasks)
        progress(done, total)
        jobs = run_jobs(
            tasks,
            partial(cutter, cut),
            workers=min(options.workers, len(tasks)),
            timeout_s=options.timeout_s,
        )
        for task, result in jobs:
            if isinstance(result, Lost):
                outcomes[task.file] = Outcome(task.file, result.why, result.detail, passing=True)
            else:
                outcomes[task.file] = result
            done += 1
            progress(done, total)
    return outcomes


def _packed(
    plan: list[Stratum], outcomes: dict[str, Outcome], cut: Cut, options: Options
) -> tuple[list[ShardClip], list[dict[str, Any]]]:
    """Move the arrays of single clips into shards, in order of the files; clips and shards of the index."""
    tried = [(r, s.split, outcomes[r.file]) for s in plan for r in s.candidates if r.file in outcomes]
    usable = sorted((c for c in tried if c[2].kind == "prepared"), key=lambda c: c[0].file)
    side = options.crop.side
    clips: list[ShardClip] = []
    shards = []
    for number, run in enumerate(layout([o.frames for _, _, o in usable], options.shard_frames)):
        path = cut.out / f"shard-{number:05d}.npy"
        offset = 0
        arrays = []
        for r, split, outcome in usable[run.start : run.stop]:
            clips.append(
                ShardClip(
                    r.file, r.fake, split, r.identity, r.source, r.method, outcome.frames, number, offset
                )
            )
            offset += outcome.frames
            arrays.append(cut.array(r.file))
        if path.exists():
            shards.append(shard_entry(path, offset))
        else:
            shards.append(write_shard(path, [partial(np.load, a) for a in arrays], (offset, side, side, 3)))
        for array in arrays:
            array.unlink(missing_ok=True)
    return clips, shards


def _report(
    data: Dataset, plan: list[Stratum], split: Split, outcomes: dict[str, Outcome], clips: list[ShardClip]
) -> dict[str, Any]:
    def count(stratum: Stratum) -> int:
        return sum(c.split == stratum.split and c.fake == stratum.fake for c in clips)

    return {
        "kind": data.kind,
        "clips": [{"split": s.split, "fake": s.fake, "wanted": s.wanted, "prepared": count(s)} for s in plan],
        "frames": sum(c.frames for c in clips),
        "methods": dict(sorted(Counter(c.method for c in clips if c.fake).items())),
        "outcomes": dict(sorted(Counter(o.kind for o in outcomes.values()).items())),
        "left_out": dict(sorted(Counter(split.left_out.values()).items())),
        "absent": len(data.absent),
    }


def _write_problems(path: Path, data: Dataset, split: Split, outcomes: dict[str, Outcome]) -> None:
    """A row for each clip that is not there, in no split, not usable, or used with a reservation."""
    rows = [(file, "absent", "listed by the data set, but not on disk") for file in data.absent]
    rows += [(file, why, "") for file, why in split.left_out.items()]
    rows += [(o.file, o.kind, o.detail) for o in outcomes.values() if o.kind != "prepared" or o.detail]
    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as f:
        f.writelines(map(csv_line, [("file", "outcome", "detail"), *sorted(rows)]))
    part.replace(path)
