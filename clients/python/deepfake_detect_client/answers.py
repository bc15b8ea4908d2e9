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
    and yaw from 0 to 1; mean confidence of the face detector; quantiser of the face's blocks, 0 to 51 on the
    scale of H.264, null where the decoder tells none; what is wrong with it, as codes."""

    size_px: float
    sharpness: float
    brightness: float
    yaw: float
    detection: float
    quantiser: float | None
    remarks: list[str]


Box = tuple[float, float, float, float]
"""x, y, width and height in pixels of the upright picture."""


class FaceAt(_Part):
    """Where a face is at one time."""

    time_s: float
    box: Box


class FaceLook(FaceAt):
    """One look at a face, and how manipulated it looks there."""

    fake: float


class Faithfulness(_Part):
    """Whether a map names what the score rests on: by how much the log-odds of the look fall when the cells
    that it names are taken away, and on average when as many are taken at random. area: their share."""

    deletion: float
    random: float
    area: float


class ExplainedFrame(FaceLook):
    """Where on the face one look's evidence lies: `grid` has rows from the top left and covers `region`,
    `overlay` is a PNG as a data URI. Both are None where the map is withheld, and `withheld` says why."""

    region: Box
    grid: list[list[float]] | None
    faithfulness: Faithfulness | None
    overlay: str | None
    withheld: str | None


class Explanation(_Part):
    """Maps of the most suspicious looks at a face, the most suspicious first."""

    method: str
    withheld: str | None
    frames: list[ExplainedFrame]


class Thresholds(_Part):
    """Between these two probabilities of `fake` the verdict is `uncertain`."""

    authentic_below: float
    manipulated_above: float


class Face(_Part):
    """One face followed through the clip. `track` is its number, by which all else names it: from 0 in order
    of appearance, with gaps where faces were left out. `box` is its median, `boxes` its way, with the
    timeline; `evidence` are the looks that carried its score, the most suspicious first. `thresholds` are the
    model's, moved apart by doubts about this face and about how much of the clip was seen."""

    track: int
    usable: bool
    probabilities: Probabilities | None
    thresholds: Thresholds
    first_s: float
    last_s: float
    frames_used: int
    box: Box
    boxes: list[FaceAt]
    quality: FaceQuality
    timeline: list[Moment]
    segments: list[Moment]
    evidence: list[FaceLook]
    explanation: Explanation | None


class Provenance(_Part):
    """What the file says of its origin. c2pa: whether it carries a C2PA manifest; valid: None without one, or
    where `unchecked` says why it was not looked into. trusted: whether its signer comes from whom the service
    trusts; None where that was not asked. signer, generator, sources: what the manifest says of who made the
    file, by what and from what; codes: what failed."""

    c2pa: str
    valid: bool | None = None
    trusted: bool | None = None
    signer: str | None = None
    generator: str | None = None
    sources: list[str] = []
    codes: list[str] = []
    unchecked: str | None = None


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
    provenance: Provenance


class Stretch(_Part):
    """A stretch of the clip, in seconds."""

    start_s: float
    end_s: float


class Coverage(_Part):
    """How much of the clip was looked at. fraction: 0 to 1."""

    seconds_looked_at: float
    fraction: float
    not_looked_at: list[Stretch]
    truncated: bool
    why: str | None


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
    explain: float = 0.0
    total: float = 0.0


class Answer(_Part):
    """Verdict on one clip. `probabilities` is None where the verdict is `not_applicable`; `receipt` is the
    service's signature (a compact JWS), where it signs."""

    id: str
    verdict: Verdict
    probabilities: Probabilities | None
    summary: str
    reasons: list[str]
    faces: list[Face]
    media: Media
    coverage: Coverage
    model: Model
    timing_ms: Timing = Timing()
    receipt: str | None = None


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
