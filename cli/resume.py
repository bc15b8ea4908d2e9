"""A scan that goes on where an earlier one ended, by what that one has written."""

import csv
import hashlib
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.findings import CODES, COLUMNS, Format
from pipeline.cells import csv_line, unguarded
from pipeline.errors import DetectError

NUMBERS = {"size": int, "mtime_ns": int, "fake": float, "faces": int, "duration_s": float}


class NotResumable(DetectError):
    """The file is not one that a scan has written in that format."""


@dataclass(frozen=True, slots=True)
class Held:
    """One finding of an earlier scan. verdict: None where it was an error. text: its line."""

    file: str
    size: int | None
    mtime_ns: int | None
    sha256: str | None
    digest: str | None
    verdict: str | None
    text: str

    def is_of(self, path: Path, digest: str) -> bool:
        """Whether it is a verdict of the bundle `digest` on what the file holds now.

        Size and time of change tell; where they differ, as for a copy, the bytes do.
        """
        if self.verdict is None or self.digest != digest:
            return False
        try:
            status = path.stat()
            if (status.st_size, status.st_mtime_ns) == (self.size, self.mtime_ns):
                return True
            with path.open("rb") as file:
                return self.sha256 == hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return False


def resume(out: Path, form: Format, files: list[Path], digest: str) -> tuple[list[Path], list[str]]:
    """Files that are still to be judged, and the verdicts on the others among `files`.

    Taken out of `out` is what does not count any more: errors, findings of files or of a bundle that have
    changed, and what was torn at its end, so that it holds one finding of a file. Raises NotResumable, or
    OSError.
    """
    held = {found.file: found for found in read_held(out, form)}
    left, verdicts = [], []
    for path in files:
        found = held.get(str(path))
        if found is not None and found.verdict is not None and found.is_of(path, digest):
            verdicts.append(found.verdict)
        else:
            held.pop(str(path), None)
            left.append(path)
    head = csv_line(COLUMNS) if form is Format.csv else ""
    _replace(out, head + "".join(found.text for found in held.values()))
    return left, verdicts


def read_held(path: Path, form: Format) -> list[Held]:
    """The findings in a file; a last one that is not whole is left out. Raises NotResumable."""
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    whole = text[: text.rfind("\n") + 1]
    try:
        if form is Format.csv:
            return _rows(whole)
        return [_line(line) for line in io.StringIO(whole, newline="\n")]
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as e:
        raise NotResumable(f"{path} holds something else than the {form.value} of a scan: {e}") from e


def _line(line: str) -> Held:
    found = json.loads(line)
    answer = found.get("answer")
    return Held(
        found["file"],
        found.get("size"),
        found.get("mtime_ns"),
        answer and answer["media"]["sha256"],
        answer and answer["model"]["digest"],
        _known(answer and answer["verdict"]),
        line,
    )


def _known(verdict: str | None) -> str | None:
    if verdict and verdict not in CODES:
        raise ValueError(f"{verdict!r} is no verdict")
    return verdict or None


def _rows(text: str) -> list[Held]:
    rows = list(csv.reader(io.StringIO(text, newline="")))
    if rows and rows[0] != COLUMNS:
        raise ValueError("its columns are others")
    if rows and len(rows[-1]) != len(COLUMNS):
        del rows[-1]
    return [_row(row) for row in rows[1:]]


def _row(row: list[str]) -> Held:
    known = {name: _value(name, cell) for name, cell in zip(COLUMNS, row, strict=True)}
    return Held(
        known["file"],
        known["size"],
        known["mtime_ns"],
        known["sha256"] or None,
        known["digest"] or None,
        _known(known["verdict"]),
        csv_line(known.values()),
    )


def _value(name: str, cell: str) -> Any:
    """What was written, also by a scan that guarded and quoted less."""
    if number := NUMBERS.get(name):
        return number(cell) if cell else None
    return unguarded(cell)


def _replace(path: Path, text: str) -> None:
    """Give a file another content, all of it or none."""
    content = text.encode("utf-8", "surrogateescape")
    if path.read_bytes() == content:
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
