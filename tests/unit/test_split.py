"""Splits and selections: nothing leaks, shares hold, and a recipe gets what it asks for."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import training
from training.corpus import kinship
from training.datasets import Record
from training.selection import (
    Selection,
    SelectionError,
    apportion,
    make_selection,
    read_selection,
    strata,
)
from training.split import HELD_OUT, KIN, assign

RECIPE = Path(training.__file__).parent / "recipes" / "selection-paper.toml"
METHODS = ("swap", "lips", "talk")


@st.composite
def data_sets(draw):
    """Real clips of some people, each its own recording, and fakes of two people and two recordings."""
    people = draw(st.integers(1, 12))
    owner = draw(st.lists(st.integers(0, people - 1), min_size=1, max_size=25))
    splits = st.sampled_from(draw(st.sampled_from([[""], ["", "test"], ["train", "test", "validation", ""]])))
    records = [Record(f"r{k}", False, f"p{p}", f"o{k}", split=draw(splits)) for k, p in enumerate(owner)]
    fakes = st.tuples(
        st.integers(0, len(owner) - 1),
        st.integers(0, people - 1),
        st.integers(0, len(owner)),
        st.sampled_from(METHODS),
        splits,
    )
    for k, (target, donor, footage, method, split) in enumerate(draw(st.lists(fakes, max_size=25))):
        identity = "+".join(dict.fromkeys([f"p{owner[target]}", f"p{donor}"]))
        records.append(Record(f"f{k}", True, identity, f"o{target}+o{footage}", method, split))
    return records


shares = st.sampled_from([(0.7, 0.0), (0.7, 0.3), (0.6, 0.2), (1.0, 0.0)])


@given(data_sets(), shares, st.integers(0, 3), st.booleans(), st.sets(st.sampled_from(METHODS)))
def test_no_person_no_recording_and_no_held_out_generator_leaks(records, share, seed, official, held):
    found = assign(records, train=share[0], validation=share[1], seed=seed, official=official, hold_out=held)
    assert found.split.keys() | found.left_out.keys() == {r.file for r in records}
    assert not found.split.keys() & found.left_out.keys()
    sides: dict[str, set[str]] = {}
    for r in records:
        if split := found.split.get(r.file):
            for name in [*r.identity.split("+"), *r.source.split("+")]:
                sides.setdefault(name, set()).add(split)
            assert split == "test" or r.method not in held
            assert not official or r.split in {"", split}
    assert all(len(s) == 1 for s in sides.values())
    kept = [r for r in records if r.file in found.split]
    components: dict[str, set[str]] = {}
    for file, kin in kinship(kept).items():
        components.setdefault(kin, set()).add(found.split[file])
    assert all(len(s) == 1 for s in components.values())


@given(data_sets(), st.integers(0, 3), st.randoms())
def test_a_split_depends_on_the_seed_and_not_on_the_order(records, seed, random):
    shuffled = random.sample(records, len(records))
    assert assign(records, seed=seed).split == assign(shuffled, seed=seed).split


@given(data_sets(), shares)
def test_a_drawn_split_loses_no_real_clip(records, share):
    found = assign(records, train=share[0], validation=share[1], official=False)
    assert all(not r.file.startswith("r") for r in records if r.file in found.left_out)
    assert set(found.left_out.values()) <= {KIN}


@given(st.integers(4, 60), st.integers(0, 5), shares)
def test_independent_pairs_are_split_by_their_shares_and_balanced(count, seed, share):
    records = [
        Record(f"{kind}{k}", kind == "f", f"p{k}", f"o{k}", "swap" * (kind == "f"))
        for k in range(count)
        for kind in "rf"
    ]
    found = assign(records, train=share[0], validation=share[1], seed=seed)
    assert not found.left_out
    for kind in "rf":
        sizes = Counter(s for f, s in found.split.items() if f[0] == kind)
        for name, part in zip(("train", "validation", "test"), (*share, 1 - sum(share)), strict=True):
            assert abs(sizes[name] - part * count) <= 1.0 + 1e-6


@pytest.mark.parametrize("seed", range(8))
def test_large_families_do_not_spoil_the_shares(seed):
    sizes = [*[1] * 40, 10, 20, 30]
    records = [Record(f"{p}-{k}", False, f"p{p}", f"{p}-{k}") for p, n in enumerate(sizes) for k in range(n)]
    assert Counter(assign(records, seed=seed).split.values()) == {"train": 70, "test": 30}


def test_where_everyone_was_swapped_with_everyone_bridging_fakes_are_left_out():
    people = range(20)
    records = [Record(f"r{p}", False, f"p{p}", f"o{p}") for p in people]
    records += [
        Record(f"f{a}-{b}", True, f"p{a}+p{b}", f"o{a}", "swap") for a in people for b in people if a != b
    ]
    found = assign(records, official=False)
    real = Counter(s for f, s in found.split.items() if f[0] == "r")
    fake = Counter(s for f, s in found.split.items() if f[0] == "f")
    assert real == {"train": 14, "test": 6}
    assert fake == {"train": 14 * 13, "test": 6 * 5}
    assert Counter(found.left_out.values()) == {KIN: 2 * 14 * 6}


def test_an_official_split_is_kept_and_its_leaks_are_closed():
    records = [
        Record("a", False, "ann", "1", split="train"),
        Record("b", False, "bob", "2", split="test"),
        Record("swap", True, "ann+bob", "1", "m", "train"),
        Record("kin of bob", False, "bob", "3"),
    ]
    found = assign(records)
    assert found.split == {"a": "train", "b": "test", "kin of bob": "test"}
    assert found.left_out == {"swap": KIN}
    assert set(assign(records, official=False).left_out) <= {"swap"}


def test_a_held_out_generator_is_seen_in_the_test_alone():
    records = [
        Record(f"{kind}{k}", kind != "r", f"p{k}", f"o{k}", {"r": "", "s": "swap", "l": "lips"}[kind])
        for k in range(20)
        for kind in "rsl"
    ]
    found = assign(records, hold_out=["lips"])
    lips = Counter(s for f, s in found.split.items() if f[0] == "l")
    assert lips == {"test": 6}
    assert Counter(found.left_out.values()) == {HELD_OUT: 14}
    assert Counter(s for f, s in found.split.items() if f[0] == "s") == {"train": 14, "test": 6}


@given(st.integers(0, 500), st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_whole_parts_add_up_and_are_near_their_weights(total, weights):
    assume(sum(weights) > 1e-3)
    named = {str(k): w for k, w in enumerate(weights)}
    parts = apportion(total, named)
    assert sum(parts.values()) == total
    assert all(abs(parts[n] - total * w / sum(weights)) < 1 for n, w in named.items())


def many(real: int, per_method: int) -> tuple[list[Record], dict[str, str]]:
    records = [Record(f"r{k:03d}", False, f"p{k}", f"o{k}") for k in range(real)]
    records += [
        Record(f"f-{m}-{k:03d}", True, f"p{k}", f"o{k}", m) for m in METHODS for k in range(per_method)
    ]
    return records, assign(records).split


def test_a_quota_is_shared_out_over_splits_and_methods():
    records, split = many(40, 40)
    selection = Selection(split="seeded", table={"real": 20, "fake": 30})
    found = {(s.split, s.fake): s for s in strata(records, split, "table", selection)}
    assert {k: s.wanted for k, s in found.items() if s.wanted} == {
        ("train", False): 14,
        ("test", False): 6,
        ("train", True): 21,
        ("test", True): 9,
    }
    taken = [r for s in found.values() for r in s.candidates[: s.wanted]]
    assert Counter(r.method for r in taken if r.fake) == dict.fromkeys(METHODS, 10)
    assert len(found["train", False].candidates) == 28


def test_a_quota_may_name_its_methods():
    records, split = many(40, 40)
    quota = {"real": 10, "fake": 10, "methods": ["lips"]}
    found = strata(records, split, "table", Selection(split="seeded", table=quota))
    assert {r.method for s in found for r in s.candidates if s.fake} == {"lips"}


def test_without_a_quota_all_is_wanted():
    records, split = many(10, 10)
    assert (
        sum(s.wanted for s in strata(records, split, "table", Selection(dfdc={"real": 1, "fake": 1}))) == 40
    )


def test_a_quota_follows_the_official_split_where_it_is_kept():
    records = [
        Record(f"r{k}", False, f"p{k}", f"o{k}", split="train" if k < 30 else "test") for k in range(40)
    ]
    found = strata(records, assign(records).split, "table", Selection(table={"real": 8, "fake": 0}))
    assert {s.split: s.wanted for s in found if s.wanted} == {"train": 6, "test": 2}


def test_the_same_seed_draws_the_same_clips():
    records, split = many(40, 40)

    def drawn(seed: int) -> list[list[str]]:
        return [[r.file for r in s.candidates] for s in strata(records, split, "table", Selection(seed=seed))]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_a_quota_that_is_too_large_is_an_error():
    records, split = many(10, 2)
    wants = Selection(split="seeded", table={"real": 10, "fake": 9})
    with pytest.raises(SelectionError, match="wants 6 fake clips of table in the split train, there are"):
        strata(records, split, "table", wants)
    with pytest.raises(SelectionError, match="wants 3 fake clips"):
        strata(records[:10], split, "table", Selection(table={"real": 0, "fake": 3}))


def test_the_selection_of_the_paper_is_a_recipe():
    selection = read_selection(RECIPE)
    quotas = [selection.quota(kind) for kind in ("faceforensics", "dfdc", "celebdf")]
    assert [(q.real, q.fake) for q in quotas] == [(500, 500), (1000, 1000), (500, 500)]
    assert (selection.split, selection.train, selection.validation) == ("seeded", 0.7, 0.0)
    assert read_selection(RECIPE, {"seed": 4}).seed == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sed = 1", "sed: Extra inputs"),
        ("[dfdc]\nreal = 1\nfake = 1\nboth = 2", r"dfdc\.both: Extra inputs"),
        ("[dfdc]\nreal = -1\nfake = 1", r"dfdc\.real"),
        ("[dfdc]\nreal = 1", r"dfdc\.fake: Field required"),
        ('split = "random"', "split"),
        ("train = 0.8\nvalidation = 0.3", "more than all clips"),
        ("seed = ", "is not TOML"),
    ],
)
def test_what_no_selection_has_is_an_error(tmp_path, text, words):
    path = tmp_path / "selection.toml"
    path.write_text(text)
    with pytest.raises(SelectionError, match=words):
        read_selection(path)


def test_a_selection_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(SelectionError, match="can not be read"):
        read_selection(tmp_path / "none.toml")
    with pytest.raises(SelectionError, match="the options: train"):
        make_selection({"train": 2})
