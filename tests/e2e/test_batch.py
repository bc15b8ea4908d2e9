"""Archives scored by real processes that are killed in the middle, and by others that go on."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from batch.parts import make_plan
from batch.results import RUN
from batch.scorer import Work
from service.settings import Settings
from tests.bundles import tiny_bundle
from tests.media import TEXT, face_clip
from tests.server import ROOT

BATCH = [sys.executable, "-c", "from cli.main import main; main()", "batch"]
CLIPS = 24
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra batch")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    at = tmp_path_factory.mktemp("models")
    tiny_bundle(at / "tiny")
    return at


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    at = tmp_path_factory.mktemp("archive")
    clip = face_clip(at / "0.mp4").read_bytes()
    for k in range(1, CLIPS - 1):
        (at / f"{k}.mp4").write_bytes(clip)
    (at / "broken.mp4").write_bytes(TEXT)
    return at


@pytest.fixture
def start(archive, models, tmp_path):
    """Starts a run into a folder of the test; whatever of it is still there in the end is killed."""
    started = []

    def starts(*options):
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("DETECTOR_")}
        given = {"DETECTOR_MODELS_DIR": str(models), "DETECTOR_PROVIDER": "cpu", "PYTHONPATH": str(ROOT)}
        run = subprocess.Popen(
            [*BATCH, str(archive), "--out", str(tmp_path / "out"), "--part-clips", "2", "--json", *options],
            cwd=ROOT,
            env=inherited | given | {"HOME": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        started.append(run)
        return run

    yield starts
    for run in started:
        for pid in [run.pid, *below(run.pid)] if run.poll() is None else []:
            os.kill(pid, signal.SIGKILL)
        run.communicate(timeout=60)


def until(true, what):
    deadline = time.monotonic() + 240
    while not (found := true()):
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
    return found


def below(pid):
    """Processes that descend from one."""
    found, new = set(), {pid}
    while new:
        children = set()
        for parent in new:
            for task in Path(f"/proc/{parent}/task").glob("*/children"):
                try:
                    children |= set(map(int, task.read_text().split()))
                except OSError:
                    continue
        new = children - found
        found |= children
    return found


def command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def parts(out):
    return {path: path.stat().st_mtime_ns for path in out.glob("part-*.jsonl")}


def scored(out):
    """Files that have a line, as often as they have one."""
    return sorted(json.loads(line)["file"] for part in parts(out) for line in part.read_text().splitlines())


def finished(run):
    said, _ = run.communicate(timeout=240)
    assert run.returncode == 0
    return json.loads(said)


def killed_in_the_middle(run, out):
    """Kill a run after its first part, with all that it has started. Returns the parts that there were."""
    until(lambda: parts(out) or run.poll() is not None, "there is no part")
    descendants = below(run.pid)
    run.kill()
    run.wait(timeout=60)
    until(lambda: not [pid for pid in descendants if command(pid)], "processes outlive the run")
    assert 0 < len(scored(out)) < CLIPS
    assert set(out.glob("[!.]*")) == {out / RUN, *parts(out)}
    return parts(out)


def check_whole(archive, out, before, said):
    """Each clip has one line, and nothing was done twice."""
    assert scored(out) == sorted(map(str, archive.iterdir()))
    assert before.items() <= parts(out).items()
    assert said["outcomes"] == {"manipulated": CLIPS - 1, "/problems/unsupported-media": 1}
    assert said["clips"] == CLIPS - said["known"]


def test_a_run_that_was_killed_goes_on_where_it_was(start, archive, tmp_path):
    out = tmp_path / "out"
    before = killed_in_the_middle(start("--workers", "1"), out)
    said = finished(start("--workers", "1"))
    assert said["known"] == sum(len(part.read_text().splitlines()) for part in before)
    check_whole(archive, out, before, said)


def scoring(run):
    """Actors that are at work on a part."""
    return [pid for pid in below(run.pid) if re.match(rb"ray::MapWorker.*\.submit", command(pid))]


def session(run):
    """The folder in which Ray keeps what it needs for a run."""
    (name,) = {name for pid in below(run.pid) for name in re.findall(rb"/tmp/dd-ray-\w+", command(pid))}
    return Path(os.fsdecode(name))


@needs_ray
def test_ray_replaces_a_worker_that_was_killed_and_another_engine_goes_on(start, archive, models, tmp_path):
    out = tmp_path / "out"
    run = start("--engine", "ray", "--workers", "2")
    busy = until(lambda: parts(out) and scoring(run), "no actor is at work after the first part")
    folder, descendants = session(run), below(run.pid)
    for pid in descendants:
        if b"gcs_server" in command(pid):
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            assert {b"RAY_USAGE_STATS_ENABLED=0", b"RAY_AUTH_MODE=token"} <= set(environment)
    os.kill(busy[0], signal.SIGKILL)
    said = finished(run)
    check_whole(archive, out, {}, said)
    assert not folder.exists()
    assert not (tmp_path / ".ray").exists()
    until(lambda: not [pid for pid in descendants if command(pid)], "processes outlive the run")
    work = Work(Settings(models_dir=models), models / "tiny")
    assert make_plan([str(archive)], work, out).parts == []


@needs_ray
def test_a_run_on_ray_that_was_killed_goes_on_where_it_was(start, archive, tmp_path):
    out = tmp_path / "out"
    run = start("--engine", "ray", "--workers", "2")
    folder = until(lambda: scoring(run) and session(run), "no actor is at work")
    try:
        before = killed_in_the_middle(run, out)
    finally:
        shutil.rmtree(folder)
    check_whole(archive, out, before, finished(start("--workers", "1")))
