"""How many clips of which kind are prepared: a recipe, and the order in which clips are tried."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import DetectError
from training.datasets.record import SPLITS, Record
from training.split import shares_of


class SelectionError(DetectError):
    """A selection can not be read, or asks for more than there is."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Quota(_Part):
    """Clips of one data set. real, fake: how many of each; methods: generators they are taken from, none
    for all. Fakes are drawn evenly from the generators."""

    real: int = Field(ge=0)
    fake: int = Field(ge=0)
    methods: tuple[str, ...] = ()


class Selection(_Part):
    """What is prepared, and how it is split.

    split: `official` keeps the data set's own split where it has one, `seeded` draws one; train,
    validation: shares of a drawn split, the rest tests; hold_out: generators kept from training. A data
    set without a quota is prepared whole.
    """

    seed: int = Field(default=0, ge=0)
    split: Literal["official", "seeded"] = "official"
    train: float = Field(default=0.7, gt=0, le=1)
    validation: float = Field(default=0.0, ge=0, lt=1)
    hold_out: tuple[str, ...] = ()
    faceforensics: Quota | None = None
    celebdf: Quota | None = None
    dfdc: Quota | None = None
    table: Quota | None = None

    @model_validator(mode="after")
    def whole(self) -> "Selection":
        """The shares leave no negative test."""
        if shares_of(self.train, self.validation)["test"] < 0:
            raise ValueError("train and validation are more than all clips")
        return self

    def quota(self, kind: str) -> Quota | None:
        """What is wanted of a data set of this kind."""
        found: Quota | None = getattr(self, kind)
        return found


@dataclass(frozen=True, slots=True)
class Stratum:
    """Clips of one class in one split: the first `wanted` of `candidates` that are usable are taken."""

    split: str
    fake: bool
    wanted: int
    candidates: list[Record]


def make_selection(values: Mapping[str, Any], where: str = "the options") -> Selection:
    """A selection of these values. Raises SelectionError with every one that is unknown or out of range."""
    try:
        return Selection.model_validate(values)
    except ValidationError as e:
        wrong = "; ".join(f"{'.'.join(map(str, p['loc'])) or 'all'}: {p['msg']}" for p in e.errors())
        raise SelectionError(f"{where}: {wrong}") from e


def read_selection(path: Path, changes: Mapping[str, Any] | None = None) -> Selection:
    """The selection at a path, with `changes` made to it. Raises SelectionError."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as e:
        raise SelectionError(f"{path} can not be read: {e}") from e
    except tomllib.TOMLDecodeError as e:
        raise SelectionError(f"{path} is not TOML: {e}") from e
    return make_selection(values | dict(changes or {}), str(path))


def strata(records: list[Record], split: Mapping[str, str], kind: str, selection: Selection) -> list[Stratum]:
    """The strata of a data set's clips under a split (by file); clips without a split are in none.

    Raises SelectionError when the quota of a stratum is larger than what there is.
    """
    quota = selection.quota(kind)
    rng = np.random.default_rng(selection.seed)
    found = []
    for fake in (False, True):
        of = {name: _drawn(_of(records, split, name, fake, quota), rng) for name in SPLITS}
        wanted = _wanted(of, quota, fake, selection)
        for name in SPLITS:
            if wanted[name] > len(of[name]):
                kinds = "fake" if fake else "real"
                raise SelectionError(
                    f"the selection wants {wanted[name]} {kinds} clips of {kind} in the split {name}, "
                    f"there are {len(of[name])}"
                )
            found.append(Stratum(name, fake, wanted[name], of[name]))
    return found


def apportion(total: int, weights: Mapping[str, float]) -> dict[str, int]:
    """`total` in whole parts that are as near to the weights as can be (largest remainders first)."""
    whole = sum(weights.values())
    exact = {name: total * w / whole if whole > 0 else 0.0 for name, w in weights.items()}
    parts = {name: int(e) for name, e in exact.items()}
    rest = total - sum(parts.values()) if whole > 0 else 0
    for name in sorted(exact, key=lambda n: parts[n] - exact[n])[:rest]:
        parts[name] += 1
    return parts


def _of(
    records: list[Record], split: Mapping[str, str], name: str, fake: bool, quota: Quota | None
) -> list[Record]:
    methods = quota.methods if quota and fake else ()
    return [
        r
        for r in records
        if split.get(r.file) == name and r.fake == fake and (not methods or r.method in methods)
    ]


def _wanted(
    of: Mapping[str, list[Record]], quota: Quota | None, fake: bool, selection: Selection
) -> dict[str, int]:
    there = {name: len(clips) for name, clips in of.items()}
    if quota is None:
        return there
    weights = {name: float(n) for name, n in there.items()}
    if selection.split == "seeded":
        weights = shares_of(selection.train, selection.validation)
    total = quota.fake if fake else quota.real
    parts = apportion(total, weights)
    # Of a data set with nothing to share out, all is missing from training.
    return parts if sum(parts.values()) == total else {**parts, "train": total}


def _drawn(clips: list[Record], rng: np.random.Generator) -> list[Record]:
    """The clips in a random order that goes through the methods in turn."""
    by_method: dict[str, list[Record]] = {}
    for r in sorted(clips, key=lambda r: r.file):
        by_method.setdefault(r.method, []).append(r)
    turns: list[tuple[int, str, Record]] = []
    for method, group in sorted(by_method.items()):
        turns += [(k, method, group[i]) for k, i in enumerate(rng.permutation(len(group)))]
    return [r for _, _, r in sorted(turns, key=lambda turn: turn[:2])]
