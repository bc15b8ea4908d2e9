"""Asks a deepfake-detect service whether the faces in a clip were manipulated."""

from deepfake_detect_client.answers import (
    Answer,
    Coverage,
    Explanation,
    Face,
    FaceQuality,
    Media,
    Model,
    ModelCard,
    ModelList,
    ModelSummary,
    Moment,
    Probabilities,
    Problem,
    Progress,
    Running,
    Thresholds,
    Timing,
    Verdict,
)
from deepfake_detect_client.async_client import AsyncClient
from deepfake_detect_client.calls import Options
from deepfake_detect_client.client import Client
from deepfake_detect_client.errors import (
    BadRequest,
    ClientError,
    ClipRefused,
    ClipTooLarge,
    DeadlineExceeded,
    KeyRefused,
    NotFound,
    ProblemError,
    RateLimited,
    TimedOut,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
    WrongDigest,
)
from deepfake_detect_client.events import Event
from deepfake_detect_client.retry import Retries
from deepfake_detect_client.upload import OnProgress, Source

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "AsyncClient",
    "BadRequest",
    "Client",
    "ClientError",
    "ClipRefused",
    "ClipTooLarge",
    "Coverage",
    "DeadlineExceeded",
    "Event",
    "Explanation",
    "Face",
    "FaceQuality",
    "KeyRefused",
    "Media",
    "Model",
    "ModelCard",
    "ModelList",
    "ModelSummary",
    "Moment",
    "NotFound",
    "OnProgress",
    "Options",
    "Probabilities",
    "Problem",
    "ProblemError",
    "Progress",
    "RateLimited",
    "Retries",
    "Running",
    "Source",
    "Thresholds",
    "TimedOut",
    "Timing",
    "Unavailable",
    "UnexpectedAnswer",
    "Unreachable",
    "Verdict",
    "WrongDigest",
]
