"""The golden clip: a real film with one face, and what a bundle is known to say of it.

Two seconds of `deepfake-detect sample` (NASA's photograph of Eileen Collins, public domain). The bytes are
kept, not made anew, so that no version of an encoder can change them.
"""

from pathlib import Path

from pipeline.bundle import Bundle, Manifest, sha256
from pipeline.detect import FaceDetector
from pipeline.engine import Engine, score
from pipeline.media import Limits
from pipeline.prepare import prepare
from pipeline.scores import calibrated
from pipeline.verdict import decide

GOLDEN = Path(__file__).with_name("golden.mp4")
TOLERANCE = 0.02
"""What providers, versions of libraries and kinds of processors may make of a probability."""

DIGITS = 4
"""More would tell one machine's manifest from another's."""

_ENTRY = "golden"


def recorded(bundle: Bundle, detector: FaceDetector) -> dict[str, dict[str, object]]:
    """What goes into the summary of a bundle's manifest: the clip's digest, and the uncalibrated probability
    that its face is fake. Nothing, where the bundle's specifications leave no face to judge."""
    manifest = bundle.manifest
    clip = prepare(
        GOLDEN,
        crop=manifest.crop,
        sampling=manifest.sampling,
        detector=detector,
        limits=Limits(),
        max_faces=1,
    )
    scores = score(Engine(bundle), clip)
    if decide(clip, scores, bundle).probabilities is None:
        return {}
    return {_ENTRY: {"clip": sha256(GOLDEN), "fake": round(float(scores[0].pooled[1]), DIGITS)}}


def expected(manifest: Manifest) -> float | None:
    """The probability that a bundle's answer to the golden clip has; None where its manifest knows none."""
    entry = manifest.summary.get(_ENTRY)
    if not isinstance(entry, dict) or entry.get("clip") != sha256(GOLDEN):
        return None
    return calibrated(float(entry["fake"]), manifest.calibration)
