"""The answer to a clip, as the service sends it and the command line prints it."""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.c2pa import C2pa
from pipeline.credentials import Unchecked

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

    fake: float = Field(ge=0, le=1)


class Faithfulness(_Part):
    """Whether a map names what the score rests on: by how much the log-odds of the look fall when the cells
    that it names are taken away, and on average when as many are taken at random. area: their share."""

    deletion: float
    random: float
    area: float = Field(gt=0, lt=1)


class ExplainedFrame(FaceLook):
    """Where on the face one look's evidence lies.

    region: what the grid covers, in pixels of the upright picture; grid: rows from the top left, by how much
    each cell moves the calibrated log-odds of this look's `fake`, positive where it speaks for `fake`;
    overlay: PNG of the region with the map over it, as a data URI. Where the map is withheld both are null,
    and `withheld` says why.
    """

    region: Box
    grid: list[list[float]] | None
    faithfulness: Faithfulness | None
    overlay: str | None
    withheld: str | None


class Explanation(_Part):
    """Maps of the most suspicious looks at a face, the most suspicious first; `withheld` says why there is
    none."""

    method: Literal["window-ablation", "occlusion"]
    withheld: str | None
    frames: list[ExplainedFrame]


class ThresholdsOf(_Part):
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
    thresholds: ThresholdsOf
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
    """What the file says of its origin; none of it touches the verdict. c2pa: whether it carries a C2PA
    manifest. The rest is about that manifest. valid: it is well-formed and signed, and the media are those
    that were signed (padding and the type box of an MP4 are not covered); null without one, or where
    `unchecked` says why it was not looked into. trusted: the signer's certificate leads to an anchor of this
    service; null without anchors, or where not valid. signer, generator, sources: what the manifest says of
    who made the file, by what and from what, which anybody can write where `trusted` is not true. codes: what
    failed, as C2PA names it."""

    c2pa: C2pa
    valid: bool | None = None
    trusted: bool | None = None
    signer: str | None = None
    generator: str | None = None
    sources: list[str] = []
    codes: list[str] = []
    unchecked: Unchecked | None = None


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
    provenance: Provenance


class Stretch(_Part):
    """A stretch of the clip."""

    start_s: float
    end_s: float


class CoverageOf(_Part):
    """How much of the clip was looked at, and which stretches were not."""

    seconds_looked_at: float
    fraction: float = Field(ge=0, le=1)
    not_looked_at: list[Stretch]
    truncated: bool
    why: str | None


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
    explain: float = 0.0
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
    timing_ms: Timing = Timing()
    receipt: str | None = None

    def timed(self, milliseconds: Mapping[str, float]) -> "Answer":
        """The same with the milliseconds of each stage; those of others are left out."""
        known = {k: round(v, 1) for k, v in milliseconds.items() if k in Timing.model_fields}
        return self.model_copy(update={"timing_ms": Timing(**known)})
