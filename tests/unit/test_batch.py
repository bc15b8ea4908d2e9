"""Archives scored in this process: as the service answers, whatever a file does, and never twice."""

import json
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from batch import parts
from batch.clips import Shard, find_clips
from batch.errors import BatchError, Interrupted
from batch.parts import make_plan, score_here
from batch.results import read_outcomes
from batch.scorer import Scorer, Work
from pipeline.errors import BundleCorrupt
from service.canary import Canary
from service.settings import Settings
from service.workers import DecoderPool
from tests.bundles import tiny_bundle
from tests.media import TEXT, audio_only, face_clip, pattern, write_clip
from tests.unit.test_cli import run

MISBEHAVING = """
import os, sys
from pathlib import Path
import service.decoder as decoder
real = decoder.look_at

def look_at(job, *rest):
    word = Path(job["path"]).read_bytes()[:5]
    if word == b"crash": os.kill(os.getpid(), 11)
    while word == b"hangs": pass
    return real(job, *rest)

decoder.look_at = look_at
sys.exit(decoder.main())
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    at = tmp_path_factory.mktemp("archive")
    face_clip(at / "face.mp4")
    write_clip(at / "plain.mp4", pattern(20))
    audio_only(at / "sound.mp4")
    (at / "text.mp4").write_bytes(TEXT)
    (at / "empty.mp4").write_bytes(b"")
    (at / "large.mp4").write_bytes(bytes(2_000_000))
    return at


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    at = tmp_path_factory.mktemp("models")
    tiny_bundle(at / "tiny")
    return at


@pytest.fixture
def work(models):
    def make(**settings):
        given = {"decoders": 1, "threads": 1, "provider": "cpu", "max_upload_bytes": 1_000_000}
        return Work(Settings(models_dir=models, **(given | settings)), models / "tiny")

    return make


def lines(out):
    found = [json.loads(line) for part in out.glob("part-*.jsonl") for line in part.read_text().splitlines()]
    return {Path(line["file"]).name: line for line in found}


def test_every_file_gets_the_line_that_the_service_would_answer(archive, work, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("absent.mp4\n.\n")
    plan = make_plan([str(archive), str(listed)], work(), tmp_path / "out")
    counts = sum(score_here(plan), Counter())
    found = lines(tmp_path / "out")
    told = {
        name: (line["problem"].get("status"), line["problem"]["type"])
        if "problem" in line
        else line["answer"]["verdict"]
        for name, line in found.items()
    }
    assert told == {
        "face.mp4": "manipulated",
        "plain.mp4": "not_applicable",
        "sound.mp4": (422, "/problems/no-video-stream"),
        "text.mp4": (415, "/problems/unsupported-media"),
        "empty.mp4": (400, "/problems/empty-body"),
        "large.mp4": (413, "/problems/upload-too-large"),
        "absent.mp4": (None, "about:blank"),
        tmp_path.name: (None, "about:blank"),
    }
    assert counts.total() == len(told)
    assert counts["about:blank"] == 2
    assert found["absent.mp4"]["problem"]["detail"] == "No such file or directory"
    assert found["face.mp4"]["bytes"] == (archive / "face.mp4").stat().st_size


def test_an_answer_is_that_of_scan(archive, models, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DETECTOR_MODELS_DIR", str(models))
    code, _, _ = run(
        "batch", archive / "face.mp4", "--out", tmp_path, "--workers", 1, "--explain", capsys=capsys
    )
    assert code == 0
    _, scanned, _ = run("scan", "--json", "--explain", archive / "face.mp4", capsys=capsys)
    answers = [
        line["answer"] | {"timing_ms": 0} for line in (json.loads(scanned), lines(tmp_path)["face.mp4"])
    ]
    assert answers[0] == answers[1]


def test_a_file_that_crashes_or_hangs_its_decoder_costs_itself_alone(archive, work, tmp_path, monkeypatch):
    script = tmp_path / "decoder.py"
    script.write_text(MISBEHAVING)
    known = DecoderPool.__init__.__kwdefaults__
    monkeypatch.setattr(
        DecoderPool.__init__, "__kwdefaults__", known | {"command": (sys.executable, str(script))}
    )
    bad = tmp_path / "bad"
    bad.mkdir()
    for name in ("crash", "hangs", "also"):
        (bad / f"{name}.mp4").write_bytes((archive / "face.mp4").read_bytes())
    for name in ("crash", "hangs"):
        (bad / f"{name}.mp4").write_bytes(name.encode())
    with Scorer(work(decode_timeout_s=3)) as scorer:
        found = {Path(line.clip.file).stem: line for line in scorer.score(find_clips([str(bad)]))}
        (again,) = scorer.score(find_clips([str(bad / "also.mp4")]))
    assert found["also"].outcome.name == again.outcome.name == "manipulated"
    assert found["crash"].outcome.name == "/problems/undecodable-media"
    assert "crashed" in found["crash"].body()["problem"]["detail"]
    assert found["hangs"].outcome.name == "/problems/deadline-exceeded"
    assert not found["hangs"].outcome.final


def test_a_pipe_is_not_waited_for(work, tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with Scorer(work()) as scorer:
        (line,) = scorer.score(find_clips([str(tmp_path)]))
    assert line.body()["problem"]["detail"] == "not a file"


def test_nothing_is_left_of_a_scorer(archive, work, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with Scorer(work(scratch_dir=scratch)) as scorer:
        scorer.score(find_clips([str(archive)]))
        assert list(scratch.iterdir()) == []
        pids = [child.pid for child in scorer._service.pool._children]
    assert pids
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_a_bundle_that_fails_its_self_test_scores_nothing(work, monkeypatch):
    async def wrong(_):
        raise BundleCorrupt("the golden clip is answered with 0.1 instead of 0.9")

    monkeypatch.setattr(Canary, "first", wrong)
    with pytest.raises(BundleCorrupt):
        Scorer(work())
    Scorer(work(canary_every_s=0)).close()


def test_a_scorer_without_decoders_ends_the_run_instead_of_blaming_clips(archive, work, monkeypatch):
    with Scorer(work()) as scorer:
        monkeypatch.setattr(DecoderPool, "healthy", property(lambda _: False))
        with pytest.raises(Interrupted, match="no decoder"):
            scorer.score(find_clips([str(archive)]))


def test_a_full_scratch_directory_ends_the_run_instead_of_blaming_clips(archive, work, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with Scorer(work()) as scorer:
        monkeypatch.setattr("batch.scorer.open", full, raising=False)
        with pytest.raises(OSError, match="No space"):
            scorer.score(find_clips([str(archive)]))


def test_what_is_done_is_not_done_again(archive, work, tmp_path, monkeypatch):
    asked = []
    real = parts.score_part
    monkeypatch.setattr(
        parts, "score_part", lambda scorer, out, clips: (asked.extend(clips), real(scorer, out, clips))[1]
    )

    def again(**settings):
        asked.clear()
        counts = sum(score_here(make_plan([str(copy)], work(**settings), tmp_path / "out")), Counter())
        return sorted(Path(clip.file).name for clip in asked), counts.total()

    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("face.mp4", "text.mp4", "large.mp4"):
        (copy / name).write_bytes((archive / name).read_bytes())
    assert again() == (["face.mp4", "large.mp4", "text.mp4"], 3)
    assert again() == (["large.mp4"], 1)
    assert again(max_upload_bytes=3_000_000) == (["large.mp4"], 1)
    assert again() == ([], 0)
    (copy / "text.mp4").write_bytes((archive / "plain.mp4").read_bytes())
    assert again() == (["text.mp4"], 1)
    assert read_outcomes(tmp_path / "out").keys() >= set(find_clips([str(copy)]))


def test_results_within_the_archive_are_no_clips(archive, work, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "plain.mp4").write_bytes((archive / "plain.mp4").read_bytes())

    def planned():
        plan = make_plan([str(tmp_path)], work(), out)
        return [Path(clip.file).name for part in plan.parts for clip in part]

    assert planned() == ["plain.mp4"]
    (out / "notes.txt").write_text("mine")
    assert planned() == ["plain.mp4"]


def test_shards_score_all_and_take_up_what_others_did(archive, work, tmp_path):
    out = tmp_path / "out"
    for index in range(3):
        plan = make_plan([str(archive)], work(), out, shard=Shard(index, 3))
        sum(score_here(plan), Counter())
    assert sorted(lines(out)) == sorted(path.name for path in archive.iterdir())
    plan = make_plan([str(archive)], work(max_upload_bytes=1_000_000), out)
    assert [Path(clip.file).name for part in plan.parts for clip in part] == ["large.mp4"]
    assert plan.known.total() == 5


@pytest.mark.parametrize(
    ("clips", "part_clips", "workers", "sizes"),
    [(6, 64, 1, [2, 2, 2]), (6, 1, 1, [1] * 6), (6, 64, 2, [1] * 6), (6, 5, 9, [1] * 6), (0, 64, 1, [])],
)
def test_parts_are_small_enough_for_all_workers(archive, work, tmp_path, clips, part_clips, workers, sizes):
    folder = archive if clips else tmp_path / "none"
    (tmp_path / "none").mkdir()
    plan = make_plan([str(folder)], work(), tmp_path / "out", part_clips=part_clips, workers=workers)
    assert [len(part) for part in plan.parts] == sizes
    assert plan.clips == clips


def test_a_nonsense_option_ends_in_one_line(archive, models, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DETECTOR_MODELS_DIR", str(models))
    for options, says in (
        (["--shard", "3/3"], "I/N is meant"),
        (["--model", "other"], "no bundle other"),
        (["--address", "ray://elsewhere"], "--engine ray"),
        (["--max-faces", "100"], "DETECTOR_MAX_FACES=100"),
    ):
        code, out, err = run("batch", archive, "--out", tmp_path / "out", *options, capsys=capsys)
        assert (code, out) == (3, "")
        assert says in err
        assert err.count("\n") == 1


def test_the_summary_is_for_people_and_for_programs(archive, models, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DETECTOR_MODELS_DIR", str(models))
    given = ["batch", archive / "face.mp4", archive / "text.mp4", "--out", tmp_path, "--workers", 1]
    code, out, err = run(*given, capsys=capsys)
    assert code == 0
    assert "1  manipulated" in out
    assert "1  /problems/unsupported-media" in out
    assert "2 of 2 clips" in err
    code, out, err = run(*given, "--json", capsys=capsys)
    said = json.loads(out)
    assert (code, err) == (0, "")
    assert (said["clips"], said["known"]) == (0, 2)
    assert said["outcomes"] == {"manipulated": 1, "/problems/unsupported-media": 1}


def test_a_run_that_broke_off_says_that_it_goes_on(archive, models, tmp_path, monkeypatch, capsys):
    def lost(*_):
        raise Interrupted("the machine is on fire")
        yield

    monkeypatch.setenv("DETECTOR_MODELS_DIR", str(models))
    monkeypatch.setattr(parts, "score_here", lost)
    code, _, err = run("batch", archive, "--out", tmp_path, capsys=capsys)
    assert code == 75
    assert "on fire; start it again" in err


def test_ray_is_asked_for_by_its_name_where_it_is_not(archive, models, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DETECTOR_MODELS_DIR", str(models))
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "ray.data", raising=False)
    code, _, err = run("batch", archive, "--out", tmp_path, "--engine", "ray", capsys=capsys)
    assert code == 3
    assert "deepfake-detect[batch]" in err


def test_actors_of_ray_have_a_core_each_and_share_no_gpu(archive, models, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setenv("DETECTOR_MODELS_DIR", str(models))
    monkeypatch.setattr("batch.on_ray.score_on_ray", lambda *given: (asked.append(given), iter(()))[1])
    given = ["--engine", "ray", "--workers", 3, "--address", "elsewhere:6379"]
    code, _, _ = run("batch", archive, "--out", tmp_path, *given, capsys=capsys)
    ((plan, workers, address),) = asked
    settings = plan.work.settings
    assert (code, workers, address) == (0, 3, "elsewhere:6379")
    assert (settings.decoders, settings.threads, settings.provider) == (1, 1, "cpu")


def test_a_refusal_to_confine_decoders_is_told(work, monkeypatch):
    from service.sandbox import NotConfined

    async def refuse(_):
        raise NotConfined("decoders can not be confined")

    monkeypatch.setattr(DecoderPool, "start", refuse)
    with pytest.raises(BatchError, match="can not be confined"):
        Scorer(work())
