"""From a data set to shards: the same bytes as served, whatever breaks on the way."""

import contextlib
import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from fractions import Fraction
from multiprocessing import active_children
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.main import main
from pipeline.detect.registry import open_detector
from pipeline.media import Limits
from pipeline.prepare import prepare
from pipeline.spec import CropSpec, SamplingSpec
from tests.media import TEXT, broken_off, face_clip, pattern, write_clip
from training.cutter import LIMITS, Outcome
from training.datasets import Record, read_dataset
from training.difference import ALTERED, face_difference, nearest
from training.model import paper_config
from training.prepare import Options, outstanding, prepare_dataset, settled
from training.selection import Selection, SelectionError, Stratum
from training.shards import open_shards, write_shard
from training.tracks import largest_track
from training.transcode import transcode
from training.workplace import PrepareError

SIZE = 240
SMALL = Options(
    crop=CropSpec(kind="aligned", side=32),
    sampling=SamplingSpec(bursts=20, burst_frames=1, spread="head"),
    min_frames=5,
    workers=2,
    shard_frames=50,
)


def table(root: Path, rows: list[tuple[str, str]]) -> Path:
    """A table of clips, file and label, each of a person of its own."""
    path = root / "clips.csv"
    with path.open("w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["file", "label", "identity", "source"])
        writer.writerows([file, label, "", ""] for file, label in rows)
    return path


def tree(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def problems(out: Path) -> dict[str, tuple[str, str]]:
    with (out / "report.csv").open(newline="") as f:
        return {r["file"]: (r["outcome"], r["detail"]) for r in csv.DictReader(f)}


def run(root: Path, out: Path, selection: Selection | None = None, **changes: object) -> dict:
    data = read_dataset("table", root / "clips.csv")
    return prepare_dataset(data, out, selection or Selection(), replace(SMALL, **changes))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Six clips with a face, one of them with two, and several that are of no use."""
    root = tmp_path_factory.mktemp("clips")
    for k in range(5):
        face_clip(root / f"face-{k}.mp4", seconds=1 + k / 25, size=SIZE)
    face_clip(root / "two.mp4", seconds=0.6, size=2 * SIZE, faces=2)
    (root / "text.mp4").write_bytes(TEXT)
    (root / "empty.mp4").touch()
    write_clip(root / "plain.mp4", pattern(10))
    face_clip(root / "short.mp4", seconds=0.16, size=SIZE)
    broken_off(root / "broken.mp4")
    files = sorted(p.name for p in root.glob("*.mp4"))
    table(root, [(f, "fake" if k % 2 else "real") for k, f in enumerate(files)] + [("=gone.mp4", "real")])
    return root


@pytest.fixture(scope="module")
def prepared(clips, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "prepared"
    run(clips, out, as_video=True)
    return out


def test_a_shard_holds_the_very_bytes_that_the_service_is_served(clips, prepared):
    shards = open_shards(prepared)
    assert [c.file for c in shards.clips] == [*(f"face-{k}.mp4" for k in range(5)), "two.mp4"]
    assert [c.shard for c in shards.clips] == [0, 0, 1, 1, 2, 2]
    for clip in shards.clips:
        served = prepare(
            clips / clip.file,
            crop=shards.crop,
            sampling=shards.sampling,
            detector=open_detector("yunet"),
            limits=Limits(),
        )
        track = max(served.tracks, key=lambda t: len(t.samples) * t.quality.size_px)
        np.testing.assert_array_equal(shards.frames(clip), track.samples[:, 0])
        assert clip.frames == len(track.samples) == (15 if clip.file == "two.mp4" else 20)
        assert len(served.tracks) == (2 if clip.file == "two.mp4" else 1)
        assert track is largest_track(served.tracks)


def test_clips_are_prepared_as_the_network_of_the_paper_is_fed():
    paper = paper_config()
    assert (Options().crop, Options().sampling) == (paper.crop, paper.sampling)
    assert Limits() == LIMITS


def test_every_clip_that_is_not_there_is_reported(prepared):
    report = json.loads((prepared / "report.json").read_text())
    found = problems(prepared)
    assert {f: why for f, (why, _) in found.items()} == {
        "text.mp4": "unreadable",
        "empty.mp4": "unreadable",
        "plain.mp4": "no_face",
        "short.mp4": "too_few_frames",
        "broken.mp4": "no_face",
        "'=gone.mp4": "absent",
    }, "a name like a formula is guarded"
    assert found["short.mp4"][1] == "a face in 4 frames only"
    assert report["outcomes"] == {"prepared": 6, "unreadable": 2, "no_face": 2, "too_few_frames": 1}
    assert (report["frames"], report["absent"]) == (115, 1)


def test_films_show_the_crops_at_thirty_frames_a_second(prepared):
    shards = open_shards(prepared)
    assert len(list((prepared / "videos").iterdir())) == 6
    clip = shards.clips[0]
    with av.open(str(prepared / "videos" / clip.file)) as film:
        stream = film.streams.video[0]
        assert (stream.width, stream.height, stream.average_rate) == (32, 32, Fraction(30))
        frames = np.stack([f.to_ndarray(format="rgb24") for f in film.decode(video=0)])
    assert frames.shape == shards.frames(clip).shape
    assert np.abs(frames.astype(int) - shards.frames(clip)).mean() < 8


def test_nothing_but_the_result_stays(prepared):
    assert {p.name for p in prepared.iterdir()} == {
        *(f"shard-0000{k}.npy" for k in range(3)),
        *("index.json", "plan.json", "report.json", "report.csv", "videos"),
    }


def test_a_finished_preparation_is_not_repeated_and_not_mixed_with_another(clips, prepared):
    before = tree(prepared)
    assert run(clips, prepared, as_video=True) == json.loads((prepared / "report.json").read_text())
    with pytest.raises(PrepareError, match="a preparation with other as_video, min_frames"):
        run(clips, prepared, min_frames=6)
    with pytest.raises(PrepareError, match="a preparation with other clips, selection"):
        run(clips, prepared, Selection(seed=1), as_video=True)
    assert tree(prepared) == before


def test_a_directory_with_something_else_is_left_alone(clips, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(PrepareError, match="is not empty and holds no preparation"):
        run(clips, tmp_path)
    assert tree(tmp_path) == {"thesis.txt": b"mine"}


def test_films_need_an_even_side(clips, tmp_path):
    with pytest.raises(PrepareError, match="films need an even side, not 33"):
        run(clips, tmp_path / "out", crop=CropSpec(kind="aligned", side=33), as_video=True)
    assert not (tmp_path / "out").exists()


def test_another_root_with_clips_of_the_same_names_is_another_data_set(clips, prepared, tmp_path):
    for clip in clips.iterdir():
        (tmp_path / clip.name).symlink_to(clip)
    before = tree(prepared)
    with pytest.raises(PrepareError, match="a preparation with other root"):
        run(tmp_path, prepared, as_video=True)
    assert tree(prepared) == before
    assert str(clips).encode() not in b"".join(before.values())


def test_when_no_clip_is_usable_nothing_stays_and_mended_clips_are_tried_again(clips, tmp_path):
    root, out = tmp_path / "clips", tmp_path / "out"
    root.mkdir()
    names = ["a.mp4", "b.mp4"]
    for name in names:
        (root / name).touch()
    table(root, [(names[0], "real"), (names[1], "fake")])
    with pytest.raises(PrepareError, match=r"no clip of table can be used: 2 unreadable \(a.mp4: the file"):
        run(root, out, workers=1)
    assert list(out.iterdir()) == []
    for name in names:
        (root / name).unlink()
        (root / name).symlink_to(clips / "face-0.mp4")
    assert run(root, out, workers=1)["outcomes"] == {"prepared": 2}


def stopped(root: Path, out: Path, selection: Selection, after: int, **changes: object) -> None:
    """A run that is stopped when so many clips are done."""

    def stop(done: int, total: int) -> None:
        if done == after:
            raise KeyboardInterrupt

    data = read_dataset("table", root / "clips.csv")
    with pytest.raises(KeyboardInterrupt):
        prepare_dataset(data, out, selection, replace(SMALL, workers=1, as_video=True, **changes), stop)


def test_a_clip_that_could_not_be_opened_is_tried_again_and_takes_its_place(clips, tmp_path):
    root, unbroken, out = tmp_path / "clips", tmp_path / "unbroken", tmp_path / "out"
    root.mkdir()
    for name in ("a.mp4", "b.mp4"):
        (root / name).symlink_to(clips / "face-0.mp4")
    table(root, [("a.mp4", "real"), ("b.mp4", "real")])
    one = Selection(split="seeded", train=1.0, table={"real": 1, "fake": 0})
    run(root, unbroken, one, workers=1, as_video=True)
    (first,) = open_shards(unbroken).clips
    (root / first.file).unlink()
    (root / first.file).mkdir()
    stopped(root, out, one, after=2)
    assert len(list(out.glob("videos/*.mp4"))) == 1
    (root / first.file).rmdir()
    (root / first.file).symlink_to(clips / "face-0.mp4")
    run(root, out, one, workers=1, as_video=True)
    assert tree(out) == tree(unbroken)


def test_a_clip_that_hung_is_tried_again(clips, tmp_path):
    root, out = tmp_path / "clips", tmp_path / "out"
    root.mkdir()
    os.mkfifo(root / "clip.mp4")
    table(root, [("clip.mp4", "real")])
    stopped(root, out, Selection(), after=1, timeout_s=1)
    (root / "clip.mp4").unlink()
    (root / "clip.mp4").symlink_to(clips / "face-0.mp4")
    assert run(root, out, workers=1, as_video=True)["outcomes"] == {"prepared": 1}


def test_once_shards_are_written_no_clip_joins_them(clips, tmp_path, monkeypatch):
    root, out = tmp_path / "clips", tmp_path / "out"
    root.mkdir()
    (root / "0.mp4").mkdir()
    (root / "1.mp4").symlink_to(clips / "face-1.mp4")
    table(root, [("0.mp4", "real"), ("1.mp4", "real")])

    def stopping(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("training.prepare.write_index", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(root, out, workers=1)
    assert (out / "shard-00000.npy").exists()
    (root / "0.mp4").rmdir()
    (root / "0.mp4").symlink_to(clips / "face-0.mp4")
    assert run(root, out, workers=1)["outcomes"] == {"prepared": 1, "unreadable": 1}
    assert [c.file for c in open_shards(out).clips] == ["1.mp4"]


def test_half_written_files_are_cleared_away(clips, prepared, tmp_path):
    """As they stay behind when a process is killed while it writes."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "plan.json.77.part").write_text("{")
    root = tmp_path / "clips"
    root.mkdir()
    (root / "face.mp4").symlink_to(clips / "face-0.mp4")
    table(root, [("face.mp4", "real")])
    stopped(root, out, Selection(), after=0)
    for part in ("videos/face.mp4.77.part", "work/0.npy.77.part", "report.json.77.part", "shard-00000.part"):
        (out / part).parent.mkdir(exist_ok=True)
        (out / part).write_text("half")
    run(root, out, workers=1, as_video=True)
    (out / "index.json.78.part").touch()
    (out / "work").mkdir()
    run(root, out, workers=1, as_video=True)
    assert set(tree(out)) == {
        *("index.json", "plan.json", "report.csv", "report.json", "shard-00000.npy", "videos/face.mp4")
    }
    assert not (out / "work").exists()


def test_only_aligned_rgb_crops_are_packed(clips, tmp_path):
    with pytest.raises(PrepareError, match="aligned RGB"):
        run(clips, tmp_path / "out", crop=CropSpec(kind="native", side=32, frames=4, colour="yuv"))
    assert not (tmp_path / "out").exists()


COMMAND = ("-c", "from cli.main import main; main()", "prepare", "table")
SETTINGS = ("--frames", "20", "--side", "32", "--min-frames", "5", "--as-video")


def command(root: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, *COMMAND, str(root / "clips.csv"), "--out", str(out), *SETTINGS, *more]


def until(condition) -> None:
    """Wait; what never comes fails instead of hanging."""
    late = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < late
        time.sleep(0.02)


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(clips, tmp_path):
    """One clip is a pipe that nobody writes to, so that the run can not end before it is killed."""
    root = tmp_path / "clips"
    root.mkdir()
    files = [f"face-{k}.mp4" for k in range(5)]
    for file in files[:4]:
        (root / file).symlink_to(clips / file)
    os.mkfifo(root / files[4])
    table(root, [(f, "fake" if k % 2 else "real") for k, f in enumerate(files)])
    out = tmp_path / "out"
    with subprocess.Popen(
        command(root, out, "--workers", "2"), cwd=Path.cwd(), start_new_session=True
    ) as process:
        until(lambda: len(list(out.glob("work/*.json"))) == 4 or process.poll() is not None)
        assert process.poll() is None
        workers = children(process.pid)
        process.send_signal(signal.SIGKILL)
    until(lambda: not any(map(running, workers)))
    assert workers
    assert not (out / "index.json").exists()
    (root / files[4]).unlink()
    (root / files[4]).symlink_to(clips / files[4])
    done = {p: p.stat().st_mtime_ns for p in out.glob("work/*.npy")}
    subprocess.run(command(root, out, "--workers", "1"), check=True)
    assert len(done) == 4
    subprocess.run(command(root, tmp_path / "unbroken", "--workers", "2"), check=True)
    assert tree(out) == tree(tmp_path / "unbroken")
    assert len(open_shards(out).clips) == 5


def children(pid: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def running(pid: int) -> bool:
    try:
        return "Z" not in re.findall(r"State:\s+(\w)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return False


def test_work_that_was_done_is_not_done_again(clips, tmp_path):
    """What is remembered of a clip counts, even where it is not what cutting it again would give."""
    out = tmp_path / "out"

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    data = read_dataset("table", clips / "clips.csv")
    with pytest.raises(KeyboardInterrupt):
        prepare_dataset(data, out, Selection(), replace(SMALL, workers=1), stop)
    assert active_children() == []
    remembered = sorted(out.glob("work/*.json"))
    for path in remembered:
        outcome = json.loads(path.read_text())
        path.write_text(json.dumps(outcome | {"kind": "failed", "detail": "remembered", "frames": 0}))
    report = run(clips, out)
    assert report["outcomes"]["failed"] == len(remembered) >= 3


def test_a_run_that_is_stopped_while_it_packs_goes_on(clips, prepared, tmp_path, monkeypatch):
    def stopping(path: Path, *rest: object) -> dict:
        if path.name == "shard-00001.npy":
            raise KeyboardInterrupt
        return write_shard(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr("training.prepare.write_shard", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(clips, tmp_path / "out", as_video=True)
    assert (tmp_path / "out" / "shard-00000.npy").exists()
    assert len(list((tmp_path / "out").glob("work/*.npy"))) == 4
    run(clips, tmp_path / "out", as_video=True)
    assert tree(tmp_path / "out") == tree(prepared)


def test_a_clip_that_hangs_or_kills_its_process_costs_only_itself(clips, tmp_path):
    root = tmp_path / "clips"
    root.mkdir()
    (root / "face.mp4").symlink_to(clips / "face-0.mp4")
    os.mkfifo(root / "hangs.mp4")
    table(root, [("face.mp4", "real"), ("hangs.mp4", "fake")])
    report = run(root, tmp_path / "hung", timeout_s=8)
    assert report["outcomes"] == {"prepared": 1, "timeout": 1}
    assert problems(tmp_path / "hung") == {"hangs.mp4": ("timeout", "not done in 8 s")}

    def kill() -> None:
        for _ in range(2):
            with (root / "hangs.mp4").open("wb"):  # opens when a worker has opened the other end
                before = active_children()
                (worker,) = before
                os.kill(worker.pid, signal.SIGSEGV)
            # Without reaping it, which would take its exit code away from the pool.
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)

    killer = threading.Thread(target=kill)
    killer.start()
    report = run(root, tmp_path / "killed", workers=1)
    killer.join()
    assert report["outcomes"] == {"crashed": 1, "prepared": 1}
    assert problems(tmp_path / "killed")["hangs.mp4"] == ("crashed", "the worker was ended by SIGSEGV")


def test_two_runs_do_not_share_a_directory(clips, tmp_path):
    root = tmp_path / "clips"
    root.mkdir()
    os.mkfifo(root / "hangs.mp4")
    table(root, [("hangs.mp4", "real")])
    said: list[BaseException] = []

    def second(done: int, total: int) -> None:
        if done == 0:
            try:
                run(root, tmp_path / "out", workers=1)
            except PrepareError as e:
                said.append(e)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_dataset(
            read_dataset("table", root / "clips.csv"), tmp_path / "out", Selection(), SMALL, second
        )
    assert "another run is preparing" in str(said[0])


def test_a_quota_is_filled_with_the_next_clip_that_is_usable(clips, tmp_path):
    root = tmp_path / "clips"
    root.mkdir()
    good = {"real": 3, "fake": 1}
    rows = []
    for label, usable in good.items():
        for k in range(5):
            clip = root / f"{label}-{k}.mp4"
            clip.symlink_to(clips / ("short.mp4" if k < usable else "text.mp4"))
            rows.append((clip.name, label))
    table(root, rows)
    wants = Selection(split="seeded", train=1.0, table={"real": 2, "fake": 2})
    report = run(root, tmp_path / "out", wants, min_frames=1)
    assert [s for s in report["clips"] if s["wanted"]] == [
        {"split": "train", "fake": False, "wanted": 2, "prepared": 2},
        {"split": "train", "fake": True, "wanted": 2, "prepared": 1},
    ]
    assert 4 <= report["outcomes"]["unreadable"] <= 6
    assert report["outcomes"]["prepared"] == 3


@given(st.lists(st.booleans(), max_size=30), st.integers(0, 30), st.data())
def test_the_first_usable_candidates_are_taken_whatever_comes_in_first(usable, wanted, data):
    candidates = [Record(str(k), False, "", "") for k in range(len(usable))]
    stratum = Stratum("train", False, wanted, candidates)
    outcomes: dict[str, Outcome] = {}
    while todo := outstanding(stratum, outcomes):
        some = data.draw(st.sets(st.sampled_from(range(len(todo))), min_size=1))
        for k in some:
            r = todo[k]
            outcomes[r.file] = Outcome(r.file, "prepared" if usable[int(r.file)] else "no_face")
    taken = sorted(int(f) for f, o in outcomes.items() if o.kind == "prepared")
    assert taken == [k for k, fine in enumerate(usable) if fine][:wanted]


@given(st.lists(st.booleans(), max_size=20), st.integers(0, 20), st.lists(st.booleans(), max_size=20))
def test_what_counts_is_what_an_unbroken_run_would_have_tried(usable, wanted, tried_before):
    candidates = [Record(str(k), False, "", "") for k in range(len(usable))]
    stratum = Stratum("train", False, wanted, candidates)

    def end(r: Record) -> Outcome:
        return Outcome(r.file, "prepared" if usable[int(r.file)] else "no_face")

    def run_from(outcomes: dict[str, Outcome]) -> dict[str, Outcome]:
        while todo := outstanding(stratum, outcomes):
            outcomes |= {r.file: end(r) for r in todo}
        return settled([stratum], outcomes)

    before = {r.file: end(r) for r, was in zip(candidates, tried_before, strict=False) if was}
    assert run_from(before) == run_from({})


def redrawn(source: Path, out: Path) -> Path:
    """A copy of a clip whose mouth is mirrored, as a forgery of the lips moves it."""
    box = find_face(source)[0, 1:].round().astype(int)
    x, y, w, h = box
    frames = []
    with av.open(str(source)) as container:
        for frame in container.decode(video=0):
            pixels = frame.to_ndarray(format="rgb24")
            mouth = pixels[y + h * 2 // 3 : y + h, x + w // 4 : x + w * 3 // 4]
            mouth[:] = mouth[::-1].copy()
            frames.append(pixels)
    return write_clip(out, frames, options={"crf": "18"})


def find_face(path: Path) -> np.ndarray:
    clip = prepare(
        path, crop=SMALL.crop, sampling=SMALL.sampling, detector=open_detector("yunet"), limits=Limits()
    )
    return clip.tracks[0].boxes


@pytest.fixture(scope="module")
def challenge(clips, tmp_path_factory):
    """DFDC in miniature: an original, a fake whose sound alone was altered, one whose mouth was."""
    root = tmp_path_factory.mktemp("dfdc")
    part = root / "dfdc_train_part_0"
    part.mkdir()
    (part / "real.mp4").symlink_to(clips / "face-0.mp4")
    transcode(clips / "face-0.mp4", part / "sound.mp4", crf=30)
    redrawn(clips / "face-0.mp4", part / "mouth.mp4")
    transcode(clips / "face-1.mp4", part / "orphan.mp4", crf=30)
    fakes = {"sound.mp4": "real.mp4", "mouth.mp4": "real.mp4", "orphan.mp4": "lost.mp4"}
    metadata = {"real.mp4": {"label": "REAL", "split": "train"}}
    metadata |= {f: {"label": "FAKE", "split": "train", "original": o} for f, o in fakes.items()}
    (part / "metadata.json").write_text(json.dumps(metadata))
    return root


def test_fakes_whose_face_is_that_of_their_original_are_dropped(challenge, tmp_path):
    prepare_dataset(read_dataset("dfdc", challenge), tmp_path / "out", Selection(), SMALL)
    assert [Path(c.file).stem for c in open_shards(tmp_path / "out").clips] == ["mouth", "orphan", "real"]
    found = {Path(f).stem: said for f, said in problems(tmp_path / "out").items()}
    assert found.keys() == {"sound", "orphan"}
    assert found["sound"][0] == "sound_altered"
    assert re.match(
        r"its face differs from dfdc_train_part_0/real.mp4 by \d\.\d grey levels", found["sound"][1]
    )
    assert found["orphan"] == ("prepared", "not compared: its original is not there")


@pytest.mark.parametrize(("crf", "scale"), [(18, 1.0), (32, 1.0), (23, 0.75)])
def test_encoding_and_scaling_are_no_alteration_but_a_mouth_is(challenge, clips, tmp_path, crf, scale):
    original = clips / "face-0.mp4"
    copy = transcode(original, tmp_path / "copy.mp4", crf=crf, scale=scale)
    assert face_difference(copy, original, find_face(copy), Limits()) < ALTERED
    mouth = challenge / "dfdc_train_part_0" / "mouth.mp4"
    again = transcode(mouth, tmp_path / "again.mp4", crf=crf, scale=scale)
    assert face_difference(again, original, find_face(again), Limits()) > ALTERED


def first_frames(source: Path, out: Path, count: int) -> Path:
    """The start of a clip."""
    with av.open(str(source)) as container:
        frames = [
            f.to_ndarray(format="rgb24")
            for f, _ in zip(container.decode(video=0), range(count), strict=False)
        ]
    return write_clip(out, frames, rate=25, options={"crf": "18"})


def test_an_original_of_other_length_is_compared_where_both_have_a_frame(clips, tmp_path):
    longer, clip = clips / "face-4.mp4", clips / "face-0.mp4"
    boxes = find_face(clip)
    assert face_difference(clip, longer, boxes, Limits()) < ALTERED
    assert face_difference(clip, clip, boxes, Limits()) == 0
    shorter = first_frames(clip, tmp_path / "shorter.mp4", 5)
    assert face_difference(clip, shorter, boxes, Limits()) < ALTERED
    assert face_difference(clip, shorter, boxes[5:], Limits()) is None
    assert face_difference(clip, shorter, boxes[:0], Limits()) is None


@given(st.integers(0, 7), st.floats(-0.4, 0.4), st.floats(0.6, 1000), st.floats(1, 60))
def test_a_frame_stands_for_the_moments_up_to_half_a_frame_away(k, near, far, rate):
    shown = np.arange(8) / rate
    assert nearest(shown, [shown[k] + near / rate, shown[-1] + far / rate]) == [k, None]


def test_a_gap_between_frames_shows_none_of_them():
    assert nearest(np.array([0.0, 0.04, 0.08, 1.0, 1.04]), [0.09, 0.5, 0.99]) == [2, None, 3]
    assert nearest(np.array([0.0]), [0.0, 0.04]) == [0, None]


def test_workers_that_cut_clips_do_not_load_torch():
    code = "import sys, training.cutter; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_generators_and_a_split_without_training_are_errors(tmp_path):
    people = ["ann", "bob"]
    rows = [f"r{p}.mp4,real,{p},{p},test," for p in people] + ["f.mp4,fake,ann+bob,x,train,swap"]
    (tmp_path / "clips.csv").write_text("\n".join(["file,label,identity,source,split,method", *rows]) + "\n")
    for name in ("rann", "rbob", "f"):
        (tmp_path / f"{name}.mp4").touch()
    with pytest.raises(SelectionError, match="no fake clip of table is left to train on: all 1 share"):
        run(tmp_path, tmp_path / "out")
    with pytest.raises(SelectionError, match="no clip of table is by 'lips': there are swap"):
        run(tmp_path, tmp_path / "out", Selection(hold_out=["lips"]))
    assert not (tmp_path / "out").exists()


def cli(*args: object, capsys) -> tuple[int, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["deepfake-detect", "prepare", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            main()
    return int(stop.value.code or 0), capsys.readouterr().err


def test_the_command_tells_what_it_made(clips, prepared, tmp_path, capsys):
    code, said = cli("table", clips / "clips.csv", "--out", tmp_path / "out", *SETTINGS, capsys=capsys)
    assert code == 0
    assert "not used: 1 absent, 2 no face, 1 too few frames, 2 unreadable; see" in said
    assert f"prepared 115 frames in {tmp_path / 'out'}" in said
    assert re.search(r"train +\d +\d", said)
    made, wanted = open_shards(tmp_path / "out"), open_shards(prepared)
    assert [(c.file, c.split, c.frames) for c in made.clips] == [
        (c.file, c.split, c.frames) for c in wanted.clips
    ]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("celebdf", "{}"), "is not Celeb-DF v2: it has no folder Celeb-real"),
        (("table", "{}/none.csv"), "none.csv does not exist"),
        (("table", "{}/clips.csv", "--train", "2"), "the options: train"),
        (("table", "{}/clips.csv", "--selection", "{}/none.toml"), "none.toml can not be read"),
    ],
)
def test_the_command_says_in_a_line_what_is_wrong(clips, tmp_path, capsys, args, words):
    code, said = cli(*(a.format(clips) for a in args), "--out", tmp_path / "out", capsys=capsys)
    assert code == 3
    assert words in said.replace("\n", " ")
    assert not (tmp_path / "out").exists()
