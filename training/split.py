"""Which clips train and which test, so that no person, no recording and no held-out generator is on both
sides. Pure functions; everything random comes from a seed."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from training.corpus import joined, traits
from training.datasets.record import SPLITS, Record

PRECEDENCE = ("test", "validation", "train")
"""Whose side a person is on who stands in several official splits: clips are rather lost than leaked."""

KIN, HELD_OUT = "kin", "held_out"
"""Why a clip is in no split: it shows persons or recordings of two, or a generator kept from training."""

Sizes = Counter[bool]
"""Number of real (False) and fake (True) clips."""


@dataclass(frozen=True, slots=True)
class Split:
    """split: the one of each clip's file; left_out: why each of the others is in none, KIN or HELD_OUT."""

    split: dict[str, str]
    left_out: dict[str, str]


def assign(
    records: Iterable[Record],
    *,
    train: float = 0.7,
    validation: float = 0.0,
    seed: int = 0,
    official: bool = True,
    hold_out: Iterable[str] = (),
) -> Split:
    """A split for each clip, or why it is in none.

    train, validation: shares of the real and of the fake clips, the rest tests. official: clips that have
    an official split keep it, as far as that shares no person and no recording with another one. hold_out:
    generators that neither train nor validate.

    Clips that share a person or a recording, directly or through others, go to one split. Where so many
    hang together that one split could not hold them (in Celeb-DF nearly everyone was swapped with
    everyone), they are parted between persons, and the fakes of persons on two sides are left out.
    """
    clips = sorted(records, key=lambda r: r.file)
    shares = shares_of(train, validation)
    side = _official_sides(clips) if official else {}
    _adopt(clips, side)
    free = [r for r in clips if not any(t in side for t in traits(r))]
    side |= _seeded_sides(free, shares, seed)
    withheld = set(hold_out)
    split: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for r in clips:
        sides = {side[t] for t in traits(r)}
        if official and r.split:
            sides.add(r.split)
        if len(sides) > 1:
            left_out[r.file] = KIN
        elif r.method in withheld and sides != {"test"}:
            left_out[r.file] = HELD_OUT
        else:
            (split[r.file],) = sides
    return Split(split, left_out)


def shares_of(train: float, validation: float) -> dict[str, float]:
    """The share of each split; what neither trains nor validates tests."""
    return {"train": train, "validation": validation, "test": round(1 - train - validation, 9)}


def _official_sides(clips: list[Record]) -> dict[str, str]:
    """The split of each person and recording in clips that have an official one."""
    side: dict[str, str] = {}
    for name in PRECEDENCE:
        for r in clips:
            if r.split == name:
                for trait in traits(r):
                    side.setdefault(trait, name)
    return side


def _adopt(clips: list[Record], side: dict[str, str]) -> None:
    """Give kin of clips with an official split, that have none themselves, the same side."""
    open_clips = [r for r in clips if not r.split]
    component = joined(traits(r) for r in open_clips)
    taken: dict[str, set[str]] = {}
    for trait, top in component.items():
        if trait in side:
            taken.setdefault(top, set()).add(side[trait])
    for trait, top in component.items():
        if top in taken:
            side.setdefault(trait, min(taken[top], key=PRECEDENCE.index))


def _seeded_sides(clips: list[Record], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """A side for each person and recording of these clips, drawn so that each split gets its share."""
    total = Counter(r.fake for r in clips)
    component = joined(traits(r) for r in clips)
    sizes = _sizes(clips, component)
    most = max(shares.values())
    too_large = {top for top, n in sizes.items() if any(n[c] > most * total[c] for c in n if total[c] > 1)}
    if too_large:
        component = _parted(clips, component, too_large)
        sizes = _sizes(clips, component)
    home = _filled(sizes, shares, seed)
    return {trait: home[top] for trait, top in component.items()}


def _parted(clips: list[Record], component: dict[str, str], too_large: set[str]) -> dict[str, str]:
    """The components again, those too large held together by their real clips alone."""
    holding = [r for r in clips if not r.fake or component[traits(r)[0]] not in too_large]
    loose = [[t] for r in clips for t in traits(r)]
    return joined([*(traits(r) for r in holding), *loose])


def _sizes(clips: list[Record], component: dict[str, str]) -> dict[str, Sizes]:
    """Clips of each component; a clip between two components counts for neither."""
    sizes: dict[str, Sizes] = {top: Counter() for top in component.values()}
    for r in clips:
        tops = {component[t] for t in traits(r)}
        if len(tops) == 1:
            sizes[tops.pop()][r.fake] += 1
    return sizes


def _filled(sizes: Mapping[str, Sizes], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """A split for each component: the largest first, each to where most of its kind is lacking."""
    total = Counter[bool]()
    for n in sizes.values():
        total.update(n)
    names = sorted(sizes)
    drawn = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    filled: dict[str, Sizes] = {name: Counter() for name in SPLITS if shares[name] > 0}
    home = {}
    for top in sorted(drawn, key=lambda t: -sizes[t].total()):
        n = sizes[top]

        def surplus(name: str, n: Sizes = n) -> float:
            return sum(
                n[c] * (filled[name][c] - shares[name] * total[c]) / total[c] ** 2 for c in n if total[c]
            )

        home[top] = min(filled, key=surplus)
        filled[home[top]].update(n)
    return home
