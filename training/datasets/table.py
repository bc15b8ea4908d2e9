"""Any footage, described by a CSV file: file, label, identity, source; optionally split and method."""

import csv
from pathlib import Path

from training.datasets.record import SPLITS, Dataset, DatasetError, Record, below, dataset

COLUMNS = ("file", "label", "identity", "source")


def read_table(path: Path) -> Dataset:
    """The clips of a table; files are relative to its folder. Raises DatasetError with the row.

    label: real or fake. identity, source: any names, several joined by `+`; an empty one is shared with
    nobody. split: train, validation, test or empty. method: a fake's generator.
    """
    if not path.is_file():
        raise DatasetError(f"{path} is not a CSV file")
    records, absent = {}, []
    try:
        with path.open(newline="", encoding="utf-8-sig") as f:
            reader = csv.DictReader(f)
            if missing := [c for c in COLUMNS if c not in (reader.fieldnames or ())]:
                raise DatasetError(f"{path} has no column {', '.join(missing)}")
            for number, row in enumerate(reader, 2):
                record = _record({k: (v or "").strip() for k, v in row.items() if k}, f"{path}, row {number}")
                if record.file in records:
                    raise DatasetError(f"{path}, row {number}: {record.file} is listed twice")
                if (path.parent / record.file).exists():
                    records[record.file] = record
                else:
                    absent.append(record.file)
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise DatasetError(f"{path} can not be read: {e}") from e
    return dataset("table", path.parent, records.values(), absent)


def _record(row: dict[str, str], where: str) -> Record:
    file, label, split = row["file"], row["label"].lower(), row.get("split", "")
    if not below(file):
        raise DatasetError(f"{where}: file is {file!r}, not a path below the table's folder")
    if label not in {"real", "fake"}:
        raise DatasetError(f"{where}: label is {row['label']!r}, not real or fake")
    if split not in {"", *SPLITS}:
        raise DatasetError(f"{where}: split is {split!r}, not one of {', '.join(SPLITS)} or empty")
    fake = label == "fake"
    return Record(
        file,
        fake,
        identity=row["identity"] or f"unknown person of {file}",
        source=row["source"] or f"unknown source of {file}",
        method=row.get("method", "") if fake else "",
        split=split,
    )
