"""From a recipe and data to `model.pt`, the checkpoint to export."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.bundle import Calibration
from pipeline.runtime import usable_cores
from training.calibrate import calibrate
from training.checkpoint import load_checkpoint, save_checkpoint
from training.corpus import ClipRow, folds, kinship, read_corpus
from training.distributed import World, open_world
from training.judge import Judge, judge, logits
from training.loader import ClipTeacher, NoFootage, PairTeacher, Prepared, clip_exam, pair_exam
from training.loop import CHECKPOINT, Line, Report, counted, fit
from training.metrics import F64, auc
from training.model import combine
from training.provenance import measuring, revision, shown, sources
from training.recipe import Operating, Pairs, Recipe, RecipeError, read_recipe
from training.sequences import Clip
from training.shards import open_shards
from training.windows import prepared_clips, training_clips

MODEL = "model.pt"
PAIRS_DATA = (
    "Native windows of {clips} real clips of the training corpus, against altered copies of themselves, both "
    "encoded alike. No generator's output taught it."
)
SEED_STEP = 1000
MEASURING = "deepfake-detect evaluate models/NAME --clips CLIPS.csv --card"
"""What clips a network of prepared shards is measured on, its user knows."""

Tell = Callable[[str, int, int, Line | None], None]
"""Told of progress: what is done, the steps done, those in all, and a line of metrics, if any."""


def untold(what: str, step: int, steps: int, line: Line | None) -> None:
    """Progress of which nobody is told."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a training is carried out: its directory, its processes, and who is told."""

    out: Path
    world: World
    workers: int
    tell: Tell

    def report(self, what: str) -> Report:
        """A report to `tell` under a name."""
        return partial(self.tell, what)


def train(
    recipe: Path,
    data: Sequence[Path],
    out: Path,
    *,
    start: Path | None = None,
    device: str = "auto",
    threads: int = 0,
    workers: int | None = None,
    tell: Tell = untold,
) -> Path:
    """Train as a recipe says and write `model.pt`, the checkpoint to export. Returns its path.

    data: prepared shards, or one corpus with clips.csv, as the recipe wants. start: weights to start
    from, instead of those that the recipe names. device: auto, cpu or cuda. threads: of torch on a
    CPU, 0 for all that are usable; another number rounds differently. workers: processes that make
    lessons ahead; with a GPU as many as are useful unless given, else none. A run that was interrupted
    goes on where it stopped. Raises RecipeError, ShardsError, CorpusError, NoFootage, CheckpointError,
    DeviceError, Diverged, NotCalibratable or PoolError.
    """
    plan = read_recipe(recipe, start=start)
    threads = threads or usable_cores()
    torch.set_num_threads(threads)
    cv2.setNumThreads(1)
    out.mkdir(parents=True, exist_ok=True)
    with open_world(device) as world:
        if workers is None:
            workers = min(8, usable_cores() - 1) if world.device.type == "cuda" else 0
        site = Site(out, world, workers, tell)
        done = _on_clips(plan, data, site) if plan.clips is not None else _on_pairs(plan, data, site)
        summary = done["summary"] | {
            "threads": threads,
            "processes": world.size,
            "device": world.device.type,
            "seed": plan.seed,
            "start": plan.start.format if plan.start else None,
            "recipe": recipe.name,
            "commit": revision(),
            "commands": [*_commands(recipe, data, out, start), done["measuring"]],
        }
        if world.leader:
            network, _ = load_checkpoint(done["checkpoint"])
            notes = done["notes"] | {"summary": summary}
            save_checkpoint(out / MODEL, network.config, network.state_dict(), notes)
        world.wait()
    return out / MODEL


