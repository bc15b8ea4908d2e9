"""What a service answers. Fields that a newer service adds are kept in `model_extra`, never refused."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Verdict = Literal["authentic", "manipulated", "uncertain", "not_applicable"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())


class Probabilities(_Part):
    """Calibrated probabilities of the two classes; they sum to 1."""

    real: float
    fake: float


class Moment(_Part):
    """A stretch of the timeline, in seconds, and the probability that it is fake."""

    start_s: float
    end_s: float
    fake: float


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

    method: str
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
    """Facts of the clip."""

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


class Coverage(_Part):
    """How much of the clip was looked at. fraction: 0 to 1."""

    seconds_looked_at: float
    fraction: float
    truncated: bool
    why: str | None


class Thresholds(_Part):
    """Between these two probabilities of `fake` the verdict is `uncertain`."""

    authentic_below: float
    manipulated_above: float


class Model(_Part):
    """The bundle that judged."""

    id: str
    digest: str
    precision: str
    calibration: str | None
    thresholds: Thresholds
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
    """Verdict on one clip. `probabilities` is None where the verdict is `not_applicable`."""

    id: str
    verdict: Verdict
    probabilities: Probabilities | None
    summary: str
    reasons: list[str]
    faces: list[Face]
    media: Media
    coverage: Coverage
    model: Model
    timing_ms: Timing


class Progress(_Part):
    """How far the clip was looked at: bursts of frames, of those that are planned."""

    bursts: int
    planned: int
    seconds_looked_at: float
    faces: int


class Running(_Part):
    """The verdict that what was seen so far would lead to."""

    verdict: Verdict
    probabilities: Probabilities | None
    seconds_looked_at: float


class ModelSummary(_Part):
    """A bundle that is served. `provider` is None while it is being loaded."""

    id: str
    digest: str
    trained: bool
    precision: str
    calibration: str | None
    provider: str | None


class ModelList(_Part):
    """All bundles, and which one answers when none is named."""

    default: str
    models: list[ModelSummary]


class ModelCard(ModelSummary):
    """One bundle with its card in Markdown and its manifest."""

    card: str
    manifest: dict[str, Any]


class Problem(_Part):
    """The body of an error (RFC 9457). `request_id` is also in the service's log."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str | None = None
