"""Training recipes: TOML files whose every key is known.

A recipe is taught in one of two ways. With a table `clips`, by labelled clips that `deepfake-detect
prepare` cut into shards; with a table `pairs`, by native windows of real clips and altered copies of
them, cut from a corpus with clips.csv.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import DetectError
from training.model import DetectorConfig

Share = Annotated[float, Field(ge=0, le=1)]


class RecipeError(DetectError):
    """A recipe can not be read or holds something that no recipe has."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Start(_Part):
    """Weights to start from; without this table they are random."""

    format: Literal["checkpoint", "bundle", "torchvision", "common"]
    """`checkpoint`: of this project, the whole network; `bundle`: an exported one, whose normalisations must
    stay frozen; `torchvision`: its resnext50_32x4d, the trunk alone; `common`: the common public
    implementation of the paper, the whole network."""
    checkpoint: Path | None = None
    """The file, or the directory of the bundle; `--start` on the command line goes before it."""


class Augment(_Part):
    """Shares of the clips that each change befalls, with the same parameters for a whole clip. Everything
    is off unless it is named."""

    flip: Share = 0.0
    """Mirrored left to right."""
    affine: Share = 0.0
    """Turned by up to 6 degrees, sheared, scaled and moved a little."""
    box: Share = 0.0
    """Cut a little tighter at each side, as by another face box."""
    colour: Share = 0.0
    """Brightness, contrast, saturation and gamma."""
    blur: Share = 0.0
    """Gaussian blur, sigma 0.3 to 1.5 pixels."""
    resize: Share = 0.0
    """Shrunk and enlarged again."""
    least_scale: float = Field(default=0.5, gt=0.1, le=1)
    """Smallest scale that `resize` shrinks to."""
    noise: Share = 0.0
    """White noise, sigma 1 to 6 of 255."""
    retime: Share = 0.0
    """Some frames dropped, as many others shown twice."""
    jpeg: Share = 0.0
    """Each frame through JPEG at one quality."""
    jpeg_quality: tuple[int, int] = (40, 100)
    """Range of that quality."""
    h264: Share = 0.0
    """The clip through H.264 at one constant rate factor."""
    crf: tuple[int, int] = (18, 36)
    """Range of that factor."""

    @model_validator(mode="after")
    def ranges(self) -> "Augment":
        """Ranges rise and stay within what the codecs know."""
        for name, (low, high), most in (("jpeg_quality", self.jpeg_quality, 100), ("crf", self.crf, 51)):
            if not 0 <= low <= high <= most:
                raise ValueError(f"{name} is no range within 0 and {most}: {low}, {high}")
        return self


class Clips(_Part):
    """Labelled clips in prepared shards. A sequence is what the service would look at: the network's own
    sampling of the frames of a clip."""

    pseudofakes: Share = 0.0
    """Share of a batch's sequences that are a real clip or the fake that was made of it; both are in the
    same batch and go through the same augmentation. The others are labelled clips as they are."""
    kinds: tuple[str, ...] = ()
    """Kinds of those fakes; all that can be made when empty."""
    autoencoders: Path | None = None
    """Folder that `deepfake-detect autoencoders` wrote; those that redraw faces (`reconstructed`,
    `smoothed_latents`, `noisy_latents`, `redrawn_mouth`) need it."""
    balance: bool = False
    """Draw as many real clips as fakes, whatever the data hold."""
    augment: Augment = Augment()
    """What befalls each clip."""


class Footage(_Part):
    """What is cut from each real clip before anything is altered (with `pairs`)."""

    bursts: int = Field(default=8, ge=1)
    """Bursts of consecutive frames, spread evenly over the clip."""
    burst_frames: int = Field(default=8, ge=2)
    """Frames of each, so that a training burst can start at several of them."""
    region: int = Field(default=192, ge=32)
    """Largest side in pixels of the square around the face."""


class Pairs(_Part):
    """How a real sequence and its altered copy are made."""

    bursts: int = Field(default=2, ge=1)
    """Bursts of a sequence."""
    windows: int = Field(default=3, ge=1)
    """Windows of each burst."""
    region: int = Field(default=96, ge=16)
    """Side in pixels of what is altered and encoded as one."""
    rescaled: Share = 0.4
    """Share of the sequences that are shrunk first."""
    least_scale: float = Field(default=0.5, gt=0, le=1)
    """Smallest scale that they are shrunk to."""
    encoded: Share = 0.85
    """Share that is H.264-encoded."""
    crf: tuple[int, int] = (18, 32)
    """Range of its constant rate factor."""
    validation: float = Field(default=0.0, ge=0, lt=1)
    """Share of the origins that are held out to validate on."""


