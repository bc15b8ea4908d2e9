"""A checkpoint becomes a verified bundle, and everything that a bundle promises is checked."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from export.graphs import OPSET, PARITY_LIMIT, check_graph, parity, trace
from pipeline.bundle import (
    CARD,
    ENCODER,
    TEMPORAL,
    Calibration,
    Manifest,
    Thresholds,
    open_bundle,
    sha256,
)
from pipeline.errors import BundleCorrupt, BundleError
from pipeline.selfcheck import metadata_of, selfcheck
from training.card import write_card
from training.checkpoint import load_checkpoint
from training.model import DetectorConfig, DetectorNetwork, native_config, paper_config

UNTRAINED = {"resnext50_32x4d": paper_config, "native": native_config}
UNCALIBRATED = Calibration(
    id=None,
    thresholds=Thresholds(authentic_below=0.3, manipulated_above=0.7),
    data="not calibrated: the thresholds are defaults, not measured",
)


def export_checkpoint(checkpoint: Path, out: Path, *, bundle_id: str | None = None) -> Path:
    """Write the bundle of a trained checkpoint to `out`, verify it and return `out`.

    bundle_id: the name of `out` unless given. The calibration is the one that the checkpoint
    carries. `out` must not exist; when anything fails nothing is left there. Raises CheckpointError,
    BundleError or BundleCorrupt.
    """
    network, training = load_checkpoint(checkpoint)
    calibration = (
        Calibration.model_validate(training["calibration"]) if "calibration" in training else UNCALIBRATED
    )
    summary = {"training": training.get("summary", {})}
    return _export(network, out, bundle_id or out.name, calibration, summary, trained=True)


def export_untrained(trunk: str, out: Path) -> Path:
    """Write the bundle of an untrained network, `resnext50_32x4d` (the paper's own) or `native`.

    Its manifest says `trained: false`, so a service refuses it unless told otherwise. Raises
    BundleError as `export_checkpoint` does.
    """
    if trunk not in UNTRAINED:
        raise BundleError(f"no network has the trunk {trunk}; there are {', '.join(UNTRAINED)}")
    return export_untrained_config(UNTRAINED[trunk](), out)


def export_untrained_config(config: DetectorConfig, out: Path) -> Path:
    """The same for any configuration; weights are random with seed 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DetectorNetwork(config)
    return _export(network, out, out.name, UNCALIBRATED, {}, trained=False)


def verify_bundle(path: Path, *, network: DetectorNetwork | None = None) -> dict[str, float]:
    """Check digests, graphs, signatures, metadata and behaviour of a bundle, trained or not.

    With the network that it was made from also the agreement with PyTorch, at most 1e-4. Returns
    the differences that were measured. Raises BundleMissing or BundleCorrupt.
    """
    bundle = open_bundle(path, allow_untrained=True)
    for graph in (bundle.encoder, bundle.temporal):
        check_graph(graph)
    measured = selfcheck(bundle)
    if network is not None:
        measured |= {f"parity_{k}": v for k, v in _agreeing(network, path).items()}
    return measured


def _export(
    network: DetectorNetwork,
    out: Path,
    bundle_id: str,
    calibration: Calibration,
    summary: dict[str, Any],
    *,
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
            precision="fp32",
            opset=OPSET,
            feature_size=config.feature_size,
            crop=config.crop,
            sampling=config.sampling,
            calibration=calibration,
            files={name: sha256(part / name) for name in (ENCODER, TEMPORAL)} | {CARD: ""},
            parity=_agreeing(network, part),
            summary=summary,
        )
        write_card(part, manifest)
        verify_bundle(part)
        part.chmod(0o755)
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return out


def _agreeing(network: DetectorNetwork, path: Path) -> dict[str, float]:
    measured = parity(network, path)
    if not max(measured.values()) <= PARITY_LIMIT:
        raise BundleCorrupt(f"{path} differs from PyTorch by more than {PARITY_LIMIT}: {measured}")
    return measured
