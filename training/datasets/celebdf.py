"""Celeb-DF v2 (Li et al., CVPR 2020).

Celeb-real/id0_0000.mp4, YouTube-real/00000.mp4, Celeb-synthesis/id0_id1_0000.mp4 (the clip id0_0000 with
the face of id1), List_of_testing_videos.txt with lines like `1 YouTube-real/00170.mp4`, 1 for real.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from training.datasets.record import Dataset, DatasetError, Record, dataset, videos

METHOD = "Celeb-synthesis"
LIST = "List_of_testing_videos.txt"
_REAL = re.compile(r"^(?P<person>id\d+)_(?P<clip>\d+)$")
_FAKE = re.compile(r"^(?P<target>id\d+)_(?P<donor>id\d+)_(?P<clip>\d+)$")


@dataclass(frozen=True, slots=True)
class _Listed:
    """A clip as the list names it."""

    file: str
    fake: bool


def read_celebdf(root: Path) -> Dataset:
    """All clips; those on the list are the official test, the others train. Raises DatasetError.

    Clips that the list names and the disk lacks are `absent`; a list of which no clip is there is an error.

    A clip of YouTube-real shows a person of its own.
    """
    folders = {name: _folder(root, name) for name in ("Celeb-real", "YouTube-real", METHOD)}
    listed = _listed(root)
    records = [_celebrity(path, root) for path in videos(folders["Celeb-real"])]
    for path in videos(folders["YouTube-real"]):
        name = f"celebdf:youtube-{path.stem}"
        records.append(Record(path.relative_to(root).as_posix(), fake=False, identity=name, source=name))
    originals = {Path(r.file).stem: r.file for r in records}
    records += [_swap(path, root, originals) for path in videos(folders[METHOD])]
    if not listed:
        return dataset("celebdf", root, records)
    _check(records, listed, root)
    there = {_key(r.file) for r in records}
    absent = [clip.file for key, clip in listed.items() if key not in there]
    if len(absent) == len(listed):
        raise DatasetError(f"{root / LIST} names no clip that is on disk, {absent[0]} for one")
    return dataset("celebdf", root, [_with_split(r, listed) for r in records], absent)


def _folder(root: Path, name: str) -> Path:
    """The folder of this name, in any case: copies in circulation differ."""
    if root.is_dir():
        for at in sorted(root.iterdir()):
            if at.is_dir() and at.name.lower() == name.lower():
                return at
    raise DatasetError(f"{root} is not Celeb-DF v2: it has no folder {name}")


def _key(file: str) -> str:
    """What names a clip on the list and on disk alike, whatever the case and a folder `videos` within."""
    parts = file.lower().split("/")
    return f"{parts[0]}/{parts[-1]}"


def _listed(root: Path) -> dict[str, _Listed]:
    """The clips of the official test by their keys; none where the list is absent."""
    path = root / LIST
    if not path.is_file():
        return {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise DatasetError(f"{path} can not be read: {e}") from e
    listed = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        label, _, file = line.strip().partition(" ")
        if label not in {"0", "1"} or not file:
            raise DatasetError(f"{path}, line {number}: {line!r} is not like `1 YouTube-real/00170.mp4`")
        listed[_key(file.strip())] = _Listed(file.strip(), fake=label == "0")
    return listed


def _celebrity(path: Path, root: Path) -> Record:
    name = _REAL.match(path.stem)
    if name is None:
        raise DatasetError(f"{path}: clips of Celeb-real are named like id0_0000.mp4")
    return Record(
        path.relative_to(root).as_posix(),
        fake=False,
        identity=f"celebdf:{name['person']}",
        source=f"celebdf:{path.stem}",
    )


def _swap(path: Path, root: Path, originals: dict[str, str]) -> Record:
    name = _FAKE.match(path.stem)
    if name is None:
        raise DatasetError(f"{path}: clips of {METHOD} are named like id0_id1_0000.mp4")
    target = f"{name['target']}_{name['clip']}"
    return Record(
        path.relative_to(root).as_posix(),
        fake=True,
        identity=f"celebdf:{name['target']}+celebdf:{name['donor']}",
        source=f"celebdf:{target}",
        method=METHOD,
        original=originals.get(target, ""),
    )


def _with_split(r: Record, listed: dict[str, _Listed]) -> Record:
    split = "test" if _key(r.file) in listed else "train"
    return Record(r.file, r.fake, r.identity, r.source, r.method, split, r.original)


def _check(records: list[Record], listed: dict[str, _Listed], root: Path) -> None:
    for r in records:
        clip = listed.get(_key(r.file))
        if clip is not None and clip.fake != r.fake:
            raise DatasetError(f"{root / LIST} has the label of {r.file} the wrong way round: 1 is real")
