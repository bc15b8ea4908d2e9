"""Distillation: a student network learns to answer as a teacher does (Hinton, Vinyals & Dean, 2015).

The paper's network is too large to learn from little footage what a compact network, or an ensemble
of several, has found there. A teacher's answer says more of a sequence than its label does, and its
features, which the student's have to predict linearly, more still (Romero et al., FitNets, ICLR 2015).

Where the batches come from is the caller's: `batches(step)` yields samples uint8 [B, T, F, S, S, C]
with labels int64 [B] from that step on. A run that was interrupted goes on at its last checkpoint, and
with a budget of steps it ends with the weights of one that was not.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from training.learner import Averaged
from training.loop import Diverged
from training.model import DetectorConfig, DetectorNetwork

CHECKPOINT, LOG = "checkpoint.pt", "metrics.jsonl"

Batch = tuple[Tensor, Tensor]
Batches = Callable[[int], Iterator[Batch]]


class Distillation(BaseModel):
    """How a student is taught. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    student: DetectorConfig
    """What is trained, and what it is fed."""
    seed: int = Field(default=0, ge=0)
    """Of weights and dropout."""
    steps: int = Field(default=0, ge=0)
    """Steps in all; 0: as many as the minutes allow."""
    minutes: float = Field(default=0.0, ge=0)
    """Minutes in all, interruptions left out; 0: as long as the steps take. Whichever ends first."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """The highest one; it falls to a fiftieth by half a cosine of the budget that is spent."""
    warm_up: int = Field(default=100, ge=1)
    """Steps in which the learning rate rises; 1: none."""
    weight_decay: float = Field(default=0.05, ge=0)
    """Of AdamW."""
    largest_gradient: float = Field(default=1.0, gt=0)
    """Norm to which a gradient is shortened."""
    temperature: float = Field(default=2.0, gt=0)
    """By which both networks' logits are divided before they are compared."""
    label_loss: float = Field(default=0.5, ge=0)
    """Weight of the cross entropy with the labels."""
    pooled_loss: float = Field(default=1.0, ge=0)
    """Weight of the divergence from the teacher's answer for a sequence."""
    step_loss: float = Field(default=0.5, ge=0)
    """Weight of the divergence from its answers for the steps."""
    feature_loss: float = Field(default=0.5, ge=0)
    """Weight of the squared error of its features, each scaled to a variance of 1, as predicted by a
    linear layer from the student's."""
    average: float = Field(default=0.99, ge=0, lt=1)
    """Decay of the moving average of the weights (EMA), which is what is kept; 0: the weights themselves."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """Of the trunks' convolutions; all else stays in fp32."""
    keep_every: int = Field(default=100, ge=1)
    """Steps between two checkpoints, each with a line of metrics."""

    @model_validator(mode="after")
    def consistent(self) -> "Distillation":
        """The run ends, and there is something to learn."""
        if not self.steps and not self.minutes:
            raise ValueError("give steps, minutes or both")
        if not any((self.label_loss, self.pooled_loss, self.step_loss, self.feature_loss)):
            raise ValueError("every loss has the weight 0")
        return self


class Answer(NamedTuple):
    """features: float32 [B, T, D]; steps: logits float32 [B, T, 2]."""

    features: Tensor
    steps: Tensor


def answer(network: DetectorNetwork, samples: Tensor, precision: str) -> Answer:
    """What a network says of sequences uint8 [B, T, F, S, S, C]."""
    with torch.autocast(samples.device.type, torch.bfloat16, enabled=precision == "bf16"):
        features = network.features(samples)
    features = features.float()
    return Answer(features, network.head.logits(features))


