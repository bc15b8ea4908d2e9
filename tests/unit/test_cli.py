"""The command line: exit codes, lines for programs, tables for people, and no traceback."""

import contextlib
import csv
import hashlib
import io
import json
import os
import pty
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from cli.main import main
from pipeline.spec import CropSpec
from service.keys import read_keys
from tests.bundles import tiny_bundle
from tests.media import TEXT, face_clip, pattern, write_clip
from tests.shards import toy_faces, write_shards
from training.reconstruct import load_autoencoders, varied


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    at = tmp_path_factory.mktemp("media")
    face_clip(at / "face.mp4")
    write_clip(at / "plain.mp4", pattern(20))
    (at / "text.txt").write_bytes(TEXT)
    return at


@pytest.fixture
def models(tmp_path, monkeypatch):
    """One tiny bundle whose verdict on the face clip is as asked: it likes red and dislikes blue."""

    def make(**kwargs):
        monkeypatch.setenv("DETECTOR_MODELS_DIR", str(tmp_path / "models"))
        return tiny_bundle(tmp_path / "models" / "tiny", **kwargs)

    return make


VERDICTS = {
    "authentic": (0.99, 1.0),
    "manipulated": (0.0, 0.01),
    "uncertain": (0.0, 1.0),
}
MAIN = "from cli.main import main; main()"
CODES = {"authentic": 0, "manipulated": 1, "uncertain": 2}


def run(*args, capsys) -> tuple[int, str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["deepfake-detect", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            main()
    printed = capsys.readouterr()
    return int(stop.value.code or 0), printed.out, printed.err


@pytest.mark.parametrize("verdict", VERDICTS)
def test_exit_code_tells_the_verdict(media, models, capsys, verdict):
    models(thresholds=VERDICTS[verdict])
    code, out, _ = run("scan", "--json", media / "face.mp4", capsys=capsys)
    (line,) = map(json.loads, out.splitlines())
    assert line["file"] == str(media / "face.mp4")
    assert line["answer"]["verdict"] == verdict
    assert code == CODES[verdict]


def test_scanning_explains_when_asked(media, models, capsys):
    models(thresholds=(0.0, 1.0))
    plain, explained = (
        json.loads(run("scan", "--json", *more, media / "face.mp4", capsys=capsys)[1])["answer"]
        for more in ((), ("--explain",))
    )
    assert plain["faces"][0].pop("explanation") is None
    explanation = explained["faces"][0].pop("explanation")
    assert explanation["method"] == "occlusion"
    assert explanation["frames"]
    assert plain["faces"] == explained["faces"]
    assert explained["timing_ms"]["explain"] > plain["timing_ms"]["explain"] == 0
    _, table, _ = run("scan", "--explain", media / "face.mp4", capsys=capsys)
    assert any(line.split()[0] == "why" for line in table.splitlines())
    _, table, _ = run("scan", media / "face.mp4", capsys=capsys)
    assert "why" not in table


def test_json_lines_go_on_after_a_bad_file(media, models, capsys):
    models(thresholds=VERDICTS["manipulated"])
    files = [media / n for n in ("text.txt", "absent.mp4", "plain.mp4", "face.mp4")]
    code, out, _ = run("scan", "--json", *files, capsys=capsys)
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["file"] for line in lines] == [str(f) for f in files]
    assert lines[0]["error"]["type"] == "/problems/unsupported-media"
    assert "No such file" in lines[1]["error"]["detail"]
    assert lines[2]["answer"]["verdict"] == "not_applicable"
    assert lines[3]["answer"]["verdict"] == "manipulated"
    assert code == 3


@pytest.mark.parametrize(
    ("names", "code"), [(("plain.mp4",), 2), (("plain.mp4", "face.mp4"), 1), (("face.mp4", "text.txt"), 3)]
)
def test_the_gravest_finding_decides_the_exit_code(media, models, capsys, names, code):
    models(thresholds=VERDICTS["manipulated"])
    assert run("scan", *(media / n for n in names), capsys=capsys)[0] == code


def test_the_table_is_for_people(media, models, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    models(thresholds=VERDICTS["authentic"])
    _, out, _ = run("scan", media / "face.mp4", media / "plain.mp4", capsys=capsys)
    assert "No sign of manipulation found in the one face" in out
    assert "no face was found" in out
    assert "not applicable" in out


def test_folders_and_patterns_are_looked_into(media, models, capsys, tmp_path, monkeypatch):
    models(thresholds=VERDICTS["authentic"])
    deep = tmp_path / "clips" / "deep"
    deep.mkdir(parents=True)
    for name in ("b.mp4", "deep/a.mp4"):
        shutil.copy(media / "face.mp4", tmp_path / "clips" / name)
    (tmp_path / "clips" / "notes.txt").write_text("nothing to see")
    monkeypatch.chdir(tmp_path)

    def scanned(*words):
        return [
            json.loads(line)["file"] for line in run("scan", "--json", *words, capsys=capsys)[1].splitlines()
        ]

    assert scanned("clips") == ["clips/b.mp4", "clips/deep/a.mp4"]
    assert scanned("--no-recursive", "clips") == ["clips/b.mp4"]
    assert scanned("clips/**/a.mp4", "clips") == ["clips/deep/a.mp4", "clips/b.mp4"]


def test_a_folder_without_media_is_an_error(models, capsys, tmp_path):
    models()
    code, out, err = run("scan", tmp_path, capsys=capsys)
    assert (code, out, err) == (3, "", f"deepfake-detect: no picture or video in {tmp_path}\n")


@pytest.mark.parametrize("to_file", [True, False])
def test_json_is_one_document(media, models, capsys, tmp_path, to_file):
    models(thresholds=VERDICTS["authentic"])
    target = tmp_path / "found.json"
    where = ("--out", target) if to_file else ("--format", "json")
    _, out, _ = run("scan", *where, media / "face.mp4", media / "text.txt", capsys=capsys)
    found = json.loads(target.read_text() if to_file else out)
    assert [f["file"] for f in found] == [str(media / n) for n in ("face.mp4", "text.txt")]
    assert found[0]["answer"]["verdict"] == "authentic"
    assert found[1]["error"]["type"] == "/problems/unsupported-media"


def test_csv_has_a_row_for_each_file(media, models, capsys):
    models(thresholds=VERDICTS["manipulated"])
    _, out, _ = run(
        "scan", "--format", "csv", media / "face.mp4", media / "plain.mp4", "absent", capsys=capsys
    )
    face, plain, absent = csv.DictReader(io.StringIO(out))
    assert (face["verdict"], face["faces"]) == ("manipulated", "1")
    assert 0 < float(face["fake"]) < 1
    assert float(face["duration_s"]) == 2.0
    assert face["sha256"] == hashlib.sha256((media / "face.mp4").read_bytes()).hexdigest()
    assert face["digest"].startswith("sha256:")
    assert (plain["verdict"], plain["fake"]) == ("not_applicable", "")
    assert (absent["verdict"], absent["error"]) == ("", "No such file or directory")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--out", "found.txt"), "give --format"),
        (("--out", "found.csv", "--format", "table"), "for the terminal"),
        (("--out", "held.csv"), "--resume goes on with it"),
        (("--resume",), "--resume needs --out"),
        (("--resume", "--out", "found.json"), "--resume needs --out"),
        (("--resume", "--out", "held.csv"), "something else than the csv of a scan"),
        (("--resume", "--out", "held.csv", "--json"), "something else than the jsonl of a scan"),
    ],
)
def test_what_can_not_be_written_or_gone_on_with_is_one_line(
    media, models, capsys, tmp_path, monkeypatch, words, complaint
):
    models()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "held.csv").write_text("a,b\n1,2\n")
    code, out, err = run("scan", *words, media / "plain.mp4", capsys=capsys)
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert complaint in err
    assert (tmp_path / "held.csv").read_text() == "a,b\n1,2\n"


