"""How far a bundle in reduced precision is from its fp32 original, and how fast it is.

Needs neither torch nor onnx, so that whoever holds both bundles can measure it again.
"""

import platform
import time
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import onnxruntime as ort
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.bundle import Bundle, Manifest
from pipeline.engine import Engine
from pipeline.errors import BundleCorrupt, BundleError
from pipeline.frames import F32, U8
from pipeline.runtime import usable_cores
from pipeline.spec import CropSpec

Precision = Literal["fp32", "fp16", "int8"]
LIMITS: dict[str, float] = {"fp32": 1e-4, "fp16": 2e-3, "int8": 2e-2}
"""Largest difference in probability that a bundle of each precision may show.

fp16: far below the 0.01 that answers are read to. int8: a fifth of a calibration bin, which is a tenth
wide, so that no clip moves past its neighbouring bin and only one that stands at a threshold changes
its verdict.
"""
SEQUENCES, LENGTH = 24, 8


class Agreement(BaseModel):
    """What a manifest says of a reduced precision, in `summary["precision"]`.

    Differences of the probabilities of steps and of whole sequences to the fp32 bundle's, over
    `samples` samples in `sequences` sequences; spread: largest minus smallest probability of `fake`
    that the fp32 bundle gave them, without which a small difference would mean nothing. encoder: how its
    convolutions are stored, fp16 where int8 would have cost too much.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    largest: float = Field(ge=0)
    mean: float = Field(ge=0)
    limit: float = Field(gt=0)
    samples: int = Field(ge=1)
    sequences: int = Field(ge=1)
    spread: float = Field(ge=0, le=1)
    encoder: Precision


def textures(crop: CropSpec, count: int, seed: int = 0) -> U8:
    """Samples uint8 [count, F, S, S, 3] with edges, detail and grain of many strengths, slowly moving.

    Pure noise would drive each residual into its clipping, and every network to one answer.
    """
    rng = np.random.default_rng(seed)
    side = crop.side + crop.frames
    samples = np.empty((count, crop.frames, crop.side, crop.side, 3), np.uint8)
    for sample in samples:
        sigma, contrast, grain = np.exp(rng.uniform(np.log((0.8, 10, 0.2)), np.log((8, 60, 8))))
        content = cv2.GaussianBlur(rng.standard_normal((side, side, 3)).astype(np.float32), (0, 0), sigma)
        content = 128 + contrast * content / content.std()
        for f, frame in enumerate(sample):
            y, x = rng.integers(0, 2, 2) * f
            noise = grain * rng.standard_normal(frame.shape)
            frame[...] = (content[y:, x:][: crop.side, : crop.side] + noise).round().clip(0, 255)
    return samples


def answers(engine: Engine) -> tuple[F32, F32]:
    """What a bundle says of the textures: steps [SEQUENCES, LENGTH, 2] and pooled [SEQUENCES, 2]."""
    samples = textures(engine.bundle.manifest.crop, SEQUENCES * LENGTH)
    chunks = [engine.encode(samples[i : i + 32]) for i in range(0, len(samples), 32)]
    features = np.concatenate(chunks).reshape(SEQUENCES, LENGTH, -1)
    return engine.temporal(features, np.full(SEQUENCES, LENGTH, np.int64))


def difference(reference: tuple[F32, F32], reduced: tuple[F32, F32]) -> float:
    """Largest difference of two bundles' answers."""
    return float(max(np.abs(a - b).max() for a, b in zip(reference, reduced, strict=True)))


def agreement(
    reference: tuple[F32, F32], reduced: tuple[F32, F32], precision: Precision, *, encoder: Precision
) -> Agreement:
    """Compare the answers of two bundles. Raises BundleCorrupt when they differ by more than the limit."""
    limit, largest = LIMITS[precision], difference(reference, reduced)
    # not >: a difference that is not a number must fail too
    if not largest <= limit:
        raise BundleCorrupt(f"probabilities in {precision} differ from fp32 by {largest:.1e}, over {limit:g}")
    differences = np.concatenate([np.abs(a - b).ravel() for a, b in zip(reference, reduced, strict=True)])
    fake = np.concatenate([reference[0][..., 1].ravel(), reference[1][:, 1]])
    return Agreement(
        largest=largest,
        mean=float(differences.mean()),
        limit=limit,
        samples=SEQUENCES * LENGTH,
        sequences=SEQUENCES,
        spread=float(fake.max() - fake.min()),
        encoder=encoder,
    )


def compare(reference: Bundle, reduced: Bundle) -> Agreement:
    """The same for two bundles on disk. Raises BundleError when they are not of one network."""
    a, b = reference.manifest, reduced.manifest
    if a.precision != "fp32" or (a.architecture, a.crop) != (b.architecture, b.crop):
        raise BundleError(f"{a.id} is not the fp32 original of {b.id}")
    said = recorded(b)
    encoder = said.encoder if said is not None else b.precision
    return agreement(answers(Engine(reference)), answers(Engine(reduced)), b.precision, encoder=encoder)


def recorded(manifest: Manifest) -> Agreement | None:
    """What a manifest says of its reduced precision; None for fp32. Raises BundleCorrupt."""
    if manifest.precision == "fp32":
        return None
    try:
        found = Agreement.model_validate(manifest.summary.get("precision"))
    except ValidationError as e:
        raise BundleCorrupt(f"{manifest.id} is {manifest.precision} and does not say how exact: {e}") from e
    if not found.largest <= LIMITS[manifest.precision]:
        raise BundleCorrupt(
            f"{manifest.id} differs from fp32 by {found.largest:.1e}, over {LIMITS[manifest.precision]:g}"
        )
    return found


def speed(bundle: Bundle, *, threads: int = 1, batch: int = 32, repeats: int = 3) -> dict[str, Any]:
    """Samples a second through both graphs on the CPU, best of some repeats, and where it was measured."""
    engine = Engine(bundle, threads=threads)
    samples = textures(bundle.manifest.crop, batch)
    lengths = np.array([batch], np.int64)
    engine.temporal(engine.encode(samples)[None], lengths)
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        engine.temporal(engine.encode(samples)[None], lengths)
        taken.append(time.perf_counter() - began)
    return {
        "samples_per_second": round(batch / min(taken), 1),
        "batch": batch,
        "threads": threads,
        "machine": f"{_processor()}, {usable_cores()} cores",
        "onnxruntime": ort.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
