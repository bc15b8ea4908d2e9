"""The load test against servers that answer, turn away and fail."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, repeat
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from loadtests.scenarios import SCENARIOS
from pipeline.sampleclip import write_sample
from service.keys import line_for
from tests.bundles import tiny_bundle
from tests.server import ROOT, served


class Reply(NamedTuple):
    status: int
    body: str
    retry_after: str | None = None


ANSWER = Reply(200, json.dumps({"verdict": "uncertain", "model": {"id": "m"}}))
FAULTS = [
    Reply(200, "no JSON"),
    Reply(200, json.dumps({"model": {"id": "m"}})),
    Reply(200, json.dumps({"verdict": "perhaps", "model": {"id": "m"}})),
    Reply(200, json.dumps({"verdict": "uncertain", "model": {"id": ""}})),
    Reply(200, json.dumps({"verdict": "uncertain", "model": None})),
    Reply(500, "{}"),
    Reply(500, "{}", retry_after="1"),
    Reply(503, "{}"),
    Reply(429, "{}", retry_after="soon"),
]


class Load(NamedTuple):
    """What a run of locust came to: exit code, requests and failures by name, and results of a scenario."""

    code: int
    requests: dict[str, int]
    failures: dict[str, int]
    results: dict[str, Any]

    def missed(self, *, timed: bool = False) -> set[str]:
        """Names of thresholds that were missed; times only where they are asked for: machines are busy."""
        return {c["name"] for c in self.results["checks"] if not c["met"] and (timed or not c["timed"])}


def run_locust(
    options: str, *, host: str, finish: int = 0, results: Path | None = None, **given: str
) -> Load:
    common = f"--headless --json --stop-timeout {finish}s --host {host}"
    own = {f"DETECTOR_LOAD_{name.upper()}": value for name, value in given.items()}
    if results is not None:
        own["DETECTOR_LOAD_RESULTS"] = str(results)
    done = subprocess.run(
        [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", *common.split(), *options.split()],
        cwd=ROOT,
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    entries = json.loads(done.stdout)
    return Load(
        done.returncode,
        {entry["name"]: entry["num_requests"] for entry in entries},
        {entry["name"]: entry["num_failures"] for entry in entries},
        json.loads(results.read_text()) if results is not None else {},
    )


def run_plain(host: str, *, users: int, seconds: int, clip: Path, finish: int = 0, **given: str) -> Load:
    return run_locust(
        f"-u {users} -r {users} -t {seconds}s", host=host, finish=finish, clip=str(clip), **given
    )


def run_scenario(name: str, host: str, folder: Path, *, clip: Path, finish: int = 10) -> Load:
    """A tenth of a scenario."""
    given = {"scenario": name, "scale": "0.1", "clip": str(clip)}
    return run_locust("", host=host, finish=finish, results=folder / f"{name}.json", **given)


def run_command(*arguments: str, clip: Path) -> "subprocess.CompletedProcess[str]":
    """What `make load` runs."""
    return subprocess.run(
        [sys.executable, "-m", "loadtests", *arguments],
        cwd=ROOT,
        env=os.environ | {"DETECTOR_LOAD_CLIP": str(clip)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@contextmanager
def scripted(replies: Iterator[Reply]) -> Iterator[str]:
    """Address of a server that gives these replies in turn."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            left = int(self.headers["Content-Length"])
            while left > 0 and (piece := self.rfile.read(min(left, 65536))):
                left -= len(piece)
            with lock:
                reply = next(replies)
            self.send_response(reply.status)
            if reply.retry_after is not None:
                self.send_header("Retry-After", reply.retry_after)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body.encode())

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def bytes_of_a_clip(tmp_path: Path) -> Path:
    """A file to send where nobody looks into it."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(bytes(1000))
    return path


def test_whatever_is_no_answer_is_a_failure(bytes_of_a_clip: Path) -> None:
    with scripted(chain(FAULTS, repeat(ANSWER))) as host:
        load = run_plain(host, users=len(FAULTS), seconds=8, clip=bytes_of_a_clip)
    assert load.code == 1
    assert load.failures == {"/v1/detect": len(FAULTS)}
    assert load.requests["/v1/detect"] > len(FAULTS)


def test_being_turned_away_is_counted_apart(bytes_of_a_clip: Path) -> None:
    away = [Reply(503, "{}", retry_after="0"), Reply(429, "{}", retry_after="1")]
    with scripted(chain(away, repeat(ANSWER))) as host:
        load = run_plain(host, users=2, seconds=5, clip=bytes_of_a_clip)
    assert load.code == 0
    assert load.requests["/v1/detect (turned away)"] == len(away)
    assert load.requests["/v1/detect"] > 0
    assert sum(load.failures.values()) == 0


def test_client_waits_as_it_was_asked_to_and_none_answered_is_a_failure(bytes_of_a_clip: Path) -> None:
    with scripted(repeat(Reply(503, "{}", retry_after="3600"))) as host:
        load = run_plain(host, users=2, seconds=5, clip=bytes_of_a_clip)
    assert load.code == 1
    assert load.requests == {"/v1/detect (turned away)": 2}
    assert load.failures == {"/v1/detect (turned away)": 0}


def test_a_clip_is_given_up_after_some_attempts(bytes_of_a_clip: Path, tmp_path: Path) -> None:
    with scripted(repeat(Reply(503, "{}", retry_after="0"))) as host:
        load = run_scenario("burst", host, tmp_path, clip=bytes_of_a_clip)
    assert load.code == 1
    assert load.missed() == {"clips answered", "turned away", "given up after 5 attempts"}
    assert sum(load.failures.values()) == 0


def test_nobody_storms_a_server_that_turns_everybody_away(bytes_of_a_clip: Path) -> None:
    with scripted(repeat(Reply(503, "{}", retry_after="2"))) as host:
        load = run_plain(host, users=3, seconds=5, clip=bytes_of_a_clip)
    assert sum(load.requests.values()) <= 3 * 3
    assert sum(load.failures.values()) == 0


@pytest.mark.parametrize(
    ("name", "reply", "missed"),
    [
        ("steady", Reply(500, "{}"), {"failed requests", "clips answered"}),
        (
            "steady",
            Reply(503, "{}"),
            {"failed requests", "clips answered", "turned away without Retry-After"},
        ),
        ("hostile", ANSWER, {"failed requests", "bad uploads refused with 4xx"}),
    ],
)
def test_a_server_that_answers_badly_misses_thresholds(
    name: str, reply: Reply, missed: set[str], bytes_of_a_clip: Path, tmp_path: Path
) -> None:
    with scripted(repeat(reply)) as host:
        load = run_scenario(name, host, tmp_path, clip=bytes_of_a_clip, finish=2)
    assert load.code == 1
    assert load.missed() == missed


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the tiny bundle."""
    folder = tmp_path_factory.mktemp("models")
    tiny_bundle(folder / "tiny")
    return folder


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[str]:
    """A real server for all scenarios."""
    with served(models_dir=models, upload_timeout_s=15) as host:
        yield host


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("clips") / "clip.mp4", seconds=1.0, size=320)


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_a_real_server_bears_each_scenario(name: str, server: str, clip: Path, tmp_path: Path) -> None:
    load = run_scenario(name, server, tmp_path, clip=clip)
    assert load.missed() == set()
    assert load.code == int(bool(load.missed(timed=True)))
    assert load.results["answered"] > 0
    assert sum(load.failures.values()) == 0
    assert set(load.results["alone_s"]) == set(SCENARIOS[name].alone)


