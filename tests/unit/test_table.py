"""Findings for people: marks over time, colours, and no name that steers a terminal."""

import io
from collections import Counter

import pytest
from rich.console import Console

from cli.findings import Finding
from cli.table import BLOCKS, MOST_MARKS, Table, colour, place, shown, sparkline

THRESHOLDS = {"authentic_below": 0.4, "manipulated_above": 0.8}
FACE = {
    "track": 0,
    "probabilities": {"real": 0.1, "fake": 0.9},
    "first_s": 0.0,
    "last_s": 4.0,
    "quality": {"remarks": ["small"]},
    "timeline": [{"fake": 0.05}, {"fake": 0.5}, {"fake": 0.95}],
    "explanation": None,
}
ANSWER = {
    "verdict": "manipulated",
    "probabilities": {"real": 0.1, "fake": 0.9},
    "summary": "Signs of manipulation in the one face.",
    "faces": [FACE, FACE | {"track": 3, "probabilities": None, "timeline": []}],
    "media": {"duration_s": 4.0},
    "model": {"thresholds": THRESHOLDS},
}
FINDING = Finding("clip.mp4", 1, 1, ANSWER)


def printed(*findings: Finding, encoding: str = "utf-8", before=None, **console) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    table = Table(Console(file=file, highlight=False, **console), before)
    for finding in findings:
        table.add(finding)
    table.close()
    return file.buffer.getvalue().decode(encoding)


def test_each_face_has_its_line_over_time_under_the_number_of_the_answer():
    assert printed(FINDING, width=40).splitlines() == [
        "manipulated     clip.mp4  4.0 s",
        "                Signs of manipulation in the one face.",
        "                face 0   90%  ▁▅█  0.0 to 4.0 s  small",
        "                face 3     -    0.0 to 4.0 s  small",
    ]


def explained(*frames: dict, withheld: str | None = None, **face) -> Finding:
    explanation = {"method": "occlusion", "withheld": withheld, "frames": list(frames)}
    return Finding("clip.mp4", 1, 1, ANSWER | {"faces": [FACE | face | {"explanation": explanation}]})


MAP = {
    "time_s": 1.12,
    "fake": 0.89,
    "grid": [[0.0, 0.1, 0.7], [0.1, -0.9, 0.1], [0.0, 0.1, 0.0]],
    "faithfulness": {"deletion": 0.31, "random": -0.04, "area": 1 / 3},
    "withheld": None,
}
WITHHELD = MAP | {"fake": 0.95, "grid": None, "withheld": "not_better_than_random: chance does as well"}


def test_an_explained_face_has_a_line_of_when_where_and_how_sure():
    lines = printed(explained(MAP), width=40).splitlines()
    assert lines[2].startswith("                face 0   90%  ")
    assert lines[3:] == [
        "                why      89%  at 1.12 s, upper right; "
        "log-odds fall by 0.31 without the strongest 33% of the map's cells, "
        "rise by 0.04 without as many at random",
    ]


def test_the_look_that_is_told_is_the_first_that_has_a_map():
    assert "at 1.12 s, upper right" in printed(explained(WITHHELD, MAP, MAP | {"time_s": 2.0}))


@pytest.mark.parametrize(
    "finding",
    [
        explained(WITHHELD),
        explained(withheld="not_judged: chance does as well"),
        explained(withheld="chance does as well", probabilities=None),
    ],
)
def test_a_face_without_a_map_says_why_there_is_none(finding):
    assert printed(finding).splitlines()[3:] == [
        "                why        -  withheld: chance does as well"
    ]


def test_a_reason_that_several_faces_share_is_said_once():
    low = explained(WITHHELD).answer["faces"][0]
    out = explained(withheld="many_faces: only six").answer["faces"][0]
    shown_map = explained(MAP).answer["faces"][0]
    numbered = [face | {"track": k} for k, face in enumerate((low, shown_map, out, low, FACE))]
    lines = printed(Finding("clip.mp4", 1, 1, ANSWER | {"faces": numbered})).splitlines()
    assert [line.split()[:2] for line in lines[2:]] == [
        *(["face", "0"], ["face", "1"], ["why", "89%"], ["face", "2"], ["face", "3"], ["face", "4"]),
        *(["why", "-"], ["why", "-"]),
    ]
    assert [line.split("  ")[-1] for line in lines[-2:]] == [
        "withheld for face 0, 3: chance does as well",
        "withheld for face 2: only six",
    ]


