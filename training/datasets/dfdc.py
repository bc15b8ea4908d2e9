"""The DeepFake Detection Challenge data set (Dolhansky et al., arXiv 2006.07397).

Folders like dfdc_train_part_0, each with a metadata.json beside its clips:
{"x.mp4": {"label": "FAKE", "split": "train", "original": "y.mp4"}, "y.mp4": {"label": "REAL", ...}}.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from training.datasets.record import Dataset, DatasetError, Record, below, dataset

METADATA = "metadata.json"
OFFICIAL = {"train": "train", "validation": "validation", "test": "test"}


def read_dfdc(root: Path) -> Dataset:
    """The clips of all parts below `root` that are on disk. Raises DatasetError.

    The makers do not say who is who, so an original and its fakes count as one person and one source.
    A `split` that says `train` of every clip is no split.
    """
    tables = sorted(p for depth in ("", "*/", "*/*/") for p in root.glob(depth + METADATA))
    if not tables:
        raise DatasetError(
            f"{root} is not DFDC: no {METADATA} in it or in its folders (dfdc_train_part_0, ...)"
        )
    rows = [row for table in tables for row in _rows(table, root)]
    originals = {Path(r.file).name: r.file for r, there in rows if there and not r.fake}
    absent = [r.file for r, there in rows if not there]
    records = [replace(r, original=originals.get(r.original, "")) for r, there in rows if there]
    if not any(r.split in {"test", "validation"} for r in records):
        records = [replace(r, split="") for r in records]
    return dataset("dfdc", root, records, absent, mixed=True)


def _rows(table: Path, root: Path) -> list[tuple[Record, bool]]:
    """The records of one part, each with whether its clip is there."""
    try:
        listed: Any = json.loads(table.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise DatasetError(f"{table} can not be read: {e}") from e
    if not isinstance(listed, dict):
        raise DatasetError(f"{table} is not an object of clips by their names")
    rows = []
    for name, facts in listed.items():
        if not below(name):
            raise DatasetError(f"{table}: {name!r} is not a path below its folder")
        if not isinstance(facts, dict) or facts.get("label") not in ("FAKE", "REAL"):
            raise DatasetError(f"{table}: the label of {name} is neither FAKE nor REAL")
        fake = facts["label"] == "FAKE"
        original = str(facts.get("original") or "") if fake else ""
        footage = f"dfdc:{original or name}"
        path = table.parent / name
        record = Record(
            path.relative_to(root).as_posix(),
            fake,
            identity=footage,
            source=footage,
            method="DFDC" if fake else "",
            split=OFFICIAL.get(str(facts.get("split")), ""),
            original=original,
        )
        rows.append((record, path.exists()))
    return rows
