"""The two graphs of a bundle as the batcher runs them: padded to a few fixed shapes, each warmed up.

Memory of a GPU provider grows with every new shape that it meets, and the first run of a shape is
slow; so there is a ladder of shapes, a batch is padded up to the next rung, and padding is cut off.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from pipeline.bundle import Manifest
from pipeline.engine import Engine
from pipeline.frames import F32, U8
from pipeline.scores import TrackScores

MAX_SEQUENCES = 4
"""Sequences in one temporal batch: enough to share weights, few enough that padding stays cheap."""

SAMPLE_PADDING = 1 / 8
"""Share of an encoder batch that is padding at most. A padded sample costs what a real one does."""

SEQUENCE_PADDING = 1 / 4
"""The same of the sequences of a temporal batch. They share the reading of weights: on a CPU the fourth adds
8% to what three cost an LSTM of 2048."""

STEP_PADDING = 1 / 3
"""The same of the steps of its longest sequence. Each rung has to be warmed with each number of sequences,
which takes an LSTM of 2048 on a CPU 17 ms a step, so that these are fewer."""

SHORTEST_RUNG = 8
"""Steps of the lowest rung of sequence lengths at least."""


def ladder(top: int, *, padding: float, bottom: int = 1, whole: int = 1) -> tuple[int, ...]:
    """Rungs from `bottom` up to and including `top`, as few as `padding` allows.

    padding: share of a rung, above the lowest, that is empty at most. whole: unless it is 1, its
    multiples are rungs too.
    """
    rungs = [top]
    while rungs[-1] > bottom:
        below = math.ceil(rungs[-1] * (1 - padding)) - 1
        if whole > 1:
            below = max(below, (rungs[-1] - 1) // whole * whole)
        rungs.append(max(below, bottom))
    return tuple(reversed(rungs))


def rung(count: int, rungs: Sequence[int]) -> int:
    """The lowest rung that holds `count`. Raises ValueError above the top."""
    at = bisect_left(rungs, count)
    if at == len(rungs):
        raise ValueError(f"{count} is over the top of the ladder, {rungs[-1]}")
    return rungs[at]


def longest_sequence(manifest: Manifest) -> int:
    """Samples that one face track can have at most under a bundle's crop and sampling specifications."""
    return manifest.sampling.bursts * samples_a_look(manifest)


def samples_a_look(manifest: Manifest) -> int:
    """Samples of one face in one look, a burst, at most."""
    crop = manifest.crop
    return crop.samples_per_burst if crop.kind == "native" else manifest.sampling.burst_frames


def step_rungs(manifest: Manifest) -> tuple[int, ...]:
    """Steps that sequences are padded to. Native bursts give all their samples or none: no rung parts one."""
    burst = manifest.crop.samples_per_burst
    shortest = -(-SHORTEST_RUNG // burst)
    bursts = ladder(longest_sequence(manifest) // burst, padding=STEP_PADDING, bottom=shortest)
    return tuple(burst * n for n in bursts)


class EncoderGraph:
    """Samples uint8 [F, S, S, 3] to features float32 [D], each row independent of its company."""

    def __init__(self, engine: Engine, manifest: Manifest, *, max_batch: int) -> None:
        crop = manifest.crop
        self._engine = engine
        self.shape = (crop.frames, crop.side, crop.side, 3)
        self.rungs = ladder(max_batch, padding=SAMPLE_PADDING, whole=crop.samples_per_burst)

    def fill(self, samples: Sequence[U8]) -> float:
        """Share of a run of these that is no padding."""
        return len(samples) / rung(len(samples), self.rungs)

    def run(self, samples: list[U8]) -> list[F32]:
        """Features of each sample."""
        batch = np.zeros((rung(len(samples), self.rungs), *self.shape), np.uint8)
        for i, sample in enumerate(samples):
            batch[i] = sample
        return list(self._engine.encode(batch)[: len(samples)])

    def probe(self) -> None:
        """Run the smallest batch there is."""
        self._engine.encode(np.zeros((self.rungs[0], *self.shape), np.uint8))

    def warm(self) -> None:
        """Run every shape once, the largest first so that memory is taken once."""
        for size in reversed(self.rungs):
            self._engine.encode(np.zeros((size, *self.shape), np.uint8))


class TemporalGraph:
    """Sequences float32 [T, D] to scores of their steps and of the whole."""

    def __init__(self, engine: Engine, manifest: Manifest) -> None:
        self._engine = engine
        self._size = manifest.feature_size
        self.rungs = ladder(MAX_SEQUENCES, padding=SEQUENCE_PADDING)
        self.steps = step_rungs(manifest)

    def fill(self, sequences: Sequence[F32]) -> float:
        """Share of a run of these that is no padding, neither sequences nor steps."""
        count, steps = self._padded(sequences)
        return sum(len(s) for s in sequences) / (count * steps)

    def run(self, sequences: list[F32]) -> list[TrackScores]:
        """Scores of each sequence, cut to its length."""
        count, steps = self._padded(sequences)
        batch = np.zeros((count, steps, self._size), np.float32)
        lengths = np.ones(count, np.int64)
        for i, sequence in enumerate(sequences):
            batch[i, : len(sequence)] = sequence
            lengths[i] = len(sequence)
        scores, pooled = self._engine.temporal(batch, lengths)
        return [TrackScores(scores[i, : len(s)], pooled[i]) for i, s in enumerate(sequences)]

    def probe(self) -> None:
        """Run the smallest batch there is."""
        self._run_zeros(self.rungs[0], self.steps[0])

    def warm(self) -> None:
        """Run every shape once, the largest first so that memory is taken once."""
        for count in reversed(self.rungs):
            for steps in reversed(self.steps):
                self._run_zeros(count, steps)

    def _padded(self, sequences: Sequence[F32]) -> tuple[int, int]:
        """Sequences of a run, and steps of each."""
        return rung(len(sequences), self.rungs), rung(max(len(s) for s in sequences), self.steps)

    def _run_zeros(self, count: int, steps: int) -> None:
        zeros = np.zeros((count, steps, self._size), np.float32)
        self._engine.temporal(zeros, np.full(count, steps, np.int64))
