"""Distillation on native windows of real clips and altered copies of them, from a plan file to `model.pt`."""

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.checkpoint import load_checkpoint, save_checkpoint
from training.corpus import read_corpus
from training.distill import Batch, Batches, Distillation, Teachers, distill
from training.loader import NoFootage
from training.recipe import Footage, Pairs, RecipeError
from training.sequences import Clip, training_batch
from training.windows import training_clips

MODEL = "model.pt"


class Plan(BaseModel):
    """A distillation, whole. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    distillation: Distillation
    """How the student is taught."""
    batch: int = Field(default=8, ge=1)
    """Pairs of a real sequence and its altered copy in a step."""
    footage: Footage = Footage()
    """What is cut from each real clip."""
    pairs: Pairs = Pairs()
    """How its altered copy is made."""

    @model_validator(mode="after")
    def consistent(self) -> "Plan":
        """Pairs are made of native windows."""
        crop = self.distillation.student.crop
        if crop.kind != "native" or crop.colour != "yuv":
            raise ValueError("pairs teach networks of native yuv windows")
        return self


def read_plan(path: Path) -> Plan:
    """The plan at a path. Raises RecipeError with every key that is unknown, missing or out of range."""
    try:
        return Plan.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as e:
        raise RecipeError(f"{path} can not be read: {e}") from e
    except (tomllib.TOMLDecodeError, ValidationError) as e:
        raise RecipeError(f"{path} is not a plan of a distillation: {e}") from e


def pair_batches(clips: list[Clip], plan: Plan) -> Batches:
    """Pairs of these clips, a pure function of the plan's seed and the step."""
    crop, seed = plan.distillation.student.crop, plan.distillation.seed

    def batches(start: int) -> Iterator[Batch]:
        step = start
        while True:
            samples, labels = training_batch(
                clips,
                np.random.default_rng([seed, step]),
                plan.pairs,
                batch=plan.batch,
                side=crop.side,
                frames=crop.frames,
            )
            yield torch.from_numpy(samples), torch.from_numpy(labels)
            step += 1

    return batches


def distill_pairs(
    plan: Path, data: Path, teachers: Sequence[Path], out: Path, *, threads: int = 1, device: str = "cpu"
) -> Path:
    """Teach a student as a plan says and write `model.pt`, the checkpoint to export. Returns its path.

    data: a corpus with clips.csv, of which the split `train` is read. teachers: checkpoints of
    networks that take the student's samples. Raises RecipeError, CorpusError, NoFootage,
    CheckpointError or Diverged.
    """
    wanted, corpus = read_plan(plan), read_corpus(data)
    student = wanted.distillation.student
    networks = [load_checkpoint(path)[0] for path in teachers]
    if wrong := [p for p, n in zip(teachers, networks, strict=True) if n.config.crop != student.crop]:
        raise RecipeError(f"{wrong[0]} takes other samples than the student of {plan}")
    if not networks:
        raise RecipeError("a student needs a teacher")
    cv2.setNumThreads(1)
    clips = training_clips(corpus.root, corpus.teachers(), student.crop, wanted.footage, out / "regions")
    if not clips:
        raise NoFootage("no real clip of the split `train` has a face that can be used")
    batches = pair_batches(clips, wanted)
    checkpoint = distill(
        Teachers(networks, device=device), wanted.distillation, batches, out, threads=threads, device=device
    )
    network, training = load_checkpoint(checkpoint)
    named = " ".join(f"--teacher {path}" for path in teachers)
    summary = {
        "clips": len(clips),
        "teachers": len(networks),
        "steps": training["step"],
        "minutes": round(training["seconds"] / 60, 1),
        "threads": threads,
        "seed": wanted.distillation.seed,
        "commands": [
            f"deepfake-detect distill {plan} --data {data} {named} --out {out}",
            f"deepfake-detect export {out / MODEL} --out models/NAME",
        ],
    }
    save_checkpoint(out / MODEL, network.config, network.state_dict(), {"summary": summary})
    return out / MODEL