def prepared(roots: Iterable[Path], plan: Recipe) -> dict[str, list[Prepared]]:
    """The clips of prepared shards by split. Raises ShardsError, or RecipeError when they were cut
    otherwise than the recipe's network wants them."""
    by_split: dict[str, list[Prepared]] = {"train": [], "validation": [], "test": []}
    for root in roots:
        shards = open_shards(root)
        if shards.crop != plan.network.crop:
            raise RecipeError(
                f"{root} holds crops of another kind: {shards.crop!r}; the recipe's network takes "
                f"{plan.network.crop!r}"
            )
        for clip in shards.clips:
            by_split.setdefault(clip.split, []).append(Prepared(shards, clip))
    if not by_split["train"]:
        found = ", ".join(f"{len(c)} {s or 'without a split'}" for s, c in by_split.items() if c)
        raise NoFootage(f"no clip of the split `train` was prepared, only: {found or 'nothing'}")
    return by_split


def _on_clips(plan: Recipe, data: Sequence[Path], site: Site) -> dict[str, Any]:
    held = prepared(data, plan)
    teaching, validating = held["train"], held["validation"]
    counting = counted(plan, len(teaching))
    checkpoint = fit(
        ClipTeacher(teaching, counting, site.world),
        counting,
        site.out,
        exam=clip_exam(validating, counting, site.world) if validating else None,
        world=site.world,
        workers=site.workers,
        report=site.report("training"),
    )
    fakes = sum(c.clip.fake for c in teaching)
    real = len(teaching) - fakes
    summary = {"clips": len(teaching), "real": real, "fake": fakes, **_spent(checkpoint)}
    summary["data"] = (
        f"{real} real and {fakes} fake clips of people, as face crops, of {', '.join(d.name for d in data)}."
    )
    if plan.clips and plan.clips.pseudofakes:
        summary["data"] += (
            f" Of each batch {plan.clips.pseudofakes:.0%} were real clips and fakes forged from them."
        )
    return {"checkpoint": checkpoint, "summary": summary, "notes": {}, "measuring": MEASURING}


def _on_pairs(plan: Recipe, data: Sequence[Path], site: Site) -> dict[str, Any]:
    if len(data) != 1:
        raise RecipeError("pairs are made from one corpus: give --data once")
    corpus = read_corpus(data[0])
    rows = corpus.split("train")
    with site.world.leader_first():
        clips = training_clips(
            corpus.root,
            corpus.teachers(),
            plan.network.crop,
            plan.footage,
            site.out / "regions",
            workers=site.workers,
        )
    checkpoint = _fit_pairs(plan, clips, rows, site, "training")
    notes: dict[str, Any] = {}
    if plan.operating is not None:
        fold_of = folds(kinship(rows), plan.operating.folds, plan.seed)
        judges = []
        for k in range(plan.operating.folds):
            kept = [c for c in clips if fold_of[c.name] != k]
            fold = _fit_pairs(plan, kept, rows, replace(site, out=site.out / f"fold-{k}"), f"fold {k}")
            judges.append(judge(load_checkpoint(fold)[0].to(site.world.device)))
        with site.world.leader_first():
            scored = _scores(
                corpus.root, rows, plan, lambda row: judges[fold_of[row.file]], workers=site.workers
            )
            calibration = _calibrated(scored, plan, plan.operating)
            (site.out / "out-of-fold.json").write_text(json.dumps(scored, indent=1) + "\n", encoding="utf-8")
        notes["calibration"] = calibration.model_dump(mode="json")
    summary = {
        "clips": len(clips),
        **_spent(checkpoint),
        "data": PAIRS_DATA.format(clips=len(clips)),
        "sources": sources(corpus, [c.name for c in clips], "real clips"),
    }
    told = {"summary": summary, "notes": notes, "measuring": measuring(corpus)}
    return {"checkpoint": checkpoint, **told}


