"""Each stage of one clip alone: what it costs when nothing else runs and its input lies ready.

The floor of a clip's latency is the sum of four walls, each the better of one thread and of as many
as there are cores. Its cost is the sum of four CPU times, each the lesser of the two, the temporal graph's
in a run that several clips share. Neither counts
what else a service has to do: scale pictures for the detector, follow faces, cut crops, hash and
receive the file, answer.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench import Bench, prepared
from pipeline.decode import open_clip
from pipeline.detect.registry import open_detector
from pipeline.engine import Engine, score
from pipeline.frames import F32, U8
from pipeline.media import Limits
from pipeline.prepared import PreparedClip
from pipeline.runtime import usable_cores
from pipeline.sample import key_frames, plan_bursts
from service.graphs import MAX_SEQUENCES

STAGES = ("decode", "detect", "encode", "temporal")
SHARED = "temporal, shared"
"""The temporal graph in a run that as many clips share as the service puts together: the cost of one."""
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
SWEEP_S = 0.5
"""Seconds that one batch size is measured for, or twice, whichever is longer."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds on the clock, and of CPU in all threads of this process."""

    wall_s: float
    cpu_s: float


def timed(work: Callable[[], object]) -> Cost:
    """What a call costs."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def least(costs: list[Cost]) -> Cost:
    """The least wall and the least CPU time, which need not be of the same measurement."""
    return Cost(min(c.wall_s for c in costs), min(c.cpu_s for c in costs))


def median(costs: list[Cost]) -> Cost:
    """The medians of both."""
    return Cost(float(np.median([c.wall_s for c in costs])), float(np.median([c.cpu_s for c in costs])))


class Stages:
    """The stages of one clip, their inputs made ready."""

    def __init__(self, bench: Bench, clip: Path) -> None:
        self._bench, self._clip = bench, clip
        self._threads = sorted({1, usable_cores()})
        self._engines = {t: bench.engine(t) for t in self._threads}
        self._detectors = {t: open_detector("yunet", threads=t) for t in self._threads}
        self._prepared = prepared(bench.bundle, clip, self._detectors[1])
        self._pictures = self._looked_at()
        self._samples = [track.samples for track in self._prepared.tracks]
        self._features = [self._encoded(self._engines[1], s, len(s)) for s in self._samples]
        self._best = dict.fromkeys(self._threads, max(BATCHES))

    @property
    def clip(self) -> PreparedClip:
        """The clip as it was prepared."""
        return self._prepared

    def facts(self) -> dict[str, Any]:
        """The clip, and how much of each stage's work is in it."""
        media = self._prepared.media
        return {
            "seconds": media.duration_s,
            "width": media.width,
            "height": media.height,
            "bytes": media.bytes,
            "frames_decoded": media.frames_decoded,
            "detections": len(self._pictures),
            "tracks": len(self._samples),
            "samples": sum(map(len, self._samples)),
        }

    def sweep(self) -> list[dict[str, Any]]:
        """Speed of the encoder over batch sizes and threads; the best are used from then on."""
        rows: list[dict[str, Any]] = []
        for threads in self._threads:
            mine = [self._speed(threads, size) for size in BATCHES]
            rows += mine
            # One thread gives the cost, all of them the speed.
            name, sign = ("cpu_s_per_sample", 1) if threads == 1 else ("samples_per_s", -1)
            self._best[threads] = min(mine, key=lambda r: sign * float(r[name]))["batch"]
        return rows

    def floor(self, repeats: int) -> dict[str, dict[str, float]]:
        """Medians of each stage, the better number of threads for each; and of all in one process.

        `whole` is prepare and score one after the other on one thread: it includes what the floor
        leaves out.
        """
        found = {name: least([self._median(name, t, repeats) for t in self._threads]) for name in STAGES}
        found["whole"] = self._median("whole", 1, repeats)
        run = self._median(SHARED, 1, repeats)
        found[SHARED] = Cost(run.wall_s / MAX_SEQUENCES, run.cpu_s / MAX_SEQUENCES)
        return {name: asdict(cost) for name, cost in found.items()}

    def _median(self, stage: str, threads: int, repeats: int) -> Cost:
        work: dict[str, Callable[[int], object]] = {
            "decode": self._decode,
            "detect": self._detect,
            "encode": self._encode,
            "temporal": self._temporal,
            "whole": self._whole,
            SHARED: self._shared,
        }
        return median([timed(lambda: work[stage](threads)) for _ in range(repeats)])

    def _decode(self, threads: int) -> None:
        with open_clip(self._clip, Limits(), threads=threads) as clip:
            plan = plan_bursts(clip.times_s, self._bench.bundle.manifest.sampling)
            for _ in clip.bursts(plan[: self._prepared.coverage.bursts]):
                pass

    def _detect(self, threads: int) -> None:
        """All pictures in one call: the detector makes its own batches of them."""
        self._detectors[threads].detect(self._pictures)

    def _encode(self, threads: int) -> None:
        for samples in self._samples:
            self._encoded(self._engines[threads], samples, self._best[threads])

    def _temporal(self, threads: int) -> None:
        for features in self._features:
            self._engines[threads].temporal(features[None], np.array([len(features)], np.int64))

    def _shared(self, threads: int) -> None:
        for features in self._features:
            batch = np.repeat(features[None], MAX_SEQUENCES, 0)
            self._engines[threads].temporal(batch, np.full(MAX_SEQUENCES, len(features), np.int64))

    def _whole(self, threads: int) -> None:
        score(self._engines[threads], prepared(self._bench.bundle, self._clip, self._detectors[threads]))

    def _encoded(self, engine: Engine, samples: U8, size: int) -> F32:
        return np.concatenate([engine.encode(samples[i : i + size]) for i in range(0, len(samples), size)])

    def _looked_at(self) -> list[U8]:
        """The pictures on which faces are detected, scaled to the detector's own size."""
        sampling = self._bench.bundle.manifest.sampling
        pictures = []
        with open_clip(self._clip, Limits()) as clip:
            plan = plan_bursts(clip.times_s, sampling)[: self._prepared.coverage.bursts]
            for burst in clip.bursts(plan):
                scale = min(1.0, self._detectors[1].longer_side / max(clip.width, clip.height))
                size = round(clip.width * scale), round(clip.height * scale)
                pictures += [burst[p].bgr(*size) for p in key_frames(len(burst), sampling.detect_every)]
        return pictures

    def _speed(self, threads: int, size: int) -> dict[str, Any]:
        batch = np.resize(np.concatenate(self._samples), (size, *self._samples[0].shape[1:]))
        self._engines[threads].encode(batch)
        costs: list[Cost] = []
        while len(costs) < 2 or sum(c.wall_s for c in costs) < SWEEP_S:
            costs.append(timed(lambda: self._engines[threads].encode(batch)))
        middle = median(costs)
        return {
            "threads": threads,
            "batch": size,
            "samples_per_s": size / middle.wall_s,
            "cpu_s_per_sample": middle.cpu_s / size,
        }
