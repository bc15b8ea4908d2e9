"""The table of recipe keys in docs/training.md, made from the recipe itself."""

from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from training.recipe import Recipe

NETWORK = {
    "trunk": "`resnext50_32x4d`, the paper's, or `native`, a small CNN over residuals of native windows.",
    "crop": "What one sample is; prepared shards must have been cut so.",
    "crop.kind": "`aligned` to the eyes, nose and mouth, or `native` windows of untouched pixels.",
    "crop.side": "Pixels of a sample's side.",
    "crop.frames": "Consecutive frames of a native window.",
    "crop.colour": "`rgb`, or `yuv` as decoded.",
    "crop.margin": "How far a crop reaches: of the 112-pixel template (aligned), of the face width (native).",
    "crop.grid": "Native windows along each side of the face.",
    "sampling": "Which frames of a clip are looked at, in training as in service.",
    "sampling.bursts": "Runs of consecutive frames.",
    "sampling.burst_frames": "Frames of a run.",
    "sampling.spread": "`even`: over the clip; `head`: one after the other from its start.",
    "sampling.detect_every": "Frames of a run from one face detection to the next.",
    "feature_size": "Features of a sample.",
    "hidden": "Size of the LSTM's state.",
    "dropout": "Between LSTM and classifier.",
    "width": "Channels of the first convolutions of a native trunk, or of the fine stem.",
    "members": "Native trunks side by side.",
    "stem": "First layers of the ResNeXt: `imagenet`, or `fine`, which shrinks less.",
    "filters": "Of the residuals that a burst is seen through: `fixed`, or `constrained`, learnt.",
    "evidence": "Which of these residuals there are.",
}
"""What the keys of a network are, which belong to bundles as much as to recipes."""


def recipe_table() -> str:
    """One row for each key of a recipe, Markdown. Raises KeyError for a key that nobody described."""
    rows = ["| Key | Default | What it is |", "|---|---|---|", *_rows(Recipe, "")]
    return "\n".join(rows)


def _rows(part: type[BaseModel], prefix: str) -> list[str]:
    rows = []
    for name, field in part.model_fields.items():
        key = prefix + name
        rows.append(f"| `{key}` | {_default(field)} | {_description(key, field)} |")
        if (inner := _inner(field.annotation)) is not None:
            rows += _rows(inner, f"{key}.")
    return rows


def _description(key: str, field: FieldInfo) -> str:
    text = field.description or NETWORK[key.removeprefix("network.")]
    return " ".join(text.split()).replace("|", "\\|")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default is None or isinstance(field.default, BaseModel):
        return ""
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _inner(annotation: Any) -> type[BaseModel] | None:
    """The table that a key holds, if it holds one."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None
