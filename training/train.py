"""Training of the detector network on pairs of real sequences and their altered copies.

Every step draws from a generator that is seeded by (seed, step), so that a run that was interrupted
and resumed ends with the same weights as one that was not.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.bundle import CLASSES, Calibration
from pipeline.errors import DetectError, MediaError
from training.calibrate import calibrate
from training.checkpoint import load_checkpoint, load_training, save_checkpoint
from training.corpus import ClipRow, folds, kinship, read_corpus
from training.judge import Judge, judge, logits
from training.metrics import F64, auc
from training.model import DetectorNetwork
from training.recipe import Optimiser, Recipe, read_recipe
from training.sequences import Clip, training_batch
from training.windows import detector, samples_of, training_clips

CHECKPOINT, MODEL, LOG = "checkpoint.pt", "model.pt", "metrics.jsonl"


class NoFootage(DetectError):
    """There is no clip to train on."""


def learning_rate(step: int, o: Optimiser) -> float:
    """Linear warm-up, then half a cosine down to a fiftieth (Loshchilov & Hutter, ICLR 2017)."""
    progress = min(1.0, step / o.steps)
    return (
        o.learning_rate
        * min(1.0, (step + 1) / o.warm_up)
        * (0.49 * (1 + math.cos(math.pi * progress)) + 0.02)
    )


def sequence_loss(steps: Tensor, samples: Tensor, labels: Tensor, o: Optimiser) -> Tensor:
    """Cross entropy of whole sequences, of their steps and of their samples on their own.

    steps, samples: logits [B, T, 2] of the LSTM and of the auxiliary classifier; labels: int64 [B].
    The auxiliary loss teaches the trunk directly what a single window shows (Lee et al., 2015).
    """
    each = labels[:, None].expand(steps.shape[:2]).flatten()

    def loss(logits: Tensor, truth: Tensor) -> Tensor:
        return F.cross_entropy(logits, truth, label_smoothing=o.label_smoothing)

    whole = loss(steps.mean(1), labels)
    parts = o.step_loss * loss(steps.flatten(0, 1), each) + o.sample_loss * loss(samples.flatten(0, 1), each)
    return whole + parts


class Averaged:
    """Exponential moving average of a network's state; its horizon grows with the first steps."""

    def __init__(self, network: DetectorNetwork, decay: float) -> None:
        self.decay = decay
        self.state = {k: v.detach().clone() for k, v in network.state_dict().items()}

    def update(self, network: DetectorNetwork, step: int) -> None:
        """Move towards the network's present state; counters are copied."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for k, v in network.state_dict().items():
            if v.dtype.is_floating_point:
                self.state[k].lerp_(v, 1 - decay)
            else:
                self.state[k].copy_(v)


class Learner:
    """Everything that changes while a network learns."""

    def __init__(self, recipe: Recipe) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.step, self.seconds = recipe, 0, 0.0
        self.network = DetectorNetwork(recipe.network)
        self.auxiliary = nn.Sequential(
            nn.Dropout(recipe.network.dropout), nn.Linear(recipe.network.feature_size, len(CLASSES))
        )
        # Twice as fast on a CPU as separate planes, and what its bf16 convolutions are written for.
        self.network.trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        o = recipe.optimiser
        learnt = [*self.network.parameters(), *self.auxiliary.parameters()]
        self.optimiser = torch.optim.AdamW(learnt, o.learning_rate, weight_decay=o.weight_decay)
        self.averaged = Averaged(self.network, o.average)

    def learn(self, samples: Tensor, labels: Tensor) -> float:
        """One step on sequences uint8 [B, T, F, S, S, C] with labels int64 [B]; returns the loss."""
        o = self.recipe.optimiser
        self.network.train()
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, o)
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.step)
        with torch.autocast("cpu", torch.bfloat16, enabled=o.precision == "bf16"):
            features = self.network.features(samples)
        features = features.float()
        loss = sequence_loss(self.network.head.logits(features), self.auxiliary(features), labels, o)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.averaged.update(self.network, self.step)
        self.step += 1
        return loss.item()

    def save(self, path: Path) -> None:
        """A checkpoint whose weights are the averaged ones, with all that `resume` needs."""
        training = {
            "recipe": self.recipe.model_dump(mode="json"),
            "step": self.step,
            "seconds": self.seconds,
            "live": self.network.state_dict(),
            "auxiliary": self.auxiliary.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        save_checkpoint(path, self.recipe.network, self.averaged.state, training)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of the same recipe. Raises CheckpointError."""
        self.averaged.state, training = load_training(path, self.recipe)
        self.network.load_state_dict(training["live"])
        self.auxiliary.load_state_dict(training["auxiliary"])
        self.optimiser.load_state_dict(training["optimiser"])
        self.step, self.seconds = training["step"], training["seconds"]