class Optimiser(_Part):
    """How the weights are moved. Each key that is left out has the value that the shipped model was made
    with."""

    method: Literal["adam", "adamw"] = "adamw"
    """`adam` adds the weight decay to the gradient (L2), `adamw` takes it off the weights."""
    epochs: int = Field(default=0, ge=0)
    """Times that each clip is seen (with `clips`). Either this or `steps`."""
    steps: int = Field(default=0, ge=0)
    """Steps in all."""
    batch: int = Field(default=8, ge=1)
    """Sequences in a step, over all processes; with `pairs`, pairs of them."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """The highest one."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """Of the learning rate; `cosine` falls to a fiftieth."""
    warm_up: int = Field(default=50, ge=1)
    """Steps in which the learning rate rises; 1: none."""
    weight_decay: float = Field(default=0.05, ge=0)
    """Its strength."""
    label_smoothing: float = Field(default=0.05, ge=0, lt=1)
    """Share of a label that is spread over both classes."""
    average: float = Field(default=0.99, ge=0, lt=1)
    """Decay of the moving average of the weights (EMA), which is what is kept; 0: the weights themselves."""
    step_loss: float = Field(default=0.5, ge=0)
    """Weight of an auxiliary loss of each step of a sequence, beside the loss of the whole; 0: none."""
    sample_loss: float = Field(default=1.0, ge=0)
    """Weight of an auxiliary classifier of each frame or window, right behind the trunk; 0: none."""
    freeze_trunk: bool = False
    """Leave the trunk as it is and train LSTM and classifier alone."""
    freeze_norms: bool = False
    """Leave the statistics and weights of batch normalisation as they are."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """Of the trunk's convolutions; weights, pooling and the head stay in fp32."""
    keep_every: int = Field(default=200, ge=1)
    """Steps between two checkpoints, each with a line of metrics."""
    validate_every: int = Field(default=0, ge=0)
    """Steps between two validations; 0: once an epoch, or with every checkpoint where steps are counted."""

    @model_validator(mode="after")
    def budget(self) -> "Optimiser":
        """The budget is given once."""
        if bool(self.epochs) == bool(self.steps):
            raise ValueError("give either epochs or steps")
        return self


class Stopping(_Part):
    """Stop early and keep the best weights; without this table the last ones are kept."""

    figure: Literal["loss", "auc"] = "loss"
    """What is watched on the validation clips."""
    patience: int = Field(default=5, ge=1)
    """Validations without a better figure after which training stops."""


class Operating(_Part):
    """Where the thresholds are put, on clips that the scoring network never saw (with `pairs`; a bundle
    that clips have taught is calibrated by `deepfake-detect calibrate`)."""

    folds: int = Field(default=2, ge=2)
    """Networks for out-of-fold scores."""
    false_positives: float = Field(default=0.05, gt=0, lt=1)
    """Share of real clips that may be called manipulated."""
    false_negatives: float = Field(default=0.2, gt=0, lt=1)
    """Share of fakes that may be called authentic."""


class Recipe(_Part):
    """One training, whole."""

    seed: int = Field(default=0, ge=0)
    """Of weights, order and chance."""
    network: DetectorConfig
    """What is trained, and what it is fed."""
    start: Start | None = None
    """Where its weights come from."""
    clips: Clips | None = None
    """Taught by labelled clips."""
    footage: Footage = Footage()
    """What pairs are made of."""
    pairs: Pairs | None = None
    """Taught by pairs."""
    optimiser: Optimiser
    """How it learns."""
    stopping: Stopping | None = None
    """When it stops before its time."""
    operating: Operating | None = None
    """Where its thresholds lie."""

    @model_validator(mode="after")
    def consistent(self) -> "Recipe":
        """One teacher, and a network that can be taught by it."""
        crop = self.network.crop
        if (self.clips is None) == (self.pairs is None):
            raise ValueError("a recipe has either a table clips or a table pairs")
        if self.start is not None and self.start.format == "bundle" and not self.optimiser.freeze_norms:
            raise ValueError("a bundle's normalisations are folded away: give freeze_norms = true")
        if self.clips is not None:
            if crop.kind != "aligned" or crop.colour != "rgb":
                raise ValueError("clips teach networks of aligned rgb crops")
            if self.operating is not None:
                raise ValueError("operating goes with pairs; calibrate the bundle that clips have taught")
            if self.clips.pseudofakes and not pairs_in(self.clips, self.optimiser.batch):
                raise ValueError("the batch has no room for a pair of a clip and its pseudo-fake")
        elif crop.kind != "native" or crop.colour != "yuv":
            raise ValueError("pairs teach networks of native yuv windows")
        elif self.optimiser.epochs:
            raise ValueError("pairs are made without end: give steps, not epochs")
        return self


def pairs_in(clips: Clips, batch: int) -> int:
    """How many of a batch's sequences are, two by two, a real clip and a fake made of it."""
    return round(batch * clips.pseudofakes / 2)


def read_recipe(path: Path, *, start: Path | None = None) -> Recipe:
    """The recipe at a path. start: file or bundle to start from, instead of the recipe's.

    Raises RecipeError with every key that is unknown, missing or out of range, and when the recipe
    starts from weights that nobody named.
    """
    try:
        recipe = Recipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as e:
        raise RecipeError(f"{path} can not be read: {e}") from e
    except (tomllib.TOMLDecodeError, ValidationError) as e:
        raise RecipeError(f"{path} is not a recipe: {e}") from e
    if start is not None:
        if recipe.start is None:
            raise RecipeError(f"{path} has no table start: it says how the weights of {start} are to be read")
        recipe = recipe.model_copy(update={"start": recipe.start.model_copy(update={"checkpoint": start})})
    if recipe.start is not None and recipe.start.checkpoint is None:
        raise RecipeError(f"{path} starts from a {recipe.start.format}: name it with --start")
    return recipe
