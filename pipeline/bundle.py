"""Model bundles: a directory with `manifest.json`, `encoder.onnx`, `temporal.onnx` and `MODEL_CARD.md`.

A bundle is the unit of release. Its manifest names each file with its SHA-256, so the same
identity never means different bytes; loading checks all of it and refuses anything else.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import BundleCorrupt, BundleMissing, BundleUntrained
from pipeline.spec import CropSpec, SamplingSpec

SCHEMA: Literal[1] = 1
ENCODER, TEMPORAL, CARD = "encoder.onnx", "temporal.onnx", "MODEL_CARD.md"
CLASSES = ("real", "fake")


class Thresholds(BaseModel):
    """Probabilities of `fake` between which the verdict is `uncertain`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    authentic_below: float = Field(ge=0, le=1)
    manipulated_above: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def ordered(self) -> "Thresholds":
        """The uncertain region may be empty, never negative."""
        if self.authentic_below > self.manipulated_above:
            raise ValueError("authentic_below is above manipulated_above")
        return self


class Calibration(BaseModel):
    """Platt scaling of the pooled logit, logit' = scale * logit + bias, and where to cut it.

    `data` says in words what it was fitted on; `id` is null for an uncalibrated bundle, and then
    scale 1 and bias 0 leave the network's own softmax. `codecs`, as FFmpeg names them, are those of the clips
    that it was fitted on: in others a score stands elsewhere, and no verdict is cut from it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str | None
    scale: float = Field(default=1.0, gt=0)
    bias: float = 0.0
    thresholds: Thresholds
    data: str
    codecs: tuple[str, ...] = ("h264",)


class Manifest(BaseModel):
    """Contents of manifest.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = SCHEMA
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    trained: bool
    architecture: dict[str, Any]
    precision: Literal["fp32", "fp16", "int8"]
    opset: int
    feature_size: int = Field(ge=1)
    classes: tuple[Literal["real"], Literal["fake"]] = CLASSES  # type: ignore[assignment]
    crop: CropSpec
    sampling: SamplingSpec
    calibration: Calibration
    files: dict[str, str]
    parity: dict[str, float]
    summary: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle on disk. digest: SHA-256 of its manifest, hence of all of its files."""

    path: Path
    manifest: Manifest
    digest: str

    @property
    def encoder(self) -> Path:
        """The per-sample graph."""
        return self.path / ENCODER

    @property
    def temporal(self) -> Path:
        """The per-sequence graph."""
        return self.path / TEMPORAL

    @property
    def card(self) -> str:
        """The model card as Markdown."""
        return (self.path / CARD).read_text(encoding="utf-8")


def sha256(path: Path) -> str:
    """`sha256:` and the hexadecimal digest of a file."""
    with path.open("rb") as f:
        return "sha256:" + hashlib.file_digest(f, "sha256").hexdigest()


def open_bundle(path: Path, *, allow_untrained: bool = False) -> Bundle:
    """Read and verify a bundle: schema, presence and digest of every file, nothing unlisted.

    Raises BundleMissing, BundleCorrupt or BundleUntrained.
    """
    at = path / "manifest.json"
    if not at.is_file():
        raise BundleMissing(f"no bundle at {path}: manifest.json not found")
    try:
        manifest = Manifest.model_validate_json(at.read_bytes())
    except ValidationError as e:
        raise BundleCorrupt(f"{at} is not a manifest of schema {SCHEMA}: {e}") from e
    for name in (ENCODER, TEMPORAL, CARD):
        if name not in manifest.files:
            raise BundleCorrupt(f"{at} does not list {name}")
    for name, expected in manifest.files.items():
        file = path / name
        if Path(name).name != name or not file.is_file():
            raise BundleCorrupt(f"{at} lists {name}, which is not a file of the bundle")
        if (found := sha256(file)) != expected:
            raise BundleCorrupt(f"{file} has digest {found}, its manifest says {expected}")
    if not manifest.trained and not allow_untrained:
        raise BundleUntrained(
            f"bundle {manifest.id} holds untrained weights; DETECTOR_ALLOW_UNTRAINED=true serves it"
        )
    return Bundle(path, manifest, sha256(at))


def bundles(models: Path) -> dict[str, Path]:
    """Directories of bundles by name, which is the bundle's id. Raises BundleMissing when there is none."""
    found = {at.parent.name: at.parent for at in sorted(models.glob("*/manifest.json"))}
    if not found:
        raise BundleMissing(f"no bundle in {models}: no directory there has a manifest.json")
    return found


def default_bundle(models: Path, wanted: str | None = None) -> Path:
    """The bundle that answers: `wanted`, or the only one, or the one that the file DEFAULT names.

    Raises BundleMissing when that is none or undecided.
    """
    found = bundles(models)
    at = models / "DEFAULT"
    if wanted is None and at.is_file():
        wanted = at.read_text(encoding="utf-8").strip()
    if wanted is None and len(found) == 1:
        (wanted,) = found
    if wanted is None:
        raise BundleMissing(
            f"{models} holds several bundles and no file DEFAULT: name one of {', '.join(found)}"
        )
    if wanted not in found:
        raise BundleMissing(f"no bundle {wanted} in {models}: there are {', '.join(found)}")
    return found[wanted]


def default_models() -> Path:
    """The directory of embedded bundles, beside this package in a checkout as in a wheel."""
    return Path(__file__).resolve().parent.parent / "models"
