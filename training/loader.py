"""Lessons: what a step of training learns from, a pure function of the step's number.

So a run that was interrupted goes on with the very lessons that it would have had, and it changes
nothing how many processes make them or how far they work ahead.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.errors import DetectError
from pipeline.frames import U8
from pipeline.sample import plan_bursts
from pipeline.spec import SamplingSpec
from training import pseudofakes
from training.augment import augment
from training.checkpoint import CheckpointError
from training.distributed import ALONE, World
from training.pseudofakes.photographs import filmed
from training.recipe import Clips, Recipe, RecipeError, pairs_in
from training.reconstruct import PATCH, Autoencoder, autoencoders_digest, load_autoencoders
from training.sequences import Clip, training_batch
from training.shards import ShardClip, Shards, open_shards

FRAME_RATE = 30
"""Of prepared clips, as in the paper."""

_UNIT, _ALL, _REAL, _FAKE, _SOURCES = range(1, 6)
"""What a generator is seeded for, beside the recipe's seed."""


class NoFootage(DetectError):
    """There is no clip to train on."""


class Lesson(NamedTuple):
    """samples: uint8 [N, F, S, S, C], those of all sequences one after the other; lengths: int64 [B], how
    many each sequence has; labels: int64 [B], 0 real, 1 fake."""

    samples: Tensor
    lengths: Tensor
    labels: Tensor


class Teacher(Protocol):
    """Where lessons come from. sequences: in a step, over all processes; digest: of what it teaches."""

    sequences: int
    digest: str

    def lesson(self, step: int) -> Lesson:
        """This process's share of a step's lesson."""
        ...


class PairTeacher:
    """Windows of real clips and of their altered copies. Raises NoFootage without any clip."""

    def __init__(self, clips: list[Clip], recipe: Recipe, world: World = ALONE) -> None:
        if recipe.pairs is None:
            raise ValueError("the recipe has no pairs")
        if not clips:
            raise NoFootage("no real clip of the split `train` has a face that can be used")
        self._clips, self._recipe, self._pairs, self._world = clips, recipe, recipe.pairs, world
        self.sequences = 2 * recipe.optimiser.batch
        _check_shares(recipe.optimiser.batch, world)
        self.digest = _digest(f"{c.name} {c.group} {c.luma.shape}" for c in clips)

    def lesson(self, step: int) -> Lesson:
        """Real sequences and their copies by turns."""
        crop, seed, rank = self._recipe.network.crop, self._recipe.seed, self._world.rank
        batch = len(range(rank, self._recipe.optimiser.batch, self._world.size))
        rng = np.random.default_rng([seed, step, rank])
        samples, labels = training_batch(
            self._clips, rng, self._pairs, batch=batch, side=crop.side, frames=crop.frames
        )
        lengths = torch.full((len(samples),), samples.shape[1])
        return Lesson(torch.from_numpy(samples).flatten(0, 1), lengths, torch.from_numpy(labels))


