"""Tables of a training corpus: `clips.csv`, labelled clips in two splits, and `pairs.csv`, exact pairs.

clips.csv: file, label (real | fake), split (train | measure), family (kind of forgery or of camera),
identity (same value, same person), source_repo (origin) and, where it is known, licence_of_repo.
pairs.csv: split, family, real_file, fake_file. Further columns are ignored. Paths are relative to the
tables.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from pipeline.errors import DetectError


class CorpusError(DetectError):
    """A table of the corpus is missing or malformed."""


class Depiction(Protocol):
    """Whoever and whatever a clip shows. Where several do, as in a face swap, they are joined by `+`."""

    @property
    def file(self) -> str:
        """Its name."""

    @property
    def identity(self) -> str:
        """The persons."""

    @property
    def source(self) -> str:
        """The recordings that it was made from."""


@dataclass(frozen=True, slots=True)
class ClipRow:
    """One clip and what is known of it."""

    file: str
    fake: bool
    split: str
    family: str
    identity: str
    source: str
    licence: str = ""


@dataclass(frozen=True, slots=True)
class PairRow:
    """Two clips of the same footage with the same encoding, one of them forged."""

    split: str
    family: str
    identity: str
    real: str
    fake: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """A corpus on disk."""

    root: Path
    clips: list[ClipRow]
    pairs: list[PairRow]

    def split(self, name: str) -> list[ClipRow]:
        """The clips of one split."""
        return [c for c in self.clips if c.split == name]

    def teachers(self) -> list[ClipRow]:
        """Real clips to train on: split `train`, and in no exact pair, so that every pair stays a test."""
        paired = {p.real for p in self.pairs}
        return [c for c in self.split("train") if not c.fake and c.file not in paired]


def read_corpus(root: Path) -> Corpus:
    """Read the tables below `root`. Raises CorpusError with the row that is wrong."""
    clips = [
        ClipRow(
            r["file"],
            _label(r["label"], n),
            _split(r["split"], n),
            r["family"],
            r["identity"],
            r["source_repo"],
            r.get("licence_of_repo") or "",
        )
        for n, r in _rows(root / "clips.csv", {"file", "label", "split", "family", "identity", "source_repo"})
    ]
    pairs = []
    if (root / "pairs.csv").exists():
        columns = {"split", "family", "identity", "real_file", "fake_file"}
        pairs = [
            PairRow(_split(r["split"], n), r["family"], r["identity"], r["real_file"], r["fake_file"])
            for n, r in _rows(root / "pairs.csv", columns)
        ]
    return Corpus(root, clips, pairs)


def traits(clip: Depiction) -> list[str]:
    """What makes clips kin: each of the persons and of the recordings of a clip."""
    people = [f"person {name}" for name in clip.identity.split("+")]
    return people + [f"origin {name}" for name in clip.source.split("+")]


def joined(groups: Iterable[list[str]]) -> dict[str, str]:
    """The connected component of each name, when the names of each group are connected (union-find)."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = name = parent[parent[name]]
        return name

    for first, *others in groups:
        top = root(first)
        for other in others:
            parent[root(other)] = top
    return {name: root(name) for name in list(parent)}


def kinship(rows: Iterable[Depiction]) -> dict[str, str]:
    """The kin of each file: clips that share an origin or a person, directly or through others, share it."""
    clips = list(rows)
    component = joined(traits(clip) for clip in clips)
    return {clip.file: component[traits(clip)[0]] for clip in clips}


def folds(kin: dict[str, str], count: int, seed: int) -> dict[str, int]:
    """A fold, 0 to count - 1, for each file; kin stay together and folds are about equally large."""
    sizes: dict[str, int] = {}
    for name in kin.values():
        sizes[name] = sizes.get(name, 0) + 1
    names = [sorted(sizes)[i] for i in np.random.default_rng(seed).permutation(len(sizes))]
    filled, fold_of = [0] * count, {}
    for name in sorted(names, key=lambda n: -sizes[n]):
        fold_of[name] = filled.index(min(filled))
        filled[fold_of[name]] += sizes[name]
    return {file: fold_of[name] for file, name in kin.items()}


def _rows(path: Path, columns: set[str]) -> list[tuple[str, dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8") as f:
            reader = csv.DictReader(f)
            if missing := columns - set(reader.fieldnames or ()):
                raise CorpusError(f"{path} has no column {', '.join(sorted(missing))}")
            return [(f"{path}, row {i}", row) for i, row in enumerate(reader, 2)]
    except OSError as e:
        raise CorpusError(f"{path} can not be read: {e}") from e


def _label(value: str, where: str) -> bool:
    if value not in {"real", "fake"}:
        raise CorpusError(f"{where}: label is {value!r}, not real or fake")
    return value == "fake"


def _split(value: str, where: str) -> str:
    if value not in {"train", "measure"}:
        raise CorpusError(f"{where}: split is {value!r}, not train or measure")
    return value
