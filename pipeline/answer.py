"""The answer to a clip, as the service sends it and the command line prints it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Verdict = Literal["authentic", "manipulated", "uncertain", "not_applicable"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Probabilities(_Part):
    """Calibrated probabilities of the two classes; they sum to 1."""

    real: float = Field(ge=0, le=1)
    fake: float = Field(ge=0, le=1)


class Moment(_Part):
    """A stretch of the timeline and how manipulated it looks."""

    start_s: float
    end_s: float
    fake: float = Field(ge=0, le=1)


class FaceQuality(_Part):
    """Medians over the track: box side in source pixels; sharpness (variance of the Laplacian); brightness
    and yaw from 0 to 1; mean confidence of the face detector; what is wrong with it, as codes."""

    size_px: float
    sharpness: float
    brightness: float
    yaw: float
    detection: float
    remarks: list[str]


class Explanation(_Part):
    """Where on the face the evidence lies: mean probability of `fake` of each cell, rows from the top left.

    `extent` is the part of the face box that the grid covers, as x, y, width and height in units of the box.
    """

    method: Literal["window-probabilities"]
    grid: list[list[float]]
    extent: tuple[float, float, float, float]


class Face(_Part):
    """One face followed through the clip. `box` is its median, x, y, width and height in upright pixels."""

    track: int
    usable: bool
    probabilities: Probabilities | None
    first_s: float
    last_s: float
    frames_used: int
    box: tuple[float, float, float, float]
    quality: FaceQuality
    timeline: list[Moment]
    segments: list[Moment]
    explanation: Explanation | None


class Media(_Part):
    """Facts of the uploaded clip."""

    sha256: str
    bytes: int
    container: str
    codec: str
    width: int
    height: int
    duration_s: float
    frame_rate: float
    frames_decoded: int
    frames_used: int


class CoverageOf(_Part):
    """How much of the clip was looked at."""

    seconds_looked_at: float
    fraction: float = Field(ge=0, le=1)
    truncated: bool
    why: str | None


class ThresholdsOf(_Part):
    """Between these two probabilities of `fake` the verdict is `uncertain`."""

    authentic_below: float
    manipulated_above: float


class Model(_Part):
    """The bundle that judged."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    id: str
    digest: str
    precision: str
    calibration: str | None
    thresholds: ThresholdsOf
    trained: bool


class Timing(_Part):
    """Milliseconds spent in each stage; they may overlap."""

    queue: float = 0.0
    decode: float = 0.0
    detect: float = 0.0
    encode: float = 0.0
    temporal: float = 0.0
    total: float = 0.0


class Answer(_Part):
    """Verdict on one clip: a pure function of its bytes, the bundle and the settings, but for `timing_ms` and
    `receipt`, which tells when it was signed; docs/receipts.md says what it proves."""

    id: str
    verdict: Verdict
    probabilities: Probabilities | None
    summary: str
    reasons: list[str]
    faces: list[Face]
    media: Media
    coverage: CoverageOf
    model: Model
    timing_ms: Timing
    receipt: str | None = None
