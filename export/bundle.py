"""A checkpoint becomes a verified bundle, and everything that a bundle promises is checked."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from export.agreement import LIMITS, Precision, agreement, answers, difference, recorded, speed
from export.graphs import OPSET, PARITY_LIMIT, check_graph, parity, trace
from export.precision import check_stored, store
from pipeline.bundle import (
    CARD,
    ENCODER,
    TEMPORAL,
    Bundle,
    Calibration,
    Manifest,
    Thresholds,
    open_bundle,
    sha256,
)
from pipeline.detect.registry import open_detector
from pipeline.engine import Engine
from pipeline.errors import BundleCorrupt, BundleError
from pipeline.golden import recorded as recorded_golden
from pipeline.selfcheck import metadata_of, selfcheck
from training.card import write_card
from training.checkpoint import load_checkpoint
from training.model import (
    DetectorConfig,
    DetectorNetwork,
    native_config,
    native_resnext_config,
    paper_config,
)

UNTRAINED = {
    "resnext50_32x4d": paper_config,
    "resnext50_32x4d-native": native_resnext_config,
    "native": native_config,
}
UNCALIBRATED = Calibration(
    id=None,
    thresholds=Thresholds(authentic_below=0.3, manipulated_above=0.7),
    data="not calibrated: the thresholds are defaults, not measured",
)


def export_checkpoint(
    checkpoint: Path,
    out: Path,
    *,
    bundle_id: str | None = None,
    precision: Precision = "fp32",
    measure_speed: bool = False,
) -> Path:
    """Write the bundle of a trained checkpoint to `out`, verify it and return `out`.

    bundle_id: the name of `out` unless given. The calibration is the one that the checkpoint
    carries. measure_speed: put this machine's speed into the manifest, which then is another one
    each time. `out` must not exist; when anything fails nothing is left there. Raises
    CheckpointError, BundleError or BundleCorrupt.
    """
    network, training = load_checkpoint(checkpoint)
    calibration = (
        Calibration.model_validate(training["calibration"]) if "calibration" in training else UNCALIBRATED
    )
    summary = {"training": training.get("summary", {})}
    return _export(
        network,
        out,
        bundle_id or out.name,
        calibration,
        summary=summary,
        precision=precision,
        measure_speed=measure_speed,
        trained=True,
    )


def export_untrained(
    trunk: str, out: Path, *, precision: Precision = "fp32", measure_speed: bool = False
) -> Path:
    """Write the bundle of an untrained network: the paper's `resnext50_32x4d`, the same over native
    windows (`resnext50_32x4d-native`), or `native`.

    Its manifest says `trained: false`, so a service refuses it unless told otherwise. Raises
    BundleError as `export_checkpoint` does.
    """
    if trunk not in UNTRAINED:
        raise BundleError(f"no network has the trunk {trunk}; there are {', '.join(UNTRAINED)}")
    return export_untrained_config(UNTRAINED[trunk](), out, precision=precision, measure_speed=measure_speed)


def export_untrained_config(
    config: DetectorConfig, out: Path, *, precision: Precision = "fp32", measure_speed: bool = False
) -> Path:
    """The same for any configuration; weights are random with seed 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DetectorNetwork(config)
    return _export(
        network,
        out,
        out.name,
        UNCALIBRATED,
        summary={},
        precision=precision,
        measure_speed=measure_speed,
        trained=False,
    )


def verify_bundle(path: Path, *, network: DetectorNetwork | None = None) -> dict[str, float]:
    """Check digests, graphs, signatures, metadata and behaviour of a bundle, trained or not.

    Of a reduced precision also that it is one, and that what was measured of it is within the limit.
    With the network that the bundle was made from also the agreement with PyTorch: at most 1e-4, or
    the precision's limit in the probabilities. Returns the differences that were measured. Raises
    BundleMissing or BundleCorrupt.
    """
    bundle = open_bundle(path, allow_untrained=True)
    precision = bundle.manifest.precision
    recorded(bundle.manifest)
    for graph in (bundle.encoder, bundle.temporal):
        check_graph(graph)
        check_stored(graph, precision)
    measured = selfcheck(bundle)
    if network is not None:
        measured |= {f"parity_{k}": v for k, v in _agreeing(network, path, precision).items()}
    return measured


def _export(
    network: DetectorNetwork,
    out: Path,
    bundle_id: str,
    calibration: Calibration,
    *,
    summary: dict[str, Any],
    precision: Precision,
    measure_speed: bool,
    trained: bool,
) -> Path:
    if out.exists():
        raise BundleError(f"{out} exists; a bundle is never written over another one")
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        config = network.config
        trace(network, part, metadata_of(bundle_id, config.crop, config.sampling))
        manifest = Manifest(
            id=bundle_id,
            trained=trained,
            architecture=config.model_dump(mode="json", exclude={"crop", "sampling"}),
            precision=precision,
            opset=OPSET,
            feature_size=config.feature_size,
            crop=config.crop,
            sampling=config.sampling,
            calibration=calibration,
            files={CARD: ""},
            parity=_agreeing(network, part, "fp32"),
            summary=summary,
        )
        manifest = _reduced(part, manifest)
        if measure_speed:
            manifest.summary["speed"] = speed(Bundle(part, manifest, ""))
        manifest.summary.update(
            recorded_golden(Bundle(part, manifest, ""), open_detector("yunet", threads=1))
        )
        manifest.files.update({name: sha256(part / name) for name in (ENCODER, TEMPORAL)})
        write_card(part, manifest)
        verify_bundle(part)
        part.chmod(0o755)
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return out


def _reduced(part: Path, manifest: Manifest) -> Manifest:
    """Store the graphs in the manifest's precision, and in the manifest how far that is from fp32.

    Where convolutions in int8 would cost more than the limit, they are stored in fp16 instead: an
    error of the first layers grows through all that follow, and the LSTM, which holds more weights,
    bears int8 well.
    """
    if manifest.precision == "fp32":
        return manifest
    bundle = Bundle(part, manifest, "")
    exact, original = answers(Engine(bundle)), bundle.encoder.read_bytes()
    store(bundle.temporal, manifest.precision)
    ways: dict[str, tuple[Precision, ...]] = {"fp16": ("fp16",), "int8": ("int8", "fp16")}
    for encoder in ways[manifest.precision]:
        bundle.encoder.write_bytes(original)
        store(bundle.encoder, encoder)
        reduced = answers(Engine(bundle))
        if difference(exact, reduced) <= LIMITS[manifest.precision]:
            break
    found = agreement(exact, reduced, manifest.precision, encoder=encoder)
    return manifest.model_copy(update={"summary": manifest.summary | {"precision": found.model_dump()}})


def _agreeing(network: DetectorNetwork, path: Path, precision: Precision) -> dict[str, float]:
    measured = parity(network, path)
    limit = PARITY_LIMIT if precision == "fp32" else LIMITS[precision]
    # Features have no scale of their own; what fewer bits cost is told in probabilities.
    judged = [v for k, v in measured.items() if precision == "fp32" or k != "features"]
    if not max(judged) <= limit:
        raise BundleCorrupt(f"{path} differs from PyTorch by more than {limit}: {measured}")
    return measured
