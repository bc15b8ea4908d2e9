"""Which files a run is about: files, folders, globs and lists become clips, and shards share them out."""

import csv
import glob
import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from batch.errors import BatchError

LISTS = (".txt", ".csv")
"""Files that name clips, and are none."""
COLUMN = "file"


@dataclass(frozen=True, slots=True)
class Clip:
    """A file by its absolute path, and by what it held when it was found: bytes and time of its last change.

    Both are None where there is no such file.
    """

    file: str
    size: int | None
    modified_ns: int | None

    @classmethod
    def at(cls, file: str) -> Self:
        """The clip as it is now."""
        try:
            found = Path(file).stat()
        except OSError:
            return cls(file, None, None)
        return cls(file, found.st_size, found.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` shares of an archive, counted from 0.

    A clip's path alone says which one it belongs to, so that shares neither overlap nor leave anything out
    also while files come and go.
    """

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """`I/N`. Raises BatchError."""
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if found is None or int(found[1]) >= int(found[2]):
            raise BatchError(f"no shard {text!r}: I/N is meant, with I from 0 to N-1")
        return cls(int(found[1]), int(found[2]))

    def holds(self, clip: Clip) -> bool:
        """Whether the clip is in this share."""
        digest = hashlib.sha256(os.fsencode(clip.file)).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index


def find_clips(inputs: Iterable[str]) -> list[Clip]:
    """The clips that inputs name, each once, ordered by path.

    A folder gives all files below it that are not hidden; links to folders are not followed. A list (.txt: a
    path a line; .csv: a column `file`) gives what it names, relative to where it lies. Raises BatchError for
    an input that is nothing.
    """
    files = {os.path.normpath(path.absolute()) for given in inputs for path in _named(given)}
    return [Clip.at(file) for file in sorted(files)]


def _named(given: str) -> Iterator[Path]:
    path = Path(given)
    if path.is_dir():
        yield from _below(path)
    elif path.exists():
        yield from _listed(path) if path.suffix.lower() in LISTS else [path]
    elif found := glob.glob(given, recursive=True):  # noqa: PTH207 - Path takes no absolute pattern
        for match in map(Path, found):
            yield from _below(match) if match.is_dir() else [match]
    else:
        raise BatchError(f"{given}: no such file or folder, and nothing that it matches")


def _below(folder: Path) -> Iterator[Path]:
    for at, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(at, name) for name in names if not name.startswith("."))


def _listed(table: Path) -> Iterator[Path]:
    try:
        text = table.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as e:
        raise BatchError(f"{table}: {e.strerror}") from e
    if "\0" in text:
        raise BatchError(f"{table} is no text in UTF-8")
    names = text.split("\n")
    if table.suffix.lower() == ".csv":
        rows = csv.DictReader(io.StringIO(text))
        if COLUMN not in (rows.fieldnames or ()):
            raise BatchError(f"{table} has no column {COLUMN!r}")
        names = [row[COLUMN] or "" for row in rows]
    yield from (table.parent / name for name in names if name.strip())


def _raise(error: OSError) -> None:
    """A folder that can not be read must not pass for an empty one."""
    raise BatchError(f"{error.filename}: {error.strerror}") from error