class Teachers:
    """Networks that teach together: the mean of their logits, their features one behind the other."""

    def __init__(self, networks: Sequence[DetectorNetwork], *, device: str = "cpu") -> None:
        self.networks = [n.eval().to(device).requires_grad_(requires_grad=False) for n in networks]
        self.feature_size = sum(n.config.feature_size for n in networks)
        for network in self.networks:
            network.trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def answer(self, samples: Tensor, precision: str) -> Answer:
        """What they say of sequences uint8 [B, T, F, S, S, C]."""
        answers = [answer(n, samples, precision) for n in self.networks]
        return Answer(
            torch.cat([a.features for a in answers], -1), torch.stack([a.steps for a in answers]).mean(0)
        )

    def digest(self) -> str:
        """Of all their weights."""
        found = hashlib.sha256()
        for network in self.networks:
            for name, value in network.state_dict().items():
                found.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        return found.hexdigest()


class Pupil(nn.Module):
    """The student, and the linear layer that predicts the teacher's features from its own."""

    def __init__(self, plan: Distillation, taught: int) -> None:
        super().__init__()
        self.plan = plan
        self.network = DetectorNetwork(plan.student)
        self.predictor = nn.Linear(plan.student.feature_size, taught)
        self.scale = nn.BatchNorm1d(taught, affine=False)

    def losses(self, samples: Tensor, labels: Tensor, teacher: Answer) -> dict[str, Tensor]:
        """The losses of one batch by name, unweighted."""
        plan, found = self.plan, answer(self.network, samples, self.plan.precision)
        predicted = self.predictor(found.features.flatten(0, 1))
        return {
            "label_loss": F.cross_entropy(found.steps.mean(1), labels),
            "pooled_loss": divergence(found.steps.mean(1), teacher.steps.mean(1), plan.temperature),
            "step_loss": divergence(found.steps.flatten(0, 1), teacher.steps.flatten(0, 1), plan.temperature),
            "feature_loss": F.mse_loss(predicted, self.scale(teacher.features.flatten(0, 1))),
        }

    def weight(self, name: str) -> float:
        """What a loss counts."""
        return float(getattr(self.plan, name))


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of logits [N, 2] at a temperature, times its square, so that the
    gradient does not shrink with it."""
    found, wanted = ((x / temperature).log_softmax(-1) for x in (student, teacher))
    return F.kl_div(found, wanted, reduction="batchmean", log_target=True) * temperature**2


def learning_rate(step: int, spent: float, plan: Distillation) -> float:
    """Linear warm-up, and half a cosine down to a fiftieth. spent: share of the budget, 0 to 1."""
    fall = 0.49 * (1 + math.cos(math.pi * min(1.0, spent))) + 0.02
    return plan.learning_rate * min(1.0, (step + 1) / plan.warm_up) * fall


def distill(
    teachers: Teachers,
    plan: Distillation,
    batches: Batches,
    out: Path,
    *,
    threads: int = 1,
    device: str = "cpu",
    clock: Callable[[], float] = time.monotonic,
) -> Path:
    """Teach a student and return the path of its checkpoint; one that is found in `out` is resumed.

    The checkpoint holds the averaged weights. A run that is resumed may have another budget, which the
    learning rate then follows; one that has spent it ends at once. batches: from a step on; the run also
    ends with them. threads: of torch on a CPU. Writes checkpoint.pt and metrics.jsonl. Raises
    CheckpointError when the checkpoint there is of another plan or other teachers, Diverged when the loss
    is no number.
    """
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    run = _Run(teachers, plan, out, device=device, clock=clock)
    if not run.over():
        for samples, labels in batches(run.step):
            run.learn(samples.to(device), labels.to(device))
            if run.step % plan.keep_every == 0 or run.over():
                run.keep()
            if run.over():
                break
    if run.seen:
        run.keep()
    return out / CHECKPOINT


class _Run:
    """A distillation under way, and how it is kept."""

    def __init__(
        self, teachers: Teachers, plan: Distillation, out: Path, *, device: str, clock: Callable[[], float]
    ) -> None:
        torch.manual_seed(plan.seed)
        self.teachers, self.plan, self.out, self.step = teachers, plan, out, 0
        self.pupil = Pupil(plan, teachers.feature_size).to(device)
        self.network = self.pupil.network
        # Twice as fast on a CPU as separate planes, and what bf16 convolutions are written for.
        self.network.trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # Fused is nine times as fast as the default on a CPU with this many weights.
        self.optimiser = torch.optim.AdamW(
            self.pupil.parameters(), plan.learning_rate, weight_decay=plan.weight_decay, fused=True
        )
        self.averaged = Averaged(self.network, plan.average)
        self.clock, self.seen = clock, list[dict[str, float]]()
        self.began = clock()
        self.samples = 0
        self.made_by = {"plan": plan.model_dump(mode="json"), "teachers": teachers.digest()}
        if (out / CHECKPOINT).exists():
            self._resume()
        self.kept_at = self.clock()

    def spent(self) -> float:
        """Share of the budget that is spent, at most 1."""
        shares = [0.0]
        if self.plan.steps:
            shares.append(self.step / self.plan.steps)
        if self.plan.minutes:
            shares.append((self.clock() - self.began) / 60 / self.plan.minutes)
        return min(1.0, max(shares))

    def over(self) -> bool:
        """Whether the budget is spent."""
        return self.spent() >= 1

    def learn(self, samples: Tensor, labels: Tensor) -> None:
        """One step."""
        plan, pupil = self.plan, self.pupil
        pupil.train()
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, self.spent(), plan)
        torch.manual_seed(plan.seed * 1_000_003 + self.step)
        losses = pupil.losses(samples, labels, self.teachers.answer(samples, plan.precision))
        loss = sum((pupil.weight(name) * value for name, value in losses.items()), torch.tensor(0.0))
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(pupil.parameters(), plan.largest_gradient)
        self.optimiser.step()
        self.averaged.update(self.step)
        self.step += 1
        self.samples += samples.shape[0] * samples.shape[1]
        self.seen.append({"loss": loss.item()} | {name: value.item() for name, value in losses.items()})

    def keep(self) -> None:
        """Save a checkpoint, then a line of the log, and forget the losses."""
        means = {k: sum(s[k] for s in self.seen) / len(self.seen) for k in self.seen[0]}
        if not math.isfinite(means["loss"]):
            raise Diverged(f"the loss is {means['loss']} at step {self.step}: a lower learning rate may help")
        now = self.clock()
        training = {
            "distillation": self.made_by,
            "step": self.step,
            "seconds": now - self.began,
            "pupil": self.pupil.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        save_checkpoint(self.out / CHECKPOINT, self.plan.student, self.averaged.state, training)
        line = {
            "step": self.step,
            **{k: round(v, 4) for k, v in means.items()},
            "learning_rate": self.optimiser.param_groups[0]["lr"],
            "samples_per_second": round(self.samples / max(now - self.kept_at, 1e-9), 1),
            "seconds": round(now - self.began, 1),
        }
        with (self.out / LOG).open("a", encoding="utf-8") as f:
            f.write(json.dumps(line) + "\n")
        self.seen.clear()
        self.samples, self.kept_at = 0, self.clock()

    def _resume(self) -> None:
        path = self.out / CHECKPOINT
        averaged, training = load_checkpoint(path)
        if _apart_from_the_budget(training.get("distillation")) != _apart_from_the_budget(self.made_by):
            raise CheckpointError(f"{path} is of another plan or other teachers; choose another directory")
        self.pupil.load_state_dict(training["pupil"])
        self.optimiser.load_state_dict(training["optimiser"])
        self.averaged.load(averaged.state_dict())
        self.step, self.began = training["step"], self.clock() - training["seconds"]


def _apart_from_the_budget(made_by: dict[str, Any] | None) -> dict[str, Any] | None:
    """What has to be the same for a run to go on: it may be given more time, or less."""
    if made_by is None:
        return None
    plan = {k: v for k, v in made_by["plan"].items() if k not in {"steps", "minutes"}}
    return {**made_by, "plan": plan}
