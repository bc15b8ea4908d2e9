"""Distillation on native windows of real clips and altered copies of them, from a plan file to `model.pt`."""

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.bundle import Calibration
from training.bundle_weights import load_network
from training.calibrate import NotCalibratable
from training.checkpoint import load_checkpoint, save_checkpoint
from training.corpus import Corpus, read_corpus
from training.distill import Batch, Batches, Distillation, Teachers, distill
from training.judge import Judge, judge, logits
from training.loader import NoFootage
from training.metrics import F64
from training.model import DetectorConfig
from training.provenance import measuring, revision, shown, sources
from training.recipe import Footage, Pairs, RecipeError
from training.sequences import Clip, training_batch
from training.windows import prepared_clips, training_clips

MODEL = "model.pt"
LEAST_CLIPS = 10
TAUGHT = (
    "Native windows of {clips} real clips of the training corpus and altered copies of them, both encoded "
    "alike, and what the embedded network answered to them. No generator's output taught it."
)


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

    data: a corpus with clips.csv, of which the split `train` is read. teachers: checkpoints
    or bundles of networks that take the student's samples; the calibration of a single one is carried over
    to the student. Raises RecipeError, CorpusError, NoFootage, CheckpointError, NotCalibratable or Diverged.
    """
    wanted, corpus = read_plan(plan), read_corpus(data)
    student = wanted.distillation.student
    known = [load_network(path) for path in teachers]
    if wrong := [p for p, (n, _) in zip(teachers, known, strict=True) if n.config.crop != student.crop]:
        raise RecipeError(f"{wrong[0]} takes other samples than the student of {plan}")
    if not known:
        raise RecipeError("a student needs a teacher")
    cv2.setNumThreads(1)
    clips = training_clips(corpus.root, corpus.teachers(), student.crop, wanted.footage, out / "regions")
    if not clips:
        raise NoFootage("no real clip of the split `train` has a face that can be used")
    checkpoint = distill(
        Teachers([n for n, _ in known], device=device),
        wanted.distillation,
        pair_batches(clips, wanted),
        out,
        threads=threads,
        device=device,
    )
    network, training = load_checkpoint(checkpoint)
    notes: dict[str, Any] = {}
    if len(known) == 1 and "calibration" in known[0][1]:
        calibration = Calibration.model_validate(known[0][1]["calibration"])
        said = _answers(corpus, student, judge(network.to(device)), judge(known[0][0].to(device)))
        notes["calibration"] = carried(calibration, *said).model_dump(mode="json")
    notes["summary"] = {
        "clips": len(clips),
        "teachers": len(known),
        "steps": training["step"],
        "minutes": round(training["seconds"] / 60, 1),
        "threads": threads,
        "seed": wanted.distillation.seed,
        "recipe": plan.name,
        "commit": revision(),
        "data": TAUGHT.format(clips=len(clips)),
        "sources": sources(corpus, [c.name for c in clips], "real clips"),
        "commands": [*_commands(plan, data, teachers, out), measuring(corpus)],
    }
    save_checkpoint(out / MODEL, network.config, network.state_dict(), notes)
    return out / MODEL


def _answers(corpus: Corpus, student: DetectorConfig, pupil: Judge, teacher: Judge) -> tuple[F64, F64]:
    """Logits of both for the clips of the split `train` that have a usable face."""
    said = []
    for _, clip in prepared_clips(corpus.root, corpus.split("train"), student.crop, student.sampling):
        answers = (pupil(clip), teacher(clip))
        if answers[0] is not None and answers[1] is not None:
            said.append(answers)
    ours, theirs = logits(np.array(said, np.float64).reshape(-1, 2).T)
    return ours, theirs


def carried(calibration: Calibration, ours: F64, theirs: F64) -> Calibration:
    """A teacher's calibration in the student's terms: its scale and bias behind the line that leads from
    the student's logits to the teacher's, [N] each, of the same clips.

    No label is looked at, and the teacher's own calibration was fitted out of fold, so a student that
    has seen the real clips gains nothing by it. Raises NotCalibratable when the two do not agree.
    """
    if len(ours) < LEAST_CLIPS or np.ptp(ours) == 0:
        raise NotCalibratable(f"{len(ours)} clips do not show how the student follows its teacher")
    slope, offset = (float(v) for v in np.polyfit(ours, theirs, 1))
    if not slope > 0:
        raise NotCalibratable(f"the student does not rise with its teacher: slope {slope:.3f}")
    agreement = float(np.corrcoef(ours, theirs)[0, 1])
    return calibration.model_copy(
        update={
            "id": f"{calibration.id}-carried",
            "scale": round(calibration.scale * slope, 4),
            "bias": round(calibration.bias + calibration.scale * offset, 4),
            "data": f"{calibration.data} Carried over from the teacher by a line through the logits of both "
            f"on {len(ours)} clips (correlation {agreement:.2f}); the student itself was not folded.",
        }
    )


def _commands(plan: Path, data: Path, teachers: Sequence[Path], out: Path) -> list[str]:
    named = " ".join(f"--teacher {shown(path)}" for path in teachers)
    return [
        f"deepfake-detect distill {shown(plan)} --data {shown(data)} {named} --out {shown(out)}",
        f"deepfake-detect export {shown(out / MODEL)} --out models/NAME --precision int8",
    ]