def test_the_line_of_an_explanation_is_coloured_on_terminals_alone(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[31m 89%" in printed(explained(MAP), width=200, force_terminal=True, color_system="standard")
    assert "\x1b" not in printed(explained(MAP), width=200)


@pytest.mark.parametrize(
    ("side", "cell", "expected"),
    [
        (3, (0, 0), "upper left"),
        (3, (1, 1), "middle"),
        (3, (2, 1), "bottom"),
        (4, (3, 3), "lower right"),
        (4, (1, 0), "left"),
        (4, (0, 2), "top"),
        (1, (0, 0), "middle"),
    ],
)
def test_a_cell_has_a_place_in_words(side, cell, expected):
    grid = [[0.0] * side for _ in range(side)]
    grid[cell[0]][cell[1]] = 0.5
    assert place(grid) == expected


def test_a_narrow_terminal_keeps_its_margin(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    lines = printed(FINDING, width=40, force_terminal=True, color_system=None).splitlines()
    assert len(lines) > 4
    assert all(line.startswith(" " * 16) for line in lines[1:])


@pytest.mark.parametrize("coloured", [True, False])
def test_colours_are_for_terminals_and_can_be_turned_off(monkeypatch, coloured):
    monkeypatch.setenv("TERM", "xterm")
    if coloured:
        monkeypatch.delenv("NO_COLOR", raising=False)
    else:
        monkeypatch.setenv("NO_COLOR", "1")
    text = printed(FINDING, width=80, force_terminal=True, color_system="standard")
    assert all(
        (f"\x1b[{number}m{mark}" in text) is coloured for number, mark in ((32, "▁"), (33, "▅"), (31, "█"))
    )
    assert "\x1b" not in printed(FINDING, width=80)


def test_without_unicode_marks_are_tenths():
    assert "  059  " in printed(FINDING, encoding="ascii", width=80)


def test_errors_say_why_and_all_are_counted():
    lost = Finding("a.mp4", None, None, None, {"type": "about:blank", "detail": "No such file"})
    lines = printed(lost, FINDING, lost, before=Counter({"authentic": 2}), width=80).splitlines()
    assert lines[:2] == ["error           a.mp4", "                No such file"]
    assert lines[-1] == "5 files: 2 error, 2 authentic, 1 manipulated, 2 of them known before"


def test_neighbours_share_a_mark_that_shows_the_highest():
    fakes = [0.0] * 100
    fakes[51] = 0.99
    line = sparkline(fakes, THRESHOLDS).plain
    assert len(line) == MOST_MARKS
    assert line.count(BLOCKS[-1]) == 1
    assert line.count(BLOCKS[0]) == MOST_MARKS - 1
    assert sparkline([], THRESHOLDS).plain == ""
    assert sparkline([0.0, 1.0], THRESHOLDS).plain == BLOCKS[0] + BLOCKS[-1]


@pytest.mark.parametrize(
    ("fake", "expected"), [(0.0, "green"), (0.4, "yellow"), (0.79, "yellow"), (0.8, "red"), (1.0, "red")]
)
def test_colours_are_those_of_the_verdicts(fake, expected):
    assert colour(fake, THRESHOLDS) == expected


def test_names_can_not_steer_a_terminal():
    assert shown("a\x1b[2J\r\u202e\udcff é") == "a\\x1b[2J\\r\\u202e\\udcff é"


SIGNED = {
    "c2pa": "present",
    "valid": True,
    "trusted": None,
    "signer": "A\x1b[2J",
    "codes": [],
    "unchecked": None,
}


@pytest.mark.parametrize(
    ("provenance", "says"),
    [
        (
            SIGNED,
            r'valid, its signer is not held against any list of whom to trust; named "A\x1b[2J"',
        ),
        (SIGNED | {"trusted": True, "signer": "A"}, 'valid, its signer is trusted; named "A"'),
        (SIGNED | {"trusted": False, "signer": "A"}, 'valid, its signer is not trusted; named "A"'),
        (
            SIGNED | {"valid": False, "signer": "A", "codes": ["a.b", "c"]},
            "not valid (a.b, c)",
        ),
        (SIGNED | {"valid": False}, "not valid"),
        (
            SIGNED | {"trusted": False, "signer": 'A" is trusted, “B”'},
            """valid, its signer is not trusted; named "A' is trusted, 'B'\"""",
        ),
        (SIGNED | {"valid": None, "unchecked": "too_large"}, "present, not looked into (too_large)"),
        ({"c2pa": "present", "valid": None}, "present, not looked into"),
    ],
)
def test_a_manifest_of_provenance_has_its_line(provenance, says):
    finding = Finding("clip.mp4", 1, 1, ANSWER | {"media": {"duration_s": 4.0, "provenance": provenance}})
    assert f"{' ' * 16}C2PA manifest: {says}" in printed(finding, width=40).splitlines()
    assert len(printed(finding).splitlines()) == len(printed(FINDING).splitlines()) + 1


def test_without_a_manifest_nothing_is_said():
    media = {"duration_s": 4.0, "provenance": {"c2pa": "absent", "valid": None}}
    assert printed(Finding("clip.mp4", 1, 1, ANSWER | {"media": media})) == printed(FINDING)
