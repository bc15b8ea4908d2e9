"""The two graphs of a bundle in ONNX Runtime."""

import time
from collections.abc import Sequence
from typing import Any, Literal, TypeVar, cast

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from pipeline.bundle import Bundle
from pipeline.errors import BundleCorrupt, BundleError
from pipeline.explain import Encode, Work
from pipeline.frames import F32, U8
from pipeline.prepared import PreparedClip
from pipeline.runtime import CPU, CUDA, cuda_options, session_options, usable_cores
from pipeline.scores import TrackScores

Provider = Literal["cpu", "prefer", "require"]
T = TypeVar("T")
BEST_BATCH = {CPU: 16, CUDA: 64}
"""Samples from which on a larger batch only adds latency and memory: on one CPU thread and on two, the cost
of a sample is flat from 4 (native) and from 9 (ResNeXt-50) on."""

SEQUENCES = 4
"""Sequences of one run, where there are many: they share the reading of weights, and more gain no more."""


class Engine:
    """Encoder and temporal graph of one bundle, thread-safe, on one execution provider.

    provider: `cpu`; `prefer` takes CUDA where it works; `require` fails without it. The provider is
    read back from both live sessions, never assumed, and no run moves to another one. threads: 0 for the
    cores this process may use. parallel: on the CPU, each run of the encoder has one thread, and the caller
    makes `encoder_runs` at once: a sample then costs less than where threads share a run.
    gpu_memory_bytes: what each graph may take on a CUDA device at most.
    tf32: let CUDA round what it multiplies to 10 bits, which is faster and changes answers.
    Raises BundleCorrupt when a graph does not have the bundle's signature, BundleError when CUDA is
    required and absent.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        provider: Provider = "cpu",
        threads: int = 0,
        parallel: bool = False,
        gpu_memory_bytes: int | None = None,
        tf32: bool = False,
    ) -> None:
        self.bundle = bundle
        self.threads = threads or usable_cores()
        graphs = [str(bundle.encoder), str(bundle.temporal)]
        wanted = _providers(provider, cuda_options(gpu_memory_bytes, tf32=tf32))
        sessions = [_session(g, wanted, self.threads) for g in graphs] if wanted != [CPU] else []
        live = {str(s.get_providers()[0]) for s in sessions} or {CPU}
        if provider == "require" and live != {CUDA}:
            raise BundleError(f"CUDA is required, but the session runs on {', '.join(sorted(live - {CUDA}))}")
        if live != {CUDA}:
            threads_of = [1 if parallel else self.threads, self.threads]
            sessions = [_session(g, [CPU], n) for g, n in zip(graphs, threads_of, strict=True)]
        self._encoder, self._temporal = sessions
        self.provider = str(self._encoder.get_providers()[0])
        self.encoder_runs = self.threads if parallel and self.provider == CPU else 1
        """Runs of the encoder that keep the device busy together."""
        self._check_signature()

    @property
    def best_batch(self) -> int:
        """Samples in one run of the encoder that this provider does best with, in whole bursts."""
        burst = self.bundle.manifest.crop.samples_per_burst
        return -(-BEST_BATCH[self.provider] // burst) * burst

    def encode(self, samples: U8) -> F32:
        """Samples uint8 [N, F, S, S, 3] to features float32 [N, D]."""
        (features,) = self._encoder.run(["features"], {"samples": samples})
        return np.asarray(features, np.float32)

    def temporal(self, features: F32, lengths: NDArray[np.int64]) -> tuple[F32, F32]:
        """Features float32 [B, T, D] and lengths [B] to probabilities of real and fake.

        Returns steps float32 [B, T, 2], zero past each length, and pooled float32 [B, 2].
        """
        steps, pooled = self._temporal.run(["steps", "pooled"], {"features": features, "lengths": lengths})
        return np.asarray(steps, np.float32), np.asarray(pooled, np.float32)

    def _check_signature(self) -> None:
        crop, size = self.bundle.manifest.crop, self.bundle.manifest.feature_size
        expected: dict[str, tuple[str, list[int | None]]] = {
            "samples": ("tensor(uint8)", [crop.frames, crop.side, crop.side, 3]),
            "features": ("tensor(float)", [None, size]),
            "lengths": ("tensor(int64)", []),
        }
        for i in [*self._encoder.get_inputs(), *self._temporal.get_inputs()]:
            kind, shape = expected.pop(i.name, ("nothing", []))
            fits = len(i.shape) == len(shape) + 1 and all(
                b is None or a == b for a, b in zip(i.shape[1:], shape, strict=True)
            )
            if i.type != kind or not fits:
                raise BundleCorrupt(
                    f"{self.bundle.path}: input {i.name} is {i.type} {i.shape}, not as its manifest says"
                )
        if expected:
            raise BundleCorrupt(f"{self.bundle.path}: no graph takes {', '.join(sorted(expected))}")


def score(engine: Engine, clip: PreparedClip, timing_ms: dict[str, float] | None = None) -> list[TrackScores]:
    """Scores of each track of one clip, in order, without a service around it.

    The milliseconds of both graphs are added to `timing_ms` as `encode` and `temporal`.
    """
    start = time.perf_counter()
    features = encoded(engine, clip)
    between = time.perf_counter()
    scores = scored(engine, features)
    if timing_ms is not None:
        timing_ms["encode"] = (between - start) * 1000
        timing_ms["temporal"] = (time.perf_counter() - between) * 1000
    return scores


def encoded(engine: Engine, clip: PreparedClip) -> list[F32]:
    """Features of each track of a clip, float32 [T, D]."""
    return [_encoded(engine, track.samples) for track in clip.tracks]


def scored(engine: Engine, sequences: Sequence[F32], *, at_once: int = 1) -> list[TrackScores]:
    """Scores of sequences, float32 [T, D], so many of them in one run."""
    results = []
    for at in range(0, len(sequences), at_once):
        some = sequences[at : at + at_once]
        lengths = np.array([len(s) for s in some], np.int64)
        batch = np.zeros((len(some), lengths.max(), some[0].shape[1]), np.float32)
        for row, sequence in zip(batch, some, strict=True):
            row[: len(sequence)] = sequence
        steps, pooled = engine.temporal(batch, lengths)
        results += [TrackScores(steps[k, :n], pooled[k]) for k, n in enumerate(lengths)]
    return results


def driven(engine: Engine, work: Work[T]) -> T:
    """What comes of work that asks the two graphs, without a service around it."""
    answers: list[F32] | list[TrackScores] | None = None
    while True:
        try:
            asked = work.send(answers)
        except StopIteration as done:
            return cast("T", done.value)
        if isinstance(asked, Encode):
            answers = list(_encoded(engine, np.stack(asked.samples)))
        else:
            answers = scored(engine, asked.sequences, at_once=SEQUENCES)


def _encoded(engine: Engine, samples: U8) -> F32:
    chunks = range(0, len(samples), engine.best_batch)
    return np.concatenate([engine.encode(samples[i : i + engine.best_batch]) for i in chunks])


def _providers(policy: Provider, options: dict[str, str]) -> list[Any]:
    """What a session is asked to run on, the first first, in the words of ONNX Runtime."""
    if policy == "cpu" or CUDA not in ort.get_available_providers():
        return [CPU]
    ort.preload_dlls()
    return [(CUDA, options), CPU]


def _session(path: str, wanted: list[Any], threads: int) -> Any:
    try:
        session = ort.InferenceSession(path, session_options(threads), providers=wanted)
    except Exception as e:  # ONNX Runtime raises its own classes, which it does not export in one place
        raise BundleCorrupt(f"{path} can not be loaded: {e}") from e
    session.disable_fallback()
    return session
