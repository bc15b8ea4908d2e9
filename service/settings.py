"""Settings of the service, read from DETECTOR_* environment variables."""

import difflib
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pipeline.bundle import default_models
from pipeline.runtime import usable_cores
from service.anchors import read_anchors
from service.keys import read_keys
from service.sandbox import Sandbox

PREFIX = "DETECTOR_"
MIB = 1024 * 1024


class SettingsError(Exception):
    """A setting is unknown or has a value that can not be used. The message is one line."""


class Settings(BaseSettings):
    """Everything an operator can set. Durations are seconds, sizes are bytes."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", allow_inf_nan=False)

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    api_keys_file: Path | None = Field(
        default=None,
        description="File of the keys that open `/v1`, a line of `deepfake-detect key` each; a change is "
        "seen within seconds.",
        json_schema_extra={"default_in_words": "none: `/v1` is open to all"},
    )
    signing_key_file: Path | None = Field(
        default=None,
        description="File of the Ed25519 keys, in PEM or as JWK, the first of which signs answers; all are "
        "published. See [receipts](docs/receipts.md).",
        json_schema_extra={"default_in_words": "none: answers are not signed"},
    )
    docs: bool = Field(default=True, description="Serve `/docs` and `/openapi.json`.")
    page: bool = Field(default=True, description="Serve the web page at `/`.")
    models_dir: Path = Field(
        default_factory=default_models,
        description="Directory of bundles, one subdirectory each; all of them are served.",
        json_schema_extra={"default_in_words": "the embedded bundles"},
    )
    model: str | None = Field(
        default=None,
        description="Bundle that answers requests which name none. Needed where the directory holds "
        "several and has no file `DEFAULT` with an id in it.",
        json_schema_extra={"default_in_words": "the only one, or as the file `DEFAULT` says"},
    )
    allow_untrained: bool = Field(default=False, description="Serve bundles whose weights are random.")
    face_detector: Literal["yunet", "insightface"] = Field(
        default="yunet", description="Face detector: `yunet` (embedded) or `insightface`."
    )
    face_model: Path | None = Field(
        default=None,
        description="File or pack of the face detector; required for `insightface`.",
        json_schema_extra={"default_in_words": "the embedded one"},
    )
    accept_insightface_license: bool = Field(
        default=False,
        description="States that the terms of InsightFace's weights (non-commercial research) are met.",
    )
    provider: Literal["cpu", "prefer", "require"] = Field(
        default="prefer",
        description="`cpu`; `prefer` takes CUDA where it works; `require` refuses to start without it.",
    )
    threads: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="Threads on the CPU: of a run of the temporal graph, and runs of the encoder side by "
        "side; 0 takes the cores this process may use.",
    )
    gpu_memory_bytes: int | None = Field(
        default=None,
        ge=64 * MIB,
        description="Memory of a CUDA device that one graph may take; each bundle has two.",
        json_schema_extra={"default_in_words": "no bound but the device's own"},
    )
    max_batch: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Samples in one run of the encoder at most.",
        json_schema_extra={"default_in_words": "16 on the CPU, 64 on CUDA, rounded up to whole bursts"},
    )
    max_queued_samples: int = Field(
        default=4096, ge=1, description="Samples waiting for the encoder at most; more are shed with 503."
    )
    max_in_flight: int = Field(
        default=32, ge=1, description="Requests worked on at once; more are shed with 503."
    )
    max_upload_bytes: int = Field(default=100 * MIB, ge=1, description="Size of one clip at most.")
    max_pixels: int = Field(default=36_000_000, ge=1, description="Width times height of a picture at most.")
    max_duration_s: float = Field(
        default=600.0,
        gt=0,
        description="Seconds of a clip that are looked at; the answer says when it was longer.",
    )
    max_faces: int = Field(default=8, ge=1, le=64, description="Faces judged in one clip at most.")
    c2pa_check: bool = Field(
        default=True,
        description="Look into C2PA manifests, not only for them. See [provenance](docs/provenance.md).",
    )
    c2pa_anchors_file: Path | None = Field(
        default=None,
        description="File of certificates in PEM: who signed a manifest is trusted where his certificate "
        "leads to one of them; needs `DETECTOR_C2PA_CHECK`.",
        json_schema_extra={"default_in_words": "none: nobody is trusted, and nobody is not"},
    )
    c2pa_tsa_anchors_file: Path | None = Field(
        default=None,
        description="The same for those who stamped the time of a signature. Without it a certificate has to "
        "be in force today.",
        json_schema_extra={"default_in_words": "none"},
    )
    decoders: int = Field(
        default_factory=usable_cores,
        ge=1,
        le=256,
        description="Child processes that decode clips and find faces.",
        json_schema_extra={"default_in_words": "one for each core this process may use"},
    )
    decoder_threads: int = Field(
        default=1,
        ge=1,
        le=16,
        description="Threads of each decoder. Several answer one clip sooner; what they make of a damaged "
        "file may differ from time to time.",
    )
    decoder_clips: int = Field(
        default=200, ge=1, description="Clips after which a decoder process is replaced by a fresh one."
    )
    decode_timeout_s: float = Field(
        default=60.0, gt=0, description="Seconds after which a decoder at work on one clip is killed."
    )
    decode_memory_bytes: int = Field(
        default=2048 * MIB,
        ge=64 * MIB,
        description="Address space that a decoder may take for one clip, over what it needs when idle.",
    )
    sandbox: Sandbox = Field(
        default="prefer",
        description="`prefer` confines decoders by what the kernel has of seccomp and Landlock and logs what "
        "is lacking; `require` refuses to start without seccomp; `off` leaves them limits alone.",
    )
    request_timeout_s: float = Field(
        default=120.0, gt=0, description="Seconds from the header of a request to its answer at most."
    )
    upload_timeout_s: float = Field(
        default=60.0, gt=0, description="Seconds that the body of a request may take to arrive."
    )
    canary_every_s: float = Field(
        default=300.0,
        ge=0,
        description="Seconds between two self-tests, in which each bundle judges a clip of known score; "
        "the first is before the server is ready; 0 leaves them out.",
    )
    shutdown_delay_s: float = Field(
        default=0.0,
        ge=0,
        description="Seconds after SIGTERM in which requests are still taken while `/readyz` says no, for "
        "balancers to see it.",
    )
    shutdown_grace_s: float = Field(
        default=30.0, gt=0, description="Seconds that requests in flight have to finish after SIGTERM."
    )
    scratch_dir: Path | None = Field(
        default=None,
        description="Existing directory for clips while they are worked on, of no other server.",
        json_schema_extra={"default_in_words": "a private temporary directory"},
    )
    traces: bool = Field(
        default=False,
        description="Send traces by OTLP over HTTP as `OTEL_*` variables say; needs the extra `otel`.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severity of the JSON log lines on standard error."
    )

    @field_validator("api_keys_file")
    @classmethod
    def _readable(cls, path: Path | None) -> Path | None:
        if path is not None:
            read_keys(path)
        return path

    @field_validator("signing_key_file")
    @classmethod
    def _signs(cls, path: Path | None) -> Path | None:
        if path is not None:
            from service.signing import read_signing_keys  # what it needs is not loaded without keys

            read_signing_keys(path)
        return path

    @field_validator("c2pa_anchors_file", "c2pa_tsa_anchors_file")
    @classmethod
    def _trusts(cls, path: Path | None) -> Path | None:
        if path is not None:
            read_anchors(path)
        return path

    @field_validator("traces")
    @classmethod
    def _traceable(cls, wanted: bool) -> bool:
        if not wanted:
            return False
        if (protocol := _otlp_protocol()) != "http/protobuf":
            raise ValueError(f"traces are sent as http/protobuf, not as {protocol}")
        try:
            import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
        except ModuleNotFoundError as e:
            raise ValueError(f"it needs {e.name}: install deepfake-detect[otel]") from e
        return True

    @model_validator(mode="after")
    def usable(self) -> Self:
        """Refuse combinations that could never answer."""
        if self.scratch_dir is not None and not os.access(self.scratch_dir, os.W_OK | os.X_OK):
            raise ValueError(
                f"{PREFIX}SCRATCH_DIR {self.scratch_dir} is not a directory that can be written to"
            )
        if self.face_detector == "insightface" and self.face_model is None:
            raise ValueError(f"{PREFIX}FACE_MODEL must name a file or pack for insightface")
        if self.c2pa_tsa_anchors_file is not None and self.c2pa_anchors_file is None:
            raise ValueError(f"{PREFIX}C2PA_TSA_ANCHORS_FILE is of no use without {PREFIX}C2PA_ANCHORS_FILE")
        if self.c2pa_anchors_file is not None and not self.c2pa_check:
            raise ValueError(f"{PREFIX}C2PA_ANCHORS_FILE is of no use with {PREFIX}C2PA_CHECK=false")
        return self


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment; `overrides` (from a command line) win over it.

    Raises SettingsError, with one line that names the variable, when one is unknown or unusable.
    """
    _refuse_unknown(os.environ)
    try:
        return Settings(**overrides)
    except ValidationError as e:
        raise SettingsError("; ".join(_in_words(error) for error in e.errors())) from e


def variables() -> list[str]:
    """Names of all environment variables, in the order of the table."""
    return [PREFIX + name.upper() for name in Settings.model_fields]


def settings_table() -> str:
    """The README's table of settings in Markdown."""
    rows = ["| Variable | Default | Meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        extra = field.json_schema_extra
        words = extra.get("default_in_words") if isinstance(extra, dict) else None
        default = str(words) if words else f"`{_as_set(field.default)}`"
        rows.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows) + "\n"


def _as_set(value: object) -> str:
    """A default as one would write it in the environment."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _otlp_protocol() -> str:
    """What OpenTelemetry's variables ask for."""
    names = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    return next((os.environ[name] for name in names if os.environ.get(name)), "http/protobuf")


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = variables()
    for name in sorted(environ):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            close = difflib.get_close_matches(name.upper(), known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise SettingsError(f"{name} is not a setting{hint}")


def _in_words(error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return message
    name = PREFIX + str(error["loc"][0]).upper()
    return f"{name}={error['input']}: {message[0].lower()}{message[1:]}"
