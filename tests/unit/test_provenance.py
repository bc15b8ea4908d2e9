"""Provenance: licences counted, paths of one machine left out."""

import re
from pathlib import Path

from training.corpus import ClipRow, Corpus, PairRow
from training.provenance import measuring, revision, shown, sources


def clip(file: str, licence: str) -> ClipRow:
    return ClipRow(file, False, "train", "tv", "somebody", "origin", licence)


def test_sources_count_licences_and_say_where_none_is_stated() -> None:
    corpus = Corpus(Path(), [clip("a", "MIT"), clip("b", ""), clip("c", "MIT"), clip("d", "CC0")], [])
    assert sources(corpus, ["a", "b", "c"], "real clips") == [
        {"what": "real clips", "clips": 2, "licence": "MIT"},
        {"what": "real clips", "clips": 1, "licence": "not stated"},
    ]


def test_paths_outside_of_the_working_directory_are_shown_by_name() -> None:
    assert shown(Path("runs/embedded/model.pt")) == "runs/embedded/model.pt"
    assert shown(Path("/home/somebody/corpus")) == "corpus"
    assert shown(Path("../elsewhere/corpus")) == "corpus"


def test_the_measuring_command_names_the_split_and_the_pairs_that_there_are() -> None:
    alone = Corpus(Path("/data/corpus"), [clip("a", "MIT")], [])
    command = "deepfake-detect evaluate models/NAME --clips corpus/clips.csv"
    assert measuring(alone) == f"{command} --split measure --card"
    paired = Corpus(alone.root, alone.clips, [PairRow("measure", "lipsync", "somebody", "a", "b")])
    assert measuring(paired) == f"{command} --pairs corpus/pairs.csv --split measure --card"


def test_revision_is_a_commit_or_a_version() -> None:
    assert re.fullmatch(r"[0-9a-f]{7,40}\+?|\d+\.\d+.*", revision())
