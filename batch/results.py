"""What a run leaves: `run.json` and parts, files of JSON lines that are there as a whole or not."""

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from batch.clips import Clip
from batch.errors import BatchError
from pipeline.answer import Answer
from pipeline.bundle import Bundle
from pipeline.detect.registry import digest_of
from service.settings import Settings

RUN = "run.json"
PARTS = "part-*.jsonl"
FINAL = (400, 415, 422)
"""Of problems: the clip itself is at fault, and would be the next time. Others are tried again."""


class Run(BaseModel):
    """What shapes the answers in one folder: it never holds those of two bundles, or under two settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    model: str
    digest: str
    face_detector: str
    face_model: str | None
    max_faces: int
    max_pixels: int
    max_duration_s: float
    explain: bool
    timeline: bool

    @classmethod
    def of(cls, settings: Settings, bundle: Bundle, *, explain: bool, timeline: bool) -> "Run":
        """Of a bundle that answers under these settings."""
        same = {
            n: getattr(settings, n) for n in ("face_detector", "max_faces", "max_pixels", "max_duration_s")
        }
        return cls(
            model=bundle.manifest.id,
            digest=bundle.digest,
            face_model=digest_of(settings.face_model),
            explain=explain,
            timeline=timeline,
            **same,
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a clip. name: a verdict or a type of problem; final: whether to leave it at that."""

    name: str
    final: bool

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> "Outcome":
        """Of a line as it is read. Raises KeyError or TypeError where it is malformed."""
        if "answer" in line:
            return cls(line["answer"]["verdict"], final=True)
        return cls(line["problem"]["type"], final=line["problem"].get("status") in FINAL)


@dataclass(frozen=True, slots=True)
class Line:
    """One clip, and its answer or what is wrong with it (RFC 9457)."""

    clip: Clip
    answer: Answer | None = None
    problem: Mapping[str, Any] | None = None

    def body(self) -> dict[str, Any]:
        """As it is written."""
        said = (
            {"problem": self.problem}
            if self.answer is None
            else {"answer": self.answer.model_dump(mode="json")}
        )
        return {"file": self.clip.file, "bytes": self.clip.size, "modified_ns": self.clip.modified_ns} | said

    @property
    def outcome(self) -> Outcome:
        """What became of the clip."""
        return Outcome.of(self.body())


def claim(out: Path, run: Run) -> None:
    """Make the folder of a run, or take up one that was begun. Raises BatchError when it is another run's."""
    out.mkdir(parents=True, exist_ok=True)
    at = out / RUN
    if not at.exists():
        if any(out.glob(PARTS)):
            raise BatchError(f"{out} holds parts but no {RUN}: nobody knows what they answer")
        _write(at, run.model_dump_json(indent=1) + "\n")
    try:
        found = Run.model_validate_json(at.read_bytes())
    except ValidationError as e:
        raise BatchError(f"{at} is not of a run that can be taken up") from e
    if found != run:
        mine, theirs = run.model_dump(), found.model_dump()
        other = ", ".join(f"{k} {theirs[k]}, not {mine[k]}" for k in mine if mine[k] != theirs[k])
        raise BatchError(f"{out} holds answers of another run ({other}): choose another folder")


def write_part(out: Path, lines: Sequence[Line]) -> Path:
    """Write a part at once, in ASCII, since a path may hold bytes that are no text.

    Its name comes from its clips: who scores them again writes the same file.
    """
    name = hashlib.sha256(json.dumps([asdict(line.clip) for line in lines]).encode()).hexdigest()
    at = out / PARTS.replace("*", name[:16])
    _write(at, "".join(json.dumps(line.body()) + "\n" for line in lines))
    return at


def read_outcomes(out: Path) -> dict[Clip, Outcome]:
    """What became of each clip so far; of several outcomes of one, a final one. Raises BatchError."""
    outcomes: dict[Clip, Outcome] = {}
    for clip, outcome in _outcomes(sorted(out.glob(PARTS))):
        if clip not in outcomes or outcome.final:
            outcomes[clip] = outcome
    return outcomes


def _outcomes(parts: Iterable[Path]) -> Iterator[tuple[Clip, Outcome]]:
    for part in parts:
        with part.open(encoding="ascii") as lines:
            for number, text in enumerate(lines, 1):
                try:
                    line = json.loads(text)
                    yield Clip(line["file"], line["bytes"], line["modified_ns"]), Outcome.of(line)
                except (ValueError, KeyError, TypeError, AttributeError) as e:
                    raise BatchError(f"{part}, line {number}: not a line of results; remove the part") from e


def _write(at: Path, text: str) -> None:
    """Put a file in its place as a whole, also should the machine lose its power."""
    unfinished = at.with_name(f".{at.name}.{uuid.uuid4().hex}")
    try:
        with unfinished.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(at)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