def test_the_service_is_one_that_can_be(media, capsys):
    code, out, err = run("scan", "--server", "nowhere", media / "face.mp4", capsys=capsys)
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert "no address of a service" in err


def test_without_its_client_a_service_can_not_be_asked(media, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "deepfake_detect_client", None)
    code, _, err = run("scan", "--server", "http://127.0.0.1:1", media / "face.mp4", capsys=capsys)
    assert code == 3
    assert "scan --server needs deepfake_detect_client: `make client`" in err


@pytest.mark.parametrize("form", ["table", "jsonl"])
def test_a_bar_on_the_terminal_takes_nothing_from_a_file(media, models, form):
    models(thresholds=VERDICTS["authentic"])
    ours, terminal = pty.openpty()
    scanning = subprocess.Popen(
        [sys.executable, "-c", MAIN, "scan", "--format", form, media / "face.mp4", media / "plain.mp4"],
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
    )
    os.close(terminal)
    with ThreadPoolExecutor(1) as pool:
        bar = pool.submit(drained, ours)
        out, _ = scanning.communicate()
    os.close(ours)
    assert out.count("face.mp4") == out.count("plain.mp4") == 1
    assert "\x1b" not in out
    assert "2 of 2  plain.mp4" in bar.result()


def drained(terminal: int) -> str:
    """What was shown on a terminal until all programs on it ended."""
    shown = b""
    with contextlib.suppress(OSError):
        while piece := os.read(terminal, 65536):
            shown += piece
    return shown.decode()


