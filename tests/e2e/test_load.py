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
from typing import NamedTuple

import pytest

from pipeline.sampleclip import write_sample
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
    """What a run of locust came to: exit code, and requests and failures by name."""

    code: int
    requests: dict[str, int]
    failures: dict[str, int]


def run_locust(host: str, *, users: int, seconds: int, clip: Path, finish: int = 0) -> Load:
    options = f"--headless --json -u {users} -r {users} -t {seconds}s --stop-timeout {finish}s --host {host}"
    done = subprocess.run(
        [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", *options.split()],
        cwd=ROOT,
        env=os.environ | {"DETECTOR_LOAD_CLIP": str(clip)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    entries = json.loads(done.stdout)
    return Load(
        done.returncode,
        {entry["name"]: entry["num_requests"] for entry in entries},
        {entry["name"]: entry["num_failures"] for entry in entries},
    )


@contextmanager
def scripted(replies: Iterator[Reply]) -> Iterator[str]:
    """Address of a server that gives these replies in turn."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
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

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
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
        load = run_locust(host, users=len(FAULTS), seconds=8, clip=bytes_of_a_clip)
    assert load.code == 1
    assert load.failures == {"/v1/detect": len(FAULTS)}
    assert load.requests["/v1/detect"] > len(FAULTS)


def test_being_turned_away_is_counted_apart(bytes_of_a_clip: Path) -> None:
    away = [Reply(503, "{}", retry_after="0"), Reply(429, "{}", retry_after="1")]
    with scripted(chain(away, repeat(ANSWER))) as host:
        load = run_locust(host, users=2, seconds=5, clip=bytes_of_a_clip)
    assert load.code == 0
    assert load.requests["/v1/detect (turned away)"] == len(away)
    assert load.requests["/v1/detect"] > 0
    assert sum(load.failures.values()) == 0


def test_client_waits_as_it_was_asked_to_and_none_answered_is_a_failure(bytes_of_a_clip: Path) -> None:
    with scripted(repeat(Reply(503, "{}", retry_after="3600"))) as host:
        load = run_locust(host, users=2, seconds=5, clip=bytes_of_a_clip)
    assert load.code == 1
    assert load.requests == {"/v1/detect (turned away)": 2}
    assert load.failures == {"/v1/detect (turned away)": 0}


def test_real_server_answers_every_clip(tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "models" / "tiny")
    clip = write_sample(tmp_path / "clip.mp4", seconds=1.0, size=320)
    with served(models_dir=tmp_path / "models") as host:
        load = run_locust(host, users=2, seconds=4, clip=clip, finish=60)
    assert load.code == 0
    assert load.requests["/v1/detect"] > 0
    assert sum(load.failures.values()) == 0
