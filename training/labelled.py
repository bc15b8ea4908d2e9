"""Tables of labelled clips and of exact pairs, as a user writes them.

Clips: a CSV file with the columns file and label (real | fake), and, as far as known, split, identity
(same value, same person), source or source_repo (origin), method (generator) and family (kind of
forgery, or of camera). Pairs: real_file and fake_file, and the same further columns. Other columns
are ignored. Paths are relative to the table.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import DetectError

EVERYTHING = "all"
"""The name of no split, by which all rows are asked for."""


class TableError(DetectError):
    """A table is missing or malformed, or has no rows that were asked for."""


@dataclass(frozen=True, slots=True)
class LabelledClip:
    """One clip; what is not known is empty. person: its identity, or a name of its own."""

    file: str
    fake: bool
    split: str
    person: str
    source: str
    method: str
    family: str


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """Two clips of the same footage with the same encoding, one of them forged."""

    real: str
    fake: str
    split: str
    person: str
    method: str
    family: str


@dataclass(frozen=True, slots=True)
class Labelled:
    """The clips of one table. root: what their paths are relative to; named: clips with an identity."""

    root: Path
    clips: list[LabelledClip]
    named: int


def read_clips(table: Path, split: str | None = None) -> Labelled:
    """The rows of one split, or of all where there is one split at most or `split` is "all".

    A table of several splits is not read without naming one: figures on clips that a model was trained
    on are no figures. Raises TableError with the row that is wrong.
    """
    rows = _rows(table, {"file", "label"})
    clips = []
    seen: dict[str, str] = {}
    named = {where for where, r in rows if r.get("identity")}
    for where, r in rows:
        if r["file"] in seen:
            raise TableError(f"{where}: {r['file']} is listed twice, first in {seen[r['file']]}")
        seen[r["file"]] = where
        source = r.get("source") or r.get("source_repo") or ""
        person = r.get("identity") or f"of {r['file']} alone"
        clips.append(
            LabelledClip(
                r["file"],
                _label(r["label"], where),
                r.get("split", ""),
                person,
                source,
                r.get("method", ""),
                r.get("family", ""),
            )
        )
    kept = _of_split(table, clips, split)
    count = sum(1 for c, (where, _) in zip(clips, rows, strict=True) if where in named and c in kept)
    return Labelled(table.parent, [c for c in clips if c in kept], count)


def read_pairs(table: Path, split: str | None = None) -> list[LabelledPair]:
    """The pairs of one split; of all where `split` is none or "all". Raises TableError."""
    pairs = []
    for where, r in _rows(table, {"real_file", "fake_file"}):
        if not r["real_file"] or not r["fake_file"]:
            raise TableError(f"{where}: a pair needs both files")
        person = r.get("identity") or f"of {r['real_file']} alone"
        pairs.append(
            LabelledPair(
                r["real_file"],
                r["fake_file"],
                r.get("split", ""),
                person,
                r.get("method", ""),
                r.get("family", ""),
            )
        )
    return [p for p in pairs if split in {None, EVERYTHING} or p.split in {"", split}]


def _of_split(table: Path, clips: list[LabelledClip], split: str | None) -> set[LabelledClip]:
    splits = sorted({c.split for c in clips})
    if split is None and len(splits) > 1:
        known = ", ".join(s or "(empty)" for s in splits)
        raise TableError(f"{table} has the splits {known}: name one of them, or {EVERYTHING}")
    kept = {c for c in clips if split in {None, EVERYTHING, c.split}}
    if not kept:
        raise TableError(f"{table} has no clip of the split {split}; it has {', '.join(splits)}")
    return kept


def _rows(path: Path, columns: set[str]) -> list[tuple[str, dict[str, str]]]:
    """Rows with their place in words; cells are stripped, and empty where a row is short."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as f:
            reader = csv.DictReader(f, restval="")
            if missing := columns - set(reader.fieldnames or ()):
                raise TableError(f"{path} has no column {', '.join(sorted(missing))}")
            rows = [
                (f"{path}, row {i}", {k: v.strip() for k, v in row.items() if isinstance(k, str)})
                for i, row in enumerate(reader, 2)
            ]
    except OSError as e:
        raise TableError(f"{path} can not be read: {e.strerror}") from e
    except (UnicodeDecodeError, csv.Error) as e:
        raise TableError(f"{path} is not a CSV file in UTF-8: {e}") from e
    if not rows:
        raise TableError(f"{path} has no rows")
    for where, row in rows:
        if "file" in columns and not row["file"]:
            raise TableError(f"{where}: no file")
    return rows


def _label(value: str, where: str) -> bool:
    if value.lower() not in {"real", "fake"}:
        raise TableError(f"{where}: label is {value!r}, not real or fake")
    return value.lower() == "fake"