def _fit_pairs(plan: Recipe, clips: list[Clip], rows: list[ClipRow], site: Site, what: str) -> Path:
    """Train the network's members one by one, each from a seed of its own, and put them side by side."""
    if plan.network.members == 1:
        return _fit_member(plan, clips, rows, site, what)
    networks, steps, seconds = [], 0, 0.0
    for k in range(plan.network.members):
        there = replace(site, out=site.out / f"member-{k}")
        network, spent = load_checkpoint(
            _fit_member(alone(plan, k), clips, rows, there, f"{what}, member {k}")
        )
        networks.append(network)
        steps, seconds = steps + spent["step"], seconds + spent["seconds"]
    whole = combine(networks)
    if site.world.leader:
        notes = {"step": steps, "seconds": seconds}
        save_checkpoint(site.out / CHECKPOINT, whole.config, whole.state_dict(), notes)
    site.world.wait()
    return site.out / CHECKPOINT


def alone(plan: Recipe, member: int) -> Recipe:
    """The recipe of one member of a recipe's network: its part of the features and states, its own seed."""
    network, k = plan.network, plan.network.members
    part = {"members": 1, "feature_size": network.feature_size // k, "hidden": network.hidden // k}
    return plan.model_copy(
        update={"network": network.model_copy(update=part), "seed": plan.seed + SEED_STEP * member}
    )


def _fit_member(plan: Recipe, clips: list[Clip], rows: list[ClipRow], site: Site, what: str) -> Path:
    """Train on pairs of these clips, but for those that the recipe holds out to validate on."""
    counting, pairs = counted(plan, 0), plan.pairs or Pairs()
    held: set[str] = set()
    if pairs.validation:
        parts = folds(kinship(rows), max(2, round(1 / pairs.validation)), plan.seed + 1)
        held = {name for name, part in parts.items() if part == 0}
    validating = [c for c in clips if c.name in held]
    return fit(
        PairTeacher([c for c in clips if c.name not in held], counting, site.world),
        counting,
        site.out,
        exam=pair_exam(validating, counting, site.world) if validating else None,
        world=site.world,
        workers=site.workers,
        report=site.report(what),
    )


def _spent(checkpoint: Path) -> dict[str, Any]:
    """Steps and minutes up to a checkpoint."""
    _, training = load_checkpoint(checkpoint)
    return {"steps": training["step"], "minutes": round(training["seconds"] / 60, 1)}


def _commands(recipe: Path, data: Sequence[Path], out: Path, start: Path | None) -> list[str]:
    given = "".join(f" --data {shown(d)}" for d in data) + (f" --start {shown(start)}" if start else "")
    return [
        f"deepfake-detect train {shown(recipe)}{given} --out {shown(out)}",
        f"deepfake-detect export {shown(out / MODEL)} --out models/NAME",
    ]


def _scores(
    root: Path, rows: list[ClipRow], plan: Recipe, judge_of: Callable[[ClipRow], Judge], *, workers: int
) -> list[dict[str, Any]]:
    """The score of each clip that has a usable face, in the order of the rows."""
    clips = prepared_clips(root, rows, plan.network.crop, plan.network.sampling, workers=workers)
    said = {row.file: judge_of(row)(clip) for row, clip in clips}
    return [
        {"file": row.file, "fake": row.fake, "probability": probability}
        for row in rows
        if (probability := said.get(row.file)) is not None
    ]


def _calibrated(scored: list[dict[str, Any]], plan: Recipe, operating: Operating) -> Calibration:
    """The calibration by out-of-fold scores."""
    fake = np.array([s["fake"] for s in scored], bool)
    scores = logits(np.array([s["probability"] for s in scored], np.float64))
    return calibrate(f"out-of-fold-{plan.seed}", fake, scores, operating, _basis(fake, scores, operating))


def _basis(fake: NDArray[np.bool_], scores: F64, o: Operating) -> str:
    return (
        f"Platt scaling, both classes weighing the same, on {len(fake)} clips of the split `train` "
        f"({int((~fake).sum())} real, {int(fake.sum())} by generators, no output of which was trained on). "
        f"Each was scored by a network of the same recipe that was trained without the clips of its origin "
        f"and its person ({o.folds} folds; AUC {auc(fake, scores):.2f}). Thresholds: at most "
        f"{o.false_positives:.0%} of these real clips are called manipulated and at most "
        f"{o.false_negatives:.0%} of these fakes authentic."
    )
