"""What all readers of data sets share: the record of a clip, and helpers for files."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pipeline.errors import DetectError

VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"}
SPLITS = ("train", "validation", "test")


class DatasetError(DetectError):
    """A data set is not laid out as its makers publish it."""


@dataclass(frozen=True, slots=True)
class Record:
    """One clip of a data set.

    file: path relative to the data set's root. identity, source: the persons in it and the recordings
    that it was made from, joined by `+` where there are several. method: the generator, empty for a
    real clip. split: the official one, empty where there is none. original: file of the real clip of
    which this one is an altered copy, frame by frame; empty where none is known.
    """

    file: str
    fake: bool
    identity: str
    source: str
    method: str = ""
    split: str = ""
    original: str = ""


@dataclass(frozen=True, slots=True)
class Dataset:
    """The clips of a data set in order of their files; `absent`: listed by it, but not on disk.

    mixed: whether some clips that are labelled fake may show an untouched picture (DFDC alters the
    sound alone in some), so that each has to be compared with its original.
    """

    kind: str
    root: Path
    records: list[Record]
    absent: list[str] = field(default_factory=list)
    mixed: bool = False


def dataset(
    kind: str, root: Path, records: Iterable[Record], absent: Iterable[str] = (), *, mixed: bool = False
) -> Dataset:
    """A data set with its records in order. Raises DatasetError when it has no clip."""
    ordered = sorted(records, key=lambda r: r.file)
    if not ordered:
        raise DatasetError(f"{root} holds no clip of {kind}")
    return Dataset(kind, root, ordered, sorted(absent), mixed)


def below(name: str) -> bool:
    """Whether a name that a data set lists is that of something below the folder it is relative to."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def videos(folder: Path) -> list[Path]:
    """Video files of a folder, or of its folder `videos` where it has one, by name; none if it is absent."""
    inner = folder / "videos"
    at = inner if inner.is_dir() else folder
    return sorted(p for p in at.iterdir() if p.suffix.lower() in VIDEOS) if at.is_dir() else []