def test_a_key_is_sent_as_the_service_wants_it(models: Path, clip: Path, tmp_path: Path) -> None:
    key = "a-key-of-the-load-tests"
    (tmp_path / "keys").write_text(line_for("load", key) + "\n")
    with served(models_dir=models, api_keys_file=tmp_path / "keys") as host:
        good = run_plain(host, users=1, seconds=3, clip=clip, finish=60, api_key=key)
        bad = run_plain(host, users=1, seconds=2, clip=clip, finish=60)
    assert (good.code, sum(good.failures.values())) == (0, 0)
    assert bad.code == 1
    assert bad.failures == bad.requests


def test_the_command_starts_a_server_and_writes_a_report(models: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    options = ["--model", str(models / "tiny"), "--out", str(out), "--publish", str(tmp_path)]
    done = run_command("steady", "ramp", "--scale", "0.1", *options, clip=clip)
    assert "| steady | 4 |" in done.stdout, done.stderr
    assert done.returncode == int("**missed**" in done.stdout)
    assert {"steady.html", "steady_stats.csv", "steady_stats_history.csv", "report.md", "ramp.png"} <= {
        p.name for p in out.iterdir()
    }
    kept = json.loads((tmp_path / "scaling" / "load.json").read_text())
    assert [r["scenario"] for r in kept["results"]["runs"]] == ["steady", "ramp"]
    assert kept["quick"] is True


def test_what_can_not_be_loaded_is_one_line(bytes_of_a_clip: Path, tmp_path: Path) -> None:
    done = run_command("steady", "--model", "no-such-bundle", "--out", str(tmp_path), clip=bytes_of_a_clip)
    assert done.returncode == 1
    assert "the load tests could not be run: " in done.stderr
    assert "Traceback" not in done.stderr
