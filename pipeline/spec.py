"""What a model wants to see: the crop and sampling specifications of a bundle."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class CropSpec(BaseModel):
    """How one sample, uint8 [frames, side, side, 3], is cut from a burst of consecutive frames.

    `aligned`: five-point similarity transform to the 112-template, widened by `margin`; one
    sample a frame, so `frames` is 1. `native`: square windows of untouched pixels, fixed in the
    image over the burst, laid on a `grid` x `grid` over the middle of the face box.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["aligned", "native"]
    side: int = Field(ge=16, le=512)
    frames: int = Field(default=1, ge=1, le=16)
    colour: Literal["rgb", "yuv"] = "rgb"
    margin: float = Field(default=1.3, ge=0.5, le=2.0)
    grid: int = Field(default=1, ge=1, le=6)

    @property
    def samples_per_burst(self) -> int:
        """Samples cut from one burst of one face (native); an aligned burst gives one a frame."""
        return self.grid * self.grid if self.kind == "native" else 1


class SamplingSpec(BaseModel):
    """Which frames of a clip are looked at: `bursts` runs of `burst_frames` consecutive frames.

    `even` spreads the bursts over the clip. `head` takes them back to back from the start and goes on
    past those without a face until one face was in `bursts` of them (the paper's first 150 face
    frames). Faces are detected on every `detect_every`-th frame of a burst.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bursts: int = Field(ge=1, le=512)
    burst_frames: int = Field(ge=1, le=16)
    spread: Literal["even", "head"] = "even"
    detect_every: int = Field(default=4, ge=1, le=16)
