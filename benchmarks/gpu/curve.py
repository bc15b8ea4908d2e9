"""Speed over batch sizes, and the time of one clip through both graphs."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.engine import Engine
from pipeline.frames import U8
from service.graphs import EncoderGraph, TemporalGraph, longest_sequence

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Seconds:
    """Median, least and most of some repeats."""

    median: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Point:
    """Samples a second at one batch size: that of the median run, of the slowest and of the fastest."""

    batch: int
    median: float
    least: float
    most: float


def seconds(run: Callable[[], object], *, repeats: int, clock: Clock = time.perf_counter) -> Seconds:
    """Time of a run, which has been run twice before: a first run compiles, a second settles memory."""
    run()
    run()
    taken = []
    for _ in range(repeats):
        began = clock()
        run()
        taken.append(clock() - began)
    return Seconds(statistics.median(taken), min(taken), max(taken))


def batch_curve(
    encode: Callable[[U8], object],
    shape: tuple[int, ...],
    sizes: Sequence[int],
    *,
    repeats: int,
    clock: Clock = time.perf_counter,
) -> list[Point]:
    """Samples a second of an encoder, from uint8 [N, *shape] in the host's memory to features there."""
    rng = np.random.default_rng(0)
    points = []
    for size in sizes:
        samples = rng.integers(0, 256, (size, *shape), dtype=np.uint8)

        def run(samples: U8 = samples) -> object:
            return encode(samples)

        taken = seconds(run, repeats=repeats, clock=clock)
        points.append(Point(size, size / taken.median, size / taken.most, size / taken.least))
    return points


class Clip:
    """Clips of one face, of any number of samples, through both graphs as the service runs them."""

    def __init__(self, engine: Engine) -> None:
        manifest = engine.bundle.manifest
        self.longest = longest_sequence(manifest)
        self._batch = engine.best_batch
        self._encoder = EncoderGraph(engine, manifest, max_batch=self._batch)
        self._temporal = TemporalGraph(engine, manifest)
        self._sample = np.zeros(self._encoder.shape, np.uint8)

    def warm(self) -> None:
        """Run every shape once."""
        self._encoder.warm()
        self._temporal.warm()

    def run(self, samples: int) -> None:
        """Judge one clip."""
        features = []
        for at in range(0, samples, self._batch):
            features += self._encoder.run([self._sample] * min(self._batch, samples - at))
        self._temporal.run([np.stack(features)])


def clip_seconds(engine: Engine, *, repeats: int, clock: Clock = time.perf_counter) -> Seconds:
    """Time of the longest clip of one face on an idle device."""
    clip = Clip(engine)
    return seconds(lambda: clip.run(clip.longest), repeats=repeats, clock=clock)
