"""A scan goes on where an earlier one ended, and what it has written stays whole."""

import csv
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli.findings import COLUMNS, Finding, Format, appending, sink_of
from cli.resume import NotResumable, read_held, resume
from tests.bundles import tiny_bundle
from tests.media import face_clip
from tests.server import ROOT

DIGEST = "sha256:0"
FORMS = [Format.jsonl, Format.csv]


def answer(sha256: str, verdict: str = "authentic", digest: str = DIGEST) -> dict:
    return {
        "verdict": verdict,
        "probabilities": {"real": 0.5, "fake": 0.5},
        "faces": [],
        "summary": 'it says "nothing",\nin two lines\u2028or three',
        "reasons": [],
        "media": {"sha256": sha256, "duration_s": 1.0},
        "model": {"id": "tiny", "digest": digest},
    }


def finding(path: Path, **given: str) -> Finding:
    status = path.stat()
    known = answer(hashlib.sha256(path.read_bytes()).hexdigest(), **given)
    return Finding(str(path), status.st_size, status.st_mtime_ns, known)


def failed(path: Path) -> Finding:
    return Finding(str(path), None, None, None, {"type": "about:blank", "detail": "No such file"})


def write(out: Path, form: Format, *findings: Finding) -> None:
    begun = out.exists()
    with appending(out) as add:
        sink = sink_of(form, add, "utf-8", begun=begun)
        for one in findings:
            sink.add(one)
        sink.close()


@pytest.fixture
def clips(tmp_path):
    paths = [tmp_path / f"{name}.mp4" for name in "abcd"]
    for path in paths:
        path.write_bytes(path.name.encode())
    return paths


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


@pytest.fixture
def out(tmp_path, form):
    return tmp_path / f"found.{form.value}"


def files_in(out: Path, form: Format) -> list[str]:
    return [Path(h.file).name for h in read_held(out, form)]


def test_what_is_held_is_left_out_and_its_verdict_counts(out, form, clips):
    a, b, c, _ = clips
    write(out, form, finding(a), finding(b, verdict="manipulated"))
    before = out.read_bytes()
    assert resume(out, form, [a, b, c], DIGEST) == ([c], ["authentic", "manipulated"])
    assert out.read_bytes() == before


def test_a_file_is_known_by_its_bytes_where_its_time_has_changed(out, form, clips):
    a, b, *_ = clips
    write(out, form, finding(a), finding(b))
    os.utime(a, ns=(1, 1))
    b.write_bytes(b"other")
    os.utime(b, ns=(1, 1))
    assert resume(out, form, [a, b], DIGEST) == ([b], ["authentic"])
    assert files_in(out, form) == ["a.mp4"]


