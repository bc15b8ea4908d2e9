"""What can be verified of a bundle by running it: nothing here needs torch or onnx."""

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort

from pipeline.bundle import CLASSES, Bundle
from pipeline.engine import Engine
from pipeline.errors import BundleCorrupt
from pipeline.frames import F32
from pipeline.runtime import CPU, session_options
from pipeline.spec import CropSpec, SamplingSpec

TOLERANCE = 1e-4
LICENCE = "MIT"


def metadata_of(bundle_id: str, crop: CropSpec, sampling: SamplingSpec) -> dict[str, str]:
    """The metadata_props that both graphs of a bundle carry, so that a graph alone can be told."""
    return {
        "bundle": bundle_id,
        "classes": json.dumps(CLASSES),
        "crop": crop.model_dump_json(),
        "sampling": sampling.model_dump_json(),
        "licence": LICENCE,
    }


def selfcheck(bundle: Bundle) -> dict[str, float]:
    """Run both graphs on noise and check what every bundle promises.

    Features and probabilities are finite, probabilities sum to one, an answer depends neither on
    its company in the batch nor on padding, and the metadata tells the same as the manifest.
    Returns the largest deviations. Raises BundleCorrupt.
    """
    engine = Engine(bundle)
    _check_metadata(bundle)
    crop = bundle.manifest.crop
    rng = np.random.default_rng(0)
    samples = rng.integers(0, 256, (3, crop.frames, crop.side, crop.side, 3), dtype=np.uint8)
    together = engine.encode(samples)
    alone = np.concatenate([engine.encode(samples[i : i + 1]) for i in range(len(samples))])
    sequences = np.stack([together[[0, 1, 2, 1]], together[[2, 0, 1, 0]]])
    measured = {
        "encoder_batch": _difference(together, alone),
        **_check_temporal(engine, sequences),
    }
    # not <=: a difference that is not a number must fail too
    if wrong := {k: v for k, v in measured.items() if not v <= TOLERANCE}:
        raise BundleCorrupt(f"{bundle.path}: outputs that should agree within {TOLERANCE} differ by {wrong}")
    return measured


def _check_temporal(engine: Engine, sequences: F32) -> dict[str, float]:
    short = 2
    steps, pooled = engine.temporal(sequences, np.array([4, short], np.int64))
    first_steps, first_pooled = engine.temporal(sequences[:1], np.array([4], np.int64))
    cut_steps, cut_pooled = engine.temporal(sequences[1:, :short], np.array([short], np.int64))
    garbage = sequences.copy()
    garbage[1, short:] = 1e4
    _, padded = engine.temporal(garbage, np.array([4, short], np.int64))
    probabilities = np.concatenate([steps[0], steps[1, :short], pooled])
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise BundleCorrupt(f"{engine.bundle.path}: its outputs are no probabilities")
    return {
        "sum_of_probabilities": float(np.abs(probabilities.sum(axis=-1) - 1).max()),
        "temporal_batch": max(_difference(steps[:1], first_steps), _difference(pooled[:1], first_pooled)),
        "padding": max(
            _difference(steps[1:, :short], cut_steps),
            _difference(pooled[1:], cut_pooled),
            _difference(pooled, padded),
        ),
        "steps_past_the_length": float(np.abs(steps[1, short:]).max()),
    }


def _check_metadata(bundle: Bundle) -> None:
    expected = metadata_of(bundle.manifest.id, bundle.manifest.crop, bundle.manifest.sampling)
    for graph in (bundle.encoder, bundle.temporal):
        found = _metadata(graph)
        if wrong := [k for k, v in expected.items() if found.get(k) != v]:
            raise BundleCorrupt(
                f"{bundle.path}: {graph.name} and the manifest disagree on {', '.join(wrong)}"
            )


def _metadata(graph: Path) -> dict[str, str]:
    options = session_options(1)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(graph), options, providers=[CPU])
    return dict(session.get_modelmeta().custom_metadata_map)


def _difference(a: F32, b: F32) -> float:
    return float(np.abs(a - b).max())