def fit(clips: list[Clip], recipe: Recipe, out: Path, *, threads: int = 1) -> Path:
    """Train on these clips and return the checkpoint's path; a checkpoint found there is resumed.

    Writes `checkpoint.pt` and a line of metrics now and then to `metrics.jsonl`. Raises NoFootage.
    """
    if not clips:
        raise NoFootage("no real clip of the split `train` has a face that can be used")
    torch.set_num_threads(threads)
    cv2.setNumThreads(1)
    out.mkdir(parents=True, exist_ok=True)
    learner, o = Learner(recipe), recipe.optimiser
    if (out / CHECKPOINT).exists():
        learner.resume(out / CHECKPOINT)
    began = time.monotonic() - learner.seconds
    losses: list[float] = []
    for samples, labels in _batches(clips, recipe, learner.step):
        losses.append(learner.learn(samples, labels))
        if learner.step % o.keep_every == 0 or learner.step == o.steps:
            learner.seconds = time.monotonic() - began
            learner.save(out / CHECKPOINT)
            mean = round(float(np.mean(losses)), 4)
            _log(out / LOG, {"step": learner.step, "loss": mean, "seconds": round(learner.seconds, 1)})
            losses.clear()
    return out / CHECKPOINT


def _batches(clips: list[Clip], recipe: Recipe, start: int) -> Iterator[tuple[Tensor, Tensor]]:
    crop, o = recipe.network.crop, recipe.optimiser
    for step in range(start, o.steps):
        rng = np.random.default_rng([recipe.seed, step])
        samples, labels = training_batch(
            clips, rng, recipe.pairs, batch=o.batch, side=crop.side, frames=crop.frames
        )
        yield torch.from_numpy(samples), torch.from_numpy(labels)


def _log(path: Path, line: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as f:
        f.write(json.dumps(line) + "\n")


def train(recipe: Path, data: Path, out: Path, *, threads: int = 1) -> Path:
    """Train, calibrate out of fold and write `model.pt`, the checkpoint to export. Returns its path.

    data: a corpus with clips.csv. Only its split `train` is read. A run that was interrupted goes on
    where it stopped. Raises RecipeError, CorpusError, NoFootage, NotCalibratable or CheckpointError.
    """
    plan, corpus = read_recipe(recipe), read_corpus(data)
    rows = corpus.split("train")
    clips = training_clips(corpus.root, corpus.teachers(), plan.network.crop, plan.footage, out / "regions")
    fold_of = folds(kinship(rows), plan.operating.folds, plan.seed)
    network, training = load_checkpoint(fit(clips, plan, out, threads=threads))
    judges = []
    for k in range(plan.operating.folds):
        kept = [c for c in clips if fold_of[c.name] != k]
        judges.append(judge(load_checkpoint(fit(kept, plan, out / f"fold-{k}", threads=threads))[0]))
    calibration, scored = _calibrated(corpus.root, rows, plan, lambda row: judges[fold_of[row.file]])
    (out / "out-of-fold.json").write_text(json.dumps(scored, indent=1) + "\n", encoding="utf-8")
    summary = {
        "clips": len(clips),
        "steps": plan.optimiser.steps,
        "minutes": round(training["seconds"] / 60, 1),
        "threads": threads,
        "seed": plan.seed,
        "commands": [
            f"python -m training.train training/recipes/{recipe.name} --data CORPUS --out {out}",
            f"deepfake-detect export {out / MODEL} --out models/NAME",
            "python -m training.evaluate models/NAME --data CORPUS --card",
        ],
    }
    done = {"summary": summary, "calibration": calibration.model_dump(mode="json")}
    save_checkpoint(out / MODEL, plan.network, network.state_dict(), done)
    return out / MODEL


def _calibrated(
    root: Path, rows: list[ClipRow], plan: Recipe, judge_of: Callable[[ClipRow], Judge]
) -> tuple[Calibration, list[dict[str, Any]]]:
    """The calibration, and the out-of-fold score of each clip that has a usable face."""
    faces = detector()
    scored: list[dict[str, Any]] = []
    for row in rows:
        try:
            clip = samples_of(root / row.file, plan.network.crop, plan.network.sampling, faces)
        except MediaError:
            continue
        if (probability := judge_of(row)(clip)) is not None:
            scored.append({"file": row.file, "fake": row.fake, "probability": probability})
    fake = np.array([s["fake"] for s in scored], bool)
    scores = logits(np.array([s["probability"] for s in scored], np.float64))
    return calibrate(
        f"out-of-fold-{plan.seed}", fake, scores, plan.operating, _basis(fake, scores, plan)
    ), scored


def _basis(fake: NDArray[np.bool_], scores: F64, plan: Recipe) -> str:
    o = plan.operating
    return (
        f"Platt scaling, both classes weighing the same, on {len(fake)} clips of the split `train` "
        f"({int((~fake).sum())} real, {int(fake.sum())} by generators, no output of which was trained on). "
        f"Each was scored by a network of the same recipe that was trained without the clips of its origin "
        f"and its person ({o.folds} folds; AUC {auc(fake, scores):.2f}). Thresholds: at most "
        f"{o.false_positives:.0%} of these real clips are called manipulated and at most "
        f"{o.false_negatives:.0%} of these fakes authentic."
    )


def main(arguments: list[str] | None = None) -> None:
    """`python -m training.train RECIPE --data DIR --out DIR`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="corpus with clips.csv")
    parser.add_argument(
        "--out", type=Path, required=True, help="directory of the run; resumed when it exists"
    )
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(arguments)
    sys.stdout.write(f"{train(args.recipe, args.data, args.out, threads=args.threads)}\n")


if __name__ == "__main__":
    main()
