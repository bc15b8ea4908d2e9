"""What a scan finds out about each file, and the forms in which it is written down."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from cli.output import AUTHENTIC, ERROR, MANIPULATED, UNDECIDED
from pipeline.cells import csv_line

Write = Callable[[str], None]
CODES = {
    "authentic": AUTHENTIC,
    "manipulated": MANIPULATED,
    "uncertain": UNDECIDED,
    "not_applicable": UNDECIDED,
}
COLUMNS = [
    *("file", "size", "mtime_ns", "sha256", "verdict", "fake", "faces", "duration_s"),
    *("summary", "reasons", "model", "digest", "error_type", "error"),
]


class Format(StrEnum):
    """How findings are written."""

    table = "table"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer about a file as the service would send it, or what is wrong with the file.

    size and mtime_ns: bytes, and nanoseconds since 1970, by which the file is known again; None where there
    is no such file. error: its `type` and `detail`, as of a problem document.
    """

    file: str
    size: int | None
    mtime_ns: int | None
    answer: dict[str, Any] | None
    error: dict[str, str] | None = None

    @property
    def code(self) -> int:
        """The exit code of a scan of this file alone."""
        return ERROR if self.answer is None else CODES[self.answer["verdict"]]

    def as_json(self) -> dict[str, Any]:
        """The object of JSON and JSON Lines."""
        known = {"file": self.file, "size": self.size, "mtime_ns": self.mtime_ns}
        return known | ({"answer": self.answer} if self.answer else {"error": self.error})

    def as_row(self) -> list[Any]:
        """The fields of COLUMNS; None where there is nothing to say."""
        row: dict[str, Any] = {"file": self.file, "size": self.size, "mtime_ns": self.mtime_ns}
        if answer := self.answer:
            row |= {
                "sha256": answer["media"]["sha256"],
                "verdict": answer["verdict"],
                "fake": answer["probabilities"] and answer["probabilities"]["fake"],
                "faces": len(answer["faces"]),
                "duration_s": answer["media"]["duration_s"],
                "summary": answer["summary"],
                "reasons": "; ".join(answer["reasons"]),
                "model": answer["model"]["id"],
                "digest": answer["model"]["digest"],
            }
        if self.error:
            row |= {"error_type": self.error["type"], "error": self.error["detail"]}
        return [row.get(name) for name in COLUMNS]


class Sink(Protocol):
    """Where findings go."""

    def add(self, finding: Finding) -> None:
        """Take one, as soon as there is one."""

    def close(self) -> None:
        """There are no more."""


class Lines:
    """JSON Lines. encoding: of what `write` leads to."""

    def __init__(self, write: Write, encoding: str = "utf-8") -> None:
        self._write, self._encoding = write, encoding

    def add(self, finding: Finding) -> None:
        """One line, whole."""
        self._write(as_text(finding.as_json(), self._encoding) + "\n")

    def close(self) -> None:
        """Nothing is left to say."""


class Document:
    """One JSON array, which is complete also when a scan is interrupted."""

    def __init__(self, write: Write, encoding: str = "utf-8") -> None:
        self._write, self._encoding = write, encoding
        self._before = "[\n"

    def add(self, finding: Finding) -> None:
        """One element."""
        self._write(self._before + as_text(finding.as_json(), self._encoding))
        self._before = ",\n"

    def close(self) -> None:
        """The end of the array."""
        self._write("[]\n" if self._before == "[\n" else "\n]\n")


class Commas:
    """CSV (RFC 4180). begun: whether there are rows already."""

    def __init__(self, write: Write, *, begun: bool = False) -> None:
        self._write = write
        if not begun:
            write(csv_line(COLUMNS))

    def add(self, finding: Finding) -> None:
        """One row, whole."""
        self._write(csv_line(finding.as_row()))

    def close(self) -> None:
        """Nothing is left to say."""


def as_text(value: object, encoding: str) -> str:
    """JSON on one line; what the encoding can not hold, such as names in another encoding, is escaped."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def sink_of(form: Format, write: Write, encoding: str, *, begun: bool = False) -> Sink:
    """The sink of a form for programs. begun: whether findings stand in the file already."""
    if form is Format.json:
        return Document(write, encoding)
    return Commas(write, begun=begun) if form is Format.csv else Lines(write, encoding)


def to_stdout(text: str) -> None:
    """Write and flush; what the terminal's encoding lacks is escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


@contextmanager
def appending(path: Path) -> Iterator[Write]:
    """Writes text to the end of a file by one call to the system each, so that no line is ever torn by us."""
    with path.open("ab", buffering=0) as file:

        def write(text: str) -> None:
            content = text.encode("utf-8", "surrogateescape")
            if file.write(content) != len(content):
                raise OSError(f"{path}: there is no room for all of a line")

        yield write