class ClipTeacher:
    """Prepared clips from shards, and fakes made of the real ones.

    clips: each with the shards that hold it. Raises NoFootage, RecipeError when fakes are asked for that
    can not be made of them, and CheckpointError for autoencoders that can not be read.
    """

    def __init__(self, clips: "Sequence[Prepared]", recipe: Recipe, world: World = ALONE) -> None:
        if recipe.clips is None:
            raise ValueError("the recipe has no clips")
        self._clips, self._seed, self._sampling = clips, recipe.seed, recipe.network.sampling
        self._plan: Clips = recipe.clips
        self._world = world
        self._real = [i for i, c in enumerate(clips) if not c.clip.fake]
        self._fake = [i for i, c in enumerate(clips) if c.clip.fake]
        self.sequences = recipe.optimiser.batch
        self._pairs = pairs_in(self._plan, self.sequences)
        _check_classes(self._real, self._fake, only_pairs=2 * self._pairs == self.sequences)
        _check_shares(self.sequences - self._pairs, world)
        # Only their digest goes to the processes that make lessons; each reads the networks for itself.
        folder = self._plan.autoencoders if self._pairs else None
        self._redrawing = None if folder is None else (folder, autoencoders_digest(folder))
        self._people = [frozenset(c.clip.identity.split("+")) for c in clips]
        _check_fakes(recipe, {self._people[i] for i in self._real}, self._redrawers())
        lines = [f"{c.clip.file} {c.clip.fake} {c.clip.frames}" for c in clips]
        self.digest = _digest(lines if self._redrawing is None else [*lines, self._redrawing[1]])

    def lesson(self, step: int) -> Lesson:
        """This process's part of the pairs and of the labelled clips of a step."""
        units = [(i, True) for i in self._draw(_SOURCES, self._real, step, self._pairs)]
        units += [(i, False) for i in self._labelled(step)]
        made: list[tuple[U8, bool]] = []
        for k in range(self._world.rank, len(units), self._world.size):
            i, as_pair = units[k]
            rng = np.random.default_rng([self._seed, _UNIT, step, k])
            made += self._pair(i, rng) if as_pair else [self._alone(i, rng)]
        return _lesson([(_sampled(frames, self._sampling), fake) for frames, fake in made])

    def _labelled(self, step: int) -> list[int]:
        count = self.sequences - 2 * self._pairs
        if not self._plan.balance:
            return self._draw(_ALL, range(len(self._clips)), step, count)
        # With an odd count the classes take turns at the sequence that is over.
        before, after = (step * count + 1) // 2, ((step + 1) * count + 1) // 2
        real = _drawn(self._seed, _REAL, len(self._real), before, after)
        fake = _drawn(self._seed, _FAKE, len(self._fake), step * count - before, (step + 1) * count - after)
        return [self._real[i] for i in real] + [self._fake[i] for i in fake]

    def _draw(self, what: int, of: Sequence[int], step: int, count: int) -> list[int]:
        return [of[i] for i in _drawn(self._seed, what, len(of), step * count, (step + 1) * count)]

    def _alone(self, i: int, rng: Generator) -> tuple[U8, bool]:
        return augment(self._clips[i].frames(), rng, self._plan.augment), self._clips[i].clip.fake

    def _pair(self, i: int, rng: Generator) -> list[tuple[U8, bool]]:
        """A real clip and a fake made of it, in no fixed order, through the same augmentation."""
        real = self._moving(i, rng)
        fake = pseudofakes.make(
            real,
            rng,
            other=self._stranger(i, rng),
            redrawers=self._redrawers(),
            kinds=self._plan.kinds or None,
        )
        chance = int(rng.integers(2**63))
        pair = [
            (augment(frames, np.random.default_rng(chance), self._plan.augment), label)
            for frames, label in ((real, False), (fake, True))
        ]
        return pair[:: int(rng.choice([1, -1]))]

    def _moving(self, i: int, rng: Generator) -> U8:
        """The frames of a clip; of a photograph, which has one, as many as a sequence, filmed by hand."""
        frames = self._clips[i].frames()
        if len(frames) > 1:
            return frames
        count, side = max(2, self._sampling.bursts * self._sampling.burst_frames), frames.shape[1]
        return filmed(frames[0], rng, frames=count, side=side, box=(0, 0, side))

    def _stranger(self, i: int, rng: Generator) -> U8 | None:
        """A real clip of somebody else, or None where there is none."""
        for j in rng.integers(0, len(self._real), 8):
            if self._people[self._real[int(j)]].isdisjoint(self._people[i]):
                return self._clips[self._real[int(j)]].frames()
        strangers = [k for k in self._real if self._people[k].isdisjoint(self._people[i])]
        return self._clips[int(rng.choice(strangers))].frames() if strangers else None

    def _redrawers(self) -> Sequence[Autoencoder]:
        return () if self._redrawing is None else _autoencoders(*self._redrawing)


class Prepared(NamedTuple):
    """A clip and the shards that hold it."""

    shards: Shards
    clip: ShardClip

    def frames(self) -> U8:
        """uint8 [T, S, S, 3], read-only."""
        return self.shards.frames(self.clip)


def real_faces(roots: Iterable[Path]) -> list[U8]:
    """The real clips of the split `train` in prepared shards, for autoencoders to learn from: uint8
    [T, S, S, 3] each, read-only memory maps. Raises ShardsError, or NoFootage without any."""
    faces: list[U8] = []
    for root in roots:
        shards = open_shards(root)
        if shards.crop.side < PATCH:
            raise NoFootage(f"{root} holds crops of {shards.crop.side} pixels: autoencoders need {PATCH}")
        faces += [shards.frames(c) for c in shards.clips if c.split == "train" and not c.fake]
    if not faces:
        raise NoFootage("no real clip of the split `train`: autoencoders learn from those")
    return faces


@lru_cache(maxsize=1)
def _autoencoders(folder: Path, digest: str) -> Sequence[Autoencoder]:
    """Those in a folder, read once in each process. Raises CheckpointError."""
    networks = load_autoencoders(folder)
    if autoencoders_digest(folder) != digest:
        raise CheckpointError(f"the autoencoders in {folder} have changed since the training began")
    return networks


class Exam:
    """Lessons to validate on, always the same ones, shared out over the processes."""

    def __init__(self, lesson: Callable[[int], Lesson], count: int, world: World = ALONE) -> None:
        self._lesson = lesson
        self.mine = range(world.rank, count, world.size)

    def lesson(self, number: int) -> Lesson:
        """One of them."""
        return self._lesson(number)


