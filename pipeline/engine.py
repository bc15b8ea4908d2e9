"""The two graphs of a bundle in ONNX Runtime."""

import time
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from pipeline.bundle import Bundle
from pipeline.errors import BundleCorrupt, BundleError
from pipeline.frames import F32, U8
from pipeline.prepared import PreparedClip
from pipeline.runtime import CPU, CUDA, session_options
from pipeline.verdict import TrackScores

Provider = Literal["cpu", "prefer", "require"]
ENCODE_CHUNK = 64


class Engine:
    """Encoder and temporal graph of one bundle, thread-safe, on one execution provider.

    provider: `cpu`; `prefer` takes CUDA where it works; `require` fails without it. The provider is
    read back from the live session, never assumed. threads: 0 for the cores this process may use.
    Raises BundleCorrupt when a graph does not have the bundle's signature, BundleError when CUDA is
    required and absent.
    """

    def __init__(self, bundle: Bundle, *, provider: Provider = "cpu", threads: int = 0) -> None:
        self.bundle = bundle
        wanted = [CPU]
        if provider != "cpu" and CUDA in ort.get_available_providers():
            ort.preload_dlls()
            wanted = [CUDA, CPU]
        self._encoder = _session(str(bundle.encoder), wanted, threads)
        self._temporal = _session(str(bundle.temporal), wanted, threads)
        self.provider = str(self._encoder.get_providers()[0])
        if provider == "require" and self.provider != CUDA:
            raise BundleError(f"CUDA is required, but the session runs on {self.provider}")
        self._check_signature()

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
    scores = []
    spent = {"encode": 0.0, "temporal": 0.0}
    for track in clip.tracks:
        start = time.perf_counter()
        chunks = range(0, len(track.samples), ENCODE_CHUNK)
        features = np.concatenate([engine.encode(track.samples[i : i + ENCODE_CHUNK]) for i in chunks])
        encoded = time.perf_counter()
        steps, pooled = engine.temporal(features[None], np.array([len(features)], np.int64))
        spent["encode"] += (encoded - start) * 1000
        spent["temporal"] += (time.perf_counter() - encoded) * 1000
        scores.append(TrackScores(steps[0], pooled[0]))
    if timing_ms is not None:
        timing_ms |= spent
    return scores


def _session(path: str, providers: list[str], threads: int) -> Any:
    try:
        return ort.InferenceSession(path, session_options(threads), providers=providers)
    except Exception as e:  # ONNX Runtime raises its own classes, which it does not export in one place
        raise BundleCorrupt(f"{path} can not be loaded: {e}") from e