def test_a_file_of_the_same_size_and_time_is_not_read_again(out, form, clips):
    a, *_ = clips
    write(out, form, finding(a))
    status = a.stat()
    a.write_bytes(b"A.mp4")
    os.utime(a, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert resume(out, form, [a], DIGEST)[0] == []


def test_errors_and_verdicts_of_another_bundle_are_tried_again_and_stand_there_once(out, form, clips):
    a, b, c, d = clips
    write(out, form, finding(a), failed(b), finding(c, digest="sha256:1"), finding(d, digest="sha256:1"))
    left, verdicts = resume(out, form, [a, b, c], DIGEST)
    assert (left, verdicts) == ([b, c], ["authentic"])
    assert files_in(out, form) == ["a.mp4", "d.mp4"]
    write(out, form, finding(b), finding(c))
    assert files_in(out, form) == ["a.mp4", "d.mp4", "b.mp4", "c.mp4"]
    assert resume(out, form, [a, b, c], DIGEST)[0] == []


def test_what_was_torn_anywhere_is_made_whole(out, form, clips):
    a, b, *_ = clips
    write(out, form, finding(a))
    whole = len(out.read_bytes())
    write(out, form, finding(b))
    content = out.read_bytes()
    for cut in range(whole, len(content)):
        out.write_bytes(content[:cut])
        left, _ = resume(out, form, [a, b], DIGEST)
        assert left == [b]
        assert out.read_bytes() == content[:whole]
        write(out, form, finding(b))
        assert out.read_bytes() == content


def test_an_empty_file_is_the_beginning(out, form, clips):
    out.touch()
    assert resume(out, form, clips, DIGEST) == (clips, [])
    write(out, form, finding(clips[0]))
    assert files_in(out, form) == ["a.mp4"]
    if form is Format.csv:
        assert next(csv.reader(io.StringIO(out.read_text()))) == COLUMNS


def test_a_name_in_no_encoding_is_known_again(out, form, tmp_path):
    odd = tmp_path / os.fsdecode(b"caf\xe9 \xff.mp4")
    odd.write_bytes(b"x")
    write(out, form, finding(odd))
    assert resume(out, form, [odd], DIGEST) == ([], ["authentic"])
    if form is Format.jsonl:
        assert json.loads(out.read_bytes().decode("utf-8"))["file"] == str(odd)


@pytest.mark.parametrize(
    "name",
    [
        *(f"{first}1.mp4" for first in "=+-@\t\r\n＝＋－＠"),
        *(
            "'=3.mp4",
            "''@4.mp4",
            "'plain.mp4",
            "x;=1+1;.mp4",
            'x\t"=2".mp4',
            "x;'=3.mp4",
            "x\n-4.mp4",
            "a, b.mp4",
        ),
    ],
)
def test_a_name_like_a_formula_is_known_again(out, form, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(b"x")
    write(out, form, finding(Path(name)))
    before = out.read_bytes()
    assert resume(out, form, [Path(name)], DIGEST) == ([], ["authentic"])
    assert out.read_bytes() == before


def test_rows_of_before_texts_were_guarded_and_quoted_are_known_and_written_anew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("-a.mp4").write_bytes(b"x")
    out = tmp_path / "found.csv"
    old, lost = finding(Path("-a.mp4")), failed(Path("x;=b"))
    before = io.StringIO(newline="")
    csv.writer(before).writerows([COLUMNS, old.as_row(), lost.as_row()])
    out.write_bytes(before.getvalue().encode())
    assert resume(out, Format.csv, [Path("-a.mp4")], DIGEST) == ([], ["authentic"])
    now = tmp_path / "now.csv"
    write(now, Format.csv, old, lost)
    assert out.read_bytes() == now.read_bytes(), "all of it as it would be written now"


UNKNOWN = '{"file": "a", "answer": {"verdict": "sure", "media": {"sha256": ""}, "model": {"digest": ""}}}\n'


@pytest.mark.parametrize("content", ["{}\n", "[1]\n", "1\n", "no\n", "a,b\n1,2\n", UNKNOWN])
def test_another_file_is_left_alone(out, form, clips, content):
    out.write_text(content)
    with pytest.raises(NotResumable, match=str(out)):
        resume(out, form, clips, DIGEST)
    assert out.read_text() == content


def test_a_full_disk_is_told(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with pytest.raises(OSError, match="No space"), appending(Path("/dev/full")) as add:
        add("x\n")


INTERRUPTED = """
import os, signal, sys
import cli.scan
from cli.main import main
judged, number = cli.scan._judge, getattr(signal, sys.argv.pop())
signal.signal(signal.SIGINT, signal.default_int_handler)  # who is started in the background may ignore it
def stopping(settings, *, explain):
    judge, digest = judged(settings, explain=explain)
    def once(file, tell):
        if file.name == "b.mp4":
            os.kill(os.getpid(), number)
        return judge(file, tell)
    return once, digest
cli.scan._judge = stopping
main()
"""


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGKILL", -signal.SIGKILL)])
def test_a_scan_that_was_ended_goes_on(tmp_path, number, code):
    tiny_bundle(tmp_path / "models" / "tiny")
    face_clip(tmp_path / "a.mp4")
    for name in "bc":
        shutil.copy(tmp_path / "a.mp4", tmp_path / f"{name}.mp4")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DETECTOR_")}
    environment |= {"DETECTOR_MODELS_DIR": str(tmp_path / "models"), "PYTHONPATH": str(ROOT)}
    words = ["scan", "--resume", "--out", "found.jsonl", "a.mp4", "b.mp4", "c.mp4"]

    def run(code: str, *more: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", code, *words, *more]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    ended = run(INTERRUPTED, number)
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    assert files_in(tmp_path / "found.jsonl", Format.jsonl) == ["a.mp4"]
    done = run("from cli.main import main; main()")
    assert done.returncode in {0, 1, 2}, done.stderr
    assert files_in(tmp_path / "found.jsonl", Format.jsonl) == ["a.mp4", "b.mp4", "c.mp4"]