def clip_exam(clips: Sequence[Prepared], recipe: Recipe, world: World = ALONE) -> Exam:
    """The clips as they are, each once."""
    batch = recipe.optimiser.batch
    lesson = partial(_plain_lesson, clips, recipe.network.sampling, batch)
    return Exam(lesson, -(-len(clips) // batch), world)


def _plain_lesson(clips: Sequence[Prepared], sampling: SamplingSpec, batch: int, number: int) -> Lesson:
    chosen = clips[number * batch : (number + 1) * batch]
    return _lesson([(_sampled(c.frames(), sampling), c.clip.fake) for c in chosen])


def pair_exam(clips: list[Clip], recipe: Recipe, world: World = ALONE) -> Exam:
    """As many fixed pairs as there are clips, from those clips."""
    teacher = PairTeacher(clips, recipe.model_copy(update={"seed": recipe.seed + 1}))
    return Exam(teacher.lesson, -(-len(clips) // recipe.optimiser.batch), world)


def lessons(of: Teacher | Exam, numbers: range, *, workers: int = 0, pin: bool = False) -> Iterator[Lesson]:
    """The lessons of these numbers, in order, made ahead by so many processes (0: as they are asked for).

    pin: into page-locked memory, from which a GPU copies while it computes.
    """
    loader = DataLoader(
        _Numbered(of),
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        pin_memory=pin,
        worker_init_fn=_one_thread,
        multiprocessing_context=_clean_processes() if workers else None,
    )
    return iter(loader)


def _clean_processes() -> BaseContext:
    """Processes forked from a server without threads: a fork of this one, whose libraries keep pools of
    threads, may wait for a lock that nobody holds any more."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["training.loader"])
    return context


class _Numbered(Dataset[Lesson]):
    def __init__(self, of: Teacher | Exam) -> None:
        self._of = of

    def __getitem__(self, number: int) -> Lesson:
        return self._of.lesson(number)


def _one_thread(_: int) -> None:
    cv2.setNumThreads(1)


def _sampled(frames: U8, sampling: SamplingSpec) -> U8:
    """The frames that the service would look at, uint8 [n, 1, S, S, 3]."""
    runs = plan_bursts([t / FRAME_RATE for t in range(len(frames))], sampling)
    return np.ascontiguousarray(frames[[t for run in runs for t in run]][:, None])


def _lesson(sequences: list[tuple[U8, bool]]) -> Lesson:
    return Lesson(
        torch.from_numpy(np.concatenate([s for s, _ in sequences])),
        torch.tensor([len(s) for s, _ in sequences]),
        torch.tensor([int(fake) for _, fake in sequences]),
    )


def _drawn(seed: int, what: int, count: int, start: int, stop: int) -> list[int]:
    """Places start to stop of an endless row of shuffled packs of 0 to count - 1."""
    return [int(_pack(seed, what, count, i // count)[i % count]) for i in range(start, stop)]


@lru_cache(maxsize=16)
def _pack(seed: int, what: int, count: int, number: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, what, number]).permutation(count)


def _check_classes(real: list[int], fake: list[int], *, only_pairs: bool) -> None:
    if not real or not (fake or only_pairs):
        raise NoFootage(f"{len(real)} real and {len(fake)} fake clips of the split `train`: both are needed")


def _check_fakes(recipe: Recipe, people: set[frozenset[str]], redrawers: Sequence[Autoencoder]) -> None:
    """people: who is in the real clips, each group that is in one together."""
    plan, side = recipe.clips, recipe.network.crop.side
    if plan is None or not plan.pseudofakes:
        return
    if unknown := set(plan.kinds) - set(pseudofakes.KINDS):
        raise RecipeError(f"no pseudo-fakes are called {', '.join(sorted(unknown))}")
    if side < pseudofakes.LEAST_SIDE:
        raise RecipeError(f"pseudo-fakes need crops of {pseudofakes.LEAST_SIDE} pixels, not {side}")
    if plan.autoencoders is not None and not any(network.channels == 3 for network in redrawers):
        raise RecipeError(f"{plan.autoencoders} holds no autoencoder of RGB pictures")
    redrawn = [k for k in plan.kinds if pseudofakes.KINDS[k].needs == "redrawers"]
    if redrawn and not redrawers:
        raise RecipeError(f"{', '.join(redrawn)}: the recipe has no clips.autoencoders")
    swaps = [k for k in plan.kinds if pseudofakes.KINDS[k].needs == "other"]
    if swaps and (lonely := [a for a in people if not any(a.isdisjoint(b) for b in people)]):
        who = " and ".join(sorted(min(lonely, key=sorted)))
        raise RecipeError(f"{', '.join(swaps)}: beside {who} there is nobody else in a real clip")


def _check_shares(units: int, world: World) -> None:
    if units < world.size:
        raise RecipeError(f"the batch is too small for {world.size} processes")


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
