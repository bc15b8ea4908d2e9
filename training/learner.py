"""Everything that changes while a network learns, and one step of it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.rnn import pad_sequence

from pipeline.bundle import CLASSES
from training.checkpoint import load_training, save_checkpoint
from training.distributed import ALONE, World
from training.loader import Lesson
from training.model import DetectorNetwork
from training.recipe import Optimiser, Recipe

State = dict[str, Tensor]


def learning_rate(step: int, o: Optimiser) -> float:
    """Linear warm-up, then constant or half a cosine down to a fiftieth (Loshchilov & Hutter, ICLR 2017)."""
    fall = 1.0
    if o.schedule == "cosine":
        fall = 0.49 * (1 + math.cos(math.pi * min(1.0, step / o.steps))) + 0.02
    return o.learning_rate * min(1.0, (step + 1) / o.warm_up) * fall


def encode(network: DetectorNetwork, lesson: Lesson, precision: str) -> Tensor:
    """Features float32 [B, T, D] of a lesson's sequences, zeros past the end of each."""
    device = lesson.samples.device.type
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
        features = network.trunk(lesson.samples)
    return pad_sequence(features.float().split(lesson.lengths.tolist()), batch_first=True)


def pooled(values: Tensor, lengths: Tensor) -> Tensor:
    """Means over the valid steps: [B, T, ...] and lengths [B] to [B, ...]."""
    valid = torch.arange(values.shape[1], device=values.device) < lengths[:, None]
    valid = valid.view(*valid.shape, *[1] * (values.dim() - 2))
    return torch.where(valid, values, 0).sum(1) / lengths.view(-1, *[1] * (values.dim() - 2))