def test_a_terminal_shows_findings_above_the_bar(media, models):
    models(thresholds=VERDICTS["manipulated"])
    ours, terminal = pty.openpty()
    scanning = subprocess.Popen(
        [sys.executable, "-c", MAIN, "scan", media / "face.mp4", media / "plain.mp4"],
        env={k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm", "COLUMNS": "120"},
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    shown = drained(ours)
    os.close(ours)
    assert scanning.wait() == 1
    assert "\r\x1b[2K\x1b[1;31mmanipulated" in shown
    assert "\r\x1b[2K\x1b[1;2mnot applicable" in shown
    assert "\x1b[31m" in shown
    assert "2 files: 1 manipulated, 1 not applicable" in shown


def test_a_file_name_is_never_markup(models, capsys, tmp_path):
    models()
    code, out, _ = run("scan", "x[bold].mp4", "[/b].mp4", capsys=capsys)
    assert code == 3
    assert "x[bold].mp4" in out
    assert "[/b].mp4" in out


def test_sample_is_a_clip_with_faces(models, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    models()
    assert run("sample", "--seconds", "0.4", "--faces", "3", capsys=capsys)[0] == 0
    _, out, _ = run("scan", "--json", tmp_path / "sample.mp4", capsys=capsys)
    assert len(json.loads(out)["answer"]["faces"]) == 3


def test_verify_says_what_it_checked(models, capsys):
    path = models()
    code, out, err = run("verify", path, capsys=capsys)
    assert code == 3
    assert "disagree on bundle" in err
    (path / "encoder.onnx").write_bytes(b"x")
    code, out, err = run("verify", path, capsys=capsys)
    assert (code, out) == (3, "")
    assert "encoder.onnx has digest" in err


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"DETECTOR_MODELS_DIR": "/nonexistent"}, "no bundle in /nonexistent"),
        ({"DETECTOR_MODLE": "x"}, "did you mean DETECTOR_MODEL"),
        ({"DETECTOR_MAX_FACES": "none"}, "DETECTOR_MAX_FACES"),
    ],
)
def test_a_bad_environment_is_one_line(media, capsys, monkeypatch, env, words):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    code, out, err = run("scan", media / "face.mp4", capsys=capsys)
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert words in err


def test_export_wants_one_source(capsys, tmp_path):
    assert run("export", capsys=capsys)[0] == 2
    assert run("export", tmp_path / "x.pt", "--untrained", "native", capsys=capsys)[0] == 2


def test_autoencoders_are_trained_on_prepared_shards(capsys, tmp_path):
    shards = write_shards(tmp_path / "shards", toy_faces(2, 64), CropSpec(kind="aligned", side=64))
    out = tmp_path / "networks"
    code, _, err = run(
        "autoencoders", "--data", shards, "--out", out, "--minutes", "0.001", "--threads", "1", capsys=capsys
    )
    assert code == 0
    assert "autoencoders = " in err
    networks = load_autoencoders(out)
    assert {n.config for n in networks} == set(varied(3))


def test_autoencoders_want_real_faces(capsys, tmp_path):
    made = toy_faces(2, 64, split="validation")
    shards = write_shards(tmp_path / "shards", made, CropSpec(kind="aligned", side=64))
    code, _, err = run("autoencoders", "--data", shards, "--out", tmp_path / "x", capsys=capsys)
    assert (code, err.count("\n")) == (3, 1)
    assert "no real clip" in err
    assert not (tmp_path / "x").exists()


def test_scanning_never_loads_torch_or_the_web_framework(media, models):
    models()
    code = (
        "import sys; sys.argv = ['deepfake-detect', 'scan', '--json', sys.argv[1]]\n"
        "from cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'torch', 'onnx', 'fastapi'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code, media / "face.mp4"], check=False).returncode == 0


def test_a_key_is_shown_once_and_its_line_lets_it_in(tmp_path, capsys):
    code, out, err = run("key", "web", capsys=capsys)
    made = err.split()[-1]
    (tmp_path / "keys").write_text(out)
    (key,) = read_keys(tmp_path / "keys")
    assert code == 0
    assert (key.name, key.digest) == ("web", hashlib.sha256(made.encode()).digest())
    assert len(made) >= 43
    assert made not in out
    assert run("key", "web", capsys=capsys)[2] != err


def test_a_key_needs_a_name_that_labels_can_hold(capsys):
    code, out, err = run("key", "two words", capsys=capsys)
    assert (code, out) == (3, "")
    assert "a name is" in err


def test_a_scan_looks_into_manifests(media, models, tmp_path, capsys, monkeypatch):
    pytest.importorskip("c2pa")
    from tests.credentials import Authority

    models()
    authority = Authority()
    clip = authority.signed(media / "face.mp4", tmp_path / "signed.mp4")
    (tmp_path / "anchors.pem").write_text(authority.pem)
    monkeypatch.setenv("DETECTOR_C2PA_ANCHORS_FILE", str(tmp_path / "anchors.pem"))
    found = json.loads(run("scan", "--json", clip, capsys=capsys)[1])["answer"]["media"]["provenance"]
    assert (found["c2pa"], found["valid"], found["trusted"]) == ("present", True, True)
    assert 'valid, its signer is trusted; named "Camera 7, Example News"' in run("scan", clip, capsys=capsys)[
        1
    ].replace("\n", "")
