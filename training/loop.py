"""The loop of training: steps, validations, checkpoints, a log and its curves.

A run that was interrupted, however rudely, goes on at its last checkpoint and ends with the weights of
one that was not: every step draws from generators seeded by the recipe's seed and the step's number.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import DetectError
from training.checkpoint import CheckpointError, save_checkpoint
from training.distributed import ALONE, World
from training.learner import Learner, encode, learning_rate, pooled
from training.loader import Exam, Lesson, Teacher, lessons
from training.metrics import auc
from training.model import DetectorNetwork
from training.plots import draw_curves
from training.recipe import Recipe, RecipeError, Stopping
from training.start import begin

CHECKPOINT, BEST, LOG, CURVES = "checkpoint.pt", "best.pt", "metrics.jsonl", "curves.png"

Line = dict[str, Any]
Report = Callable[[int, int, Line | None], None]
"""Told after each step: the steps done, those of the whole run, and the line of metrics, if one was
written."""


class Diverged(DetectError):
    """The loss is no number any more."""


def silent(step: int, steps: int, line: Line | None) -> None:
    """Report to nobody."""


@dataclass(slots=True)
class Watch:
    """What early stopping remembers: the best figure, and the validations since then."""

    best: float = math.inf
    waited: int = 0

    def better(self, figures: dict[str, float], rule: Stopping) -> bool:
        """Take note of a validation; whether it is the best so far. Without an AUC (one class) nothing
        is gained."""
        figure = figures[f"validation_{rule.figure}"]
        value = -figure if rule.figure == "auc" else figure
        gained = value < self.best
        self.best, self.waited = (value, 0) if gained else (self.best, self.waited + 1)
        return gained


def fit(
    teacher: Teacher,
    recipe: Recipe,
    out: Path,
    *,
    exam: Exam | None = None,
    world: World = ALONE,
    workers: int = 0,
    report: Report = silent,
) -> Path:
    """Train and return the path of the checkpoint with the weights that are kept; a checkpoint found in
    `out` is resumed.

    recipe: with its steps counted (`counted`). workers: processes that make lessons ahead; they change
    no result. Writes checkpoint.pt, metrics.jsonl and curves.png, and best.pt when the recipe stops
    early. Raises RecipeError, CheckpointError or Diverged.
    """
    if recipe.stopping is not None and exam is None:
        raise RecipeError("the recipe stops by a validation figure, but there are no validation clips")
    out.mkdir(parents=True, exist_ok=True)
    run = _Run(teacher, recipe, out, exam=exam, world=world, workers=workers)
    pin = world.device.type == "cuda"
    if not run.over():
        o, losses = recipe.optimiser, list[Tensor]()
        for lesson in lessons(teacher, range(run.learner.step, o.steps), workers=workers, pin=pin):
            losses.append(run.learner.learn(lesson))
            line = run.keep(losses) if run.due() else None
            if world.leader:
                report(run.learner.step, o.steps, line)
            if run.over():
                break
    return out / (BEST if recipe.stopping else CHECKPOINT)


class _Run:
    """A training under way, and how it is kept."""

    def __init__(
        self, teacher: Teacher, recipe: Recipe, out: Path, *, exam: Exam | None, world: World, workers: int
    ) -> None:
        self.recipe, self.out, self.exam, self.world, self.workers = recipe, out, exam, world, workers
        self.learner = Learner(recipe, teacher.sequences, world)
        self.watch, self.data = Watch(), teacher.digest
        seconds = 0.0
        if (out / CHECKPOINT).exists():
            notes = self.learner.resume(out / CHECKPOINT)
            if notes["data"] != self.data:
                raise CheckpointError(
                    f"{out / CHECKPOINT} was made from other clips; choose another directory"
                )
            self.watch, seconds = Watch(**notes["watch"]), notes["seconds"]
        elif recipe.start is not None:
            begin(self.learner.network, recipe.start)
            self.learner.averaged.load(self.learner.network.state_dict())
        if world.leader:
            _trim(out / LOG, self.learner.step)
        world.wait()
        self.began = time.monotonic() - seconds

    def due(self) -> bool:
        """Whether a checkpoint is due after this step."""
        step, o = self.learner.step, self.recipe.optimiser
        return step % o.keep_every == 0 or step == o.steps or self._examines()

    def over(self) -> bool:
        """Whether nothing is left to do."""
        rule = self.recipe.stopping
        early = rule is not None and self.watch.waited >= rule.patience
        return early or self.learner.step == self.recipe.optimiser.steps

    def keep(self, losses: list[Tensor]) -> Line:
        """Validate, if it is due, then log and save; forgets the losses. Returns the line of the log."""
        learner, world, o = self.learner, self.world, self.recipe.optimiser
        loss = float(np.mean(world.gather(torch.stack(losses).tolist())))
        losses.clear()
        if not math.isfinite(loss):
            raise Diverged(f"the loss is {loss} at step {learner.step}: a lower learning rate may help")
        world.share(learner.averaged.state)
        line: Line = {"step": learner.step, "loss": round(loss, 4)}
        line["learning_rate"] = learning_rate(learner.step - 1, o)
        if self.exam is not None and self._examines():
            figures = examine(learner.kept(), self.exam, o.precision, world, workers=self.workers)
            line |= {k: round(v, 4) if math.isfinite(v) else None for k, v in figures.items()}
            self._note_best(figures)
        line["seconds"] = round(time.monotonic() - self.began, 1)
        if world.leader:
            with (self.out / LOG).open("a", encoding="utf-8") as f:
                f.write(json.dumps(line) + "\n")
            notes = {"seconds": line["seconds"], "watch": asdict(self.watch), "data": self.data}
            learner.save(self.out / CHECKPOINT, notes)
            if "validation_loss" in line or learner.step == o.steps:
                draw_curves(self.out / LOG, self.out / CURVES)
        world.wait()
        return line

    def _note_best(self, figures: dict[str, float]) -> None:
        rule = self.recipe.stopping
        if rule is not None and self.watch.better(figures, rule) and self.world.leader:
            spent = {"step": self.learner.step, "seconds": time.monotonic() - self.began}
            best = self.learner.averaged.state
            save_checkpoint(self.out / BEST, self.recipe.network, best, {**spent, **figures})

    def _examines(self) -> bool:
        step, o = self.learner.step, self.recipe.optimiser
        return self.exam is not None and (step % o.validate_every == 0 or step == o.steps)


def counted(recipe: Recipe, clips: int) -> Recipe:
    """The recipe with epochs of so many clips counted in steps. Without epochs validation comes with every
    checkpoint unless the recipe says otherwise."""
    o = recipe.optimiser
    epoch = math.ceil(clips / o.batch)
    steps = {"epochs": 0, "steps": math.ceil(o.epochs * clips / o.batch)} if o.epochs else {}
    every = o.validate_every or (epoch if o.epochs else o.keep_every)
    return recipe.model_copy(update={"optimiser": o.model_copy(update={**steps, "validate_every": every})})


@torch.no_grad()
def examine(
    network: DetectorNetwork, exam: Exam, precision: str, world: World = ALONE, *, workers: int = 0
) -> dict[str, float]:
    """Cross entropy, accuracy at 0.5 and AUC of whole sequences; NaN for an AUC with one class alone."""
    rows: list[tuple[int, float]] = []
    for lesson in lessons(exam, exam.mine, workers=workers):
        here = Lesson(*(t.to(world.device) for t in lesson))
        logits = pooled(network.head.logits(encode(network, here, precision)), here.lengths)
        rows += zip(lesson.labels.tolist(), (logits[:, 1] - logits[:, 0]).tolist(), strict=True)
    rows = world.gather(rows)
    return _figures(np.array([r[0] for r in rows], bool), np.array([r[1] for r in rows], np.float64))


def _figures(fake: NDArray[np.bool_], scores: NDArray[np.float64]) -> dict[str, float]:
    loss = F.binary_cross_entropy_with_logits(torch.from_numpy(scores), torch.from_numpy(fake).double())
    return {
        "validation_loss": loss.item(),
        "validation_accuracy": float(((scores >= 0) == fake).mean()),
        "validation_auc": auc(fake, scores),
    }


def _trim(log: Path, step: int) -> None:
    """Leave the lines up to a step: those after it come again."""
    if log.exists():
        lines = [line for line in log.read_text(encoding="utf-8").splitlines() if _step(line) <= step]
        part = log.with_name(log.name + ".part")
        part.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        part.replace(log)


def _step(line: str) -> float:
    """The step of a line of the log; infinite for one that broke off."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return math.inf