class Pupil(nn.Module):
    """A network with the loss as its forward pass, which is what DistributedDataParallel wraps.

    The auxiliary classifier right behind the trunk teaches it directly what a single frame or window
    shows (deep supervision: Lee et al., AISTATS 2015). It is no part of the network that is kept.
    """

    def __init__(self, network: DetectorNetwork, o: Optimiser) -> None:
        super().__init__()
        self.network, self.o = network, o
        size, dropout = network.config.feature_size, network.config.dropout
        self.auxiliary = (
            nn.Sequential(nn.Dropout(dropout), nn.Linear(size, len(CLASSES))) if o.sample_loss else None
        )
        if o.freeze_trunk:
            network.trunk.requires_grad_(requires_grad=False)
        if o.freeze_norms:
            for norm in self.norms():
                norm.requires_grad_(requires_grad=False)

    def norms(self) -> list[nn.Module]:
        """The layers of batch normalisation."""
        return [m for m in self.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]

    def train(self, mode: bool = True) -> "Pupil":
        """Training mode for all but what is frozen."""
        super().train(mode)
        if self.o.freeze_trunk:
            self.network.trunk.eval()
        if self.o.freeze_norms:
            for norm in self.norms():
                norm.eval()
        return self

    def forward(self, samples: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
        """Mean over the sequences of a lesson of the cross entropy of the whole sequence and, where the
        recipe wants them, of its steps and its samples on their own."""
        lesson, o = Lesson(samples, lengths, labels), self.o
        features = encode(self.network, lesson, o.precision)
        steps = self.network.head.logits(features)
        loss = _cross_entropy(pooled(steps, lengths), labels, o)
        if o.step_loss:
            loss = loss + o.step_loss * _each(steps, lesson, o)
        if self.auxiliary is not None:
            loss = loss + o.sample_loss * _each(self.auxiliary(features), lesson, o)
        return loss.mean()


def _each(logits: Tensor, lesson: Lesson, o: Optimiser) -> Tensor:
    """Cross entropy [B] of each step [B, T, 2] on its own, averaged over each sequence."""
    labels = lesson.labels[:, None].expand(logits.shape[:2])
    losses = _cross_entropy(logits.flatten(0, 1), labels.flatten(), o).view(labels.shape)
    return pooled(losses, lesson.lengths)


def _cross_entropy(logits: Tensor, labels: Tensor, o: Optimiser) -> Tensor:
    return F.cross_entropy(logits, labels, label_smoothing=o.label_smoothing, reduction="none")


class Averaged:
    """Exponential moving average of a network's state; its horizon grows with the first steps.

    With a decay of 0 it is the network's own state.
    """

    def __init__(self, network: DetectorNetwork, decay: float) -> None:
        self._network, self.decay = network, decay
        self.state: State = network.state_dict()
        if decay:
            self.state = {k: v.detach().clone() for k, v in self.state.items()}

    def update(self, step: int) -> None:
        """Move towards the network's present state; counters are copied."""
        if not self.decay:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        for k, v in self._network.state_dict().items():
            if v.dtype.is_floating_point:
                self.state[k].lerp_(v, 1 - decay)
            else:
                self.state[k].copy_(v)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state that was kept."""
        for k, v in state.items():
            self.state[k].copy_(v)


class Learner:
    """Network, optimiser and average of one training, in one of its processes.

    recipe: with its steps counted. sequences: in a step over all processes, each of which may hold
    another number of them.
    """

    def __init__(self, recipe: Recipe, sequences: int, world: World = ALONE) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.world, self.step = recipe, world, 0
        self._sequences = sequences
        self.network = DetectorNetwork(recipe.network)
        o = recipe.optimiser
        self.pupil = Pupil(self.network, o)
        if world.size > 1 and world.device.type == "cuda":
            # On CPUs torch has no such layer: each process normalises by its own share.
            nn.SyncBatchNorm.convert_sync_batchnorm(self.network.trunk)  # type: ignore[no-untyped-call]
        self.pupil.to(world.device)
        # Twice as fast on a CPU as separate planes, and what bf16 convolutions are written for.
        self.network.trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._step: nn.Module = self.pupil
        if world.size > 1:
            self._step = DistributedDataParallel(self.pupil)
        self.optimiser = _optimiser(self.pupil, o)
        self.averaged = Averaged(self.network, o.average)

    def learn(self, lesson: Lesson) -> Tensor:
        """One step on this process's share of a lesson; returns its part of the mean loss, detached."""
        self.pupil.train()
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, self.recipe.optimiser)
        torch.manual_seed((self.recipe.seed * 1_000_003 + self.step) * self.world.size + self.world.rank)
        lesson = Lesson(*(t.to(self.world.device, non_blocking=True) for t in lesson))
        # The processes' gradients are averaged, so each weighs by the sequences that it holds.
        weight = len(lesson.labels) * self.world.size / self._sequences
        loss: Tensor = self._step(*lesson) * weight
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.averaged.update(self.step)
        self.step += 1
        return loss.detach()

    def kept(self) -> DetectorNetwork:
        """The network with the weights that are kept, the averaged ones, ready to infer."""
        network = DetectorNetwork(self.recipe.network).to(self.world.device)
        network.load_state_dict(self.averaged.state)
        return network.eval()

    def save(self, path: Path, notes: dict[str, Any]) -> None:
        """A checkpoint whose weights are the averaged ones, with all that `resume` needs, and notes."""
        training = {
            **notes,
            "recipe": self.recipe.model_dump(mode="json"),
            "step": self.step,
            "live": self.network.state_dict(),
            "auxiliary": self.pupil.auxiliary.state_dict() if self.pupil.auxiliary else {},
            "optimiser": self.optimiser.state_dict(),
        }
        save_checkpoint(path, self.recipe.network, self.averaged.state, training)

    def resume(self, path: Path) -> dict[str, Any]:
        """Go on from a checkpoint of the same recipe; returns what was noted. Raises CheckpointError."""
        averaged, training = load_training(path, self.recipe)
        self.network.load_state_dict(training.pop("live"))
        self.averaged.load(averaged)
        if self.pupil.auxiliary:
            self.pupil.auxiliary.load_state_dict(training.pop("auxiliary"))
        self.optimiser.load_state_dict(training.pop("optimiser"))
        self.step = training.pop("step")
        return training


def _optimiser(pupil: Pupil, o: Optimiser) -> torch.optim.Optimizer:
    """Adam adds the decay to the gradient (Kingma & Ba, ICLR 2015, with L2), AdamW takes it off the
    weights (Loshchilov & Hutter, ICLR 2019)."""
    learnt = [p for p in pupil.parameters() if p.requires_grad]
    make = torch.optim.Adam if o.method == "adam" else torch.optim.AdamW
    return make(learnt, lr=o.learning_rate, weight_decay=o.weight_decay)
