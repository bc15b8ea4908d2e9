"""Training recipes: TOML files whose every key is known."""

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import DetectError
from training.model import DetectorConfig


class RecipeError(DetectError):
    """A recipe can not be read or holds something that no recipe has."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Footage(_Part):
    """What is cut from each training clip before anything is altered.

    bursts: how many bursts, spread evenly over the clip; burst_frames: frames of each, so that a
    training burst can start at several of them; region: largest side in pixels of the square
    around the face.
    """

    bursts: int = Field(default=8, ge=1)
    burst_frames: int = Field(default=8, ge=2)
    region: int = Field(default=192, ge=32)


class Pairs(_Part):
    """How a real sequence and its altered copy are made.

    bursts, windows: bursts of a sequence and windows of each burst; region: side in pixels of what
    is altered and encoded as one; rescaled: share of sequences that are shrunk first, by least_scale
    at most; encoded: share that is H.264-encoded; crf: range of its constant rate factor.
    """

    bursts: int = Field(default=2, ge=1)
    windows: int = Field(default=3, ge=1)
    region: int = Field(default=96, ge=16)
    rescaled: float = Field(default=0.4, ge=0, le=1)
    least_scale: float = Field(default=0.5, gt=0, le=1)
    encoded: float = Field(default=0.85, ge=0, le=1)
    crf: tuple[int, int] = (18, 32)


class Optimiser(_Part):
    """AdamW with linear warm-up and cosine decay; weights are averaged (EMA).

    steps: the whole budget; batch: pairs in a step; step_loss and sample_loss: weights of the losses
    of each step of a sequence and of an auxiliary classifier right behind the trunk, beside the loss
    of the whole sequence; keep_every: steps between checkpoints; precision: of
    the trunk's convolutions, while weights, pooling and the head stay in fp32.
    """

    steps: int = Field(ge=1)
    batch: int = Field(default=8, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    warm_up: int = Field(default=50, ge=1)
    label_smoothing: float = Field(default=0.05, ge=0, lt=1)
    average: float = Field(default=0.99, ge=0, lt=1)
    step_loss: float = Field(default=0.5, ge=0)
    sample_loss: float = Field(default=1.0, ge=0)
    keep_every: int = Field(default=200, ge=1)
    precision: Literal["fp32", "bf16"] = "bf16"


class Operating(_Part):
    """Where the thresholds are put, on clips that the scoring network never saw.

    folds: networks for out-of-fold scores; false_positives: share of real clips that may be called
    manipulated; false_negatives: share of altered clips that may be called authentic.
    """

    folds: int = Field(default=2, ge=2)
    false_positives: float = Field(default=0.05, gt=0, lt=1)
    false_negatives: float = Field(default=0.2, gt=0, lt=1)


class Recipe(_Part):
    """One training, whole. seed: of weights, order and alterations."""

    seed: int = Field(default=0, ge=0)
    network: DetectorConfig
    footage: Footage = Footage()
    pairs: Pairs = Pairs()
    optimiser: Optimiser
    operating: Operating = Operating()


def read_recipe(path: Path) -> Recipe:
    """The recipe at a path. Raises RecipeError with every key that is unknown, missing or out of range."""
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as e:
        raise RecipeError(f"{path} can not be read: {e}") from e
    except (tomllib.TOMLDecodeError, ValidationError) as e:
        raise RecipeError(f"{path} is not a recipe: {e}") from e
