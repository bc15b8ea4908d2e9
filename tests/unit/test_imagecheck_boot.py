"""What is tried of an image that was started, and what is said when it does not what it should."""

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from imagecheck import boot
from imagecheck.boot import Booted, CheckFailed
from imagecheck.dockerfile import BASE_ENVIRONMENT, Config
from imagecheck.replay import Image
from tests.roots import can_mount, tiny_root

pytestmark = pytest.mark.skipif(not can_mount(), reason="needs Linux, root and mounts of one's own")
JUDGED = {"verdict": "authentic", "probabilities": {"fake": 0.25}, "reasons": []}
OBEYS = "trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done"
CONFINED = b'detector_sandbox_info{landlock="false",seccomp="true"} 1.0\n'


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_root(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def answers() -> Iterator[dict[str, Any]]:
    """Status and body by path, and the port of the server that gives them: it stands in for the image's."""
    given: dict[str, Any] = {"/readyz": (200, b"")}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = given.get(self.path, (404, b""))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    given["port"] = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield given
    server.shutdown()
    thread.join()
    server.server_close()


def booted(root: Path, answers: dict[str, Any], log: Path, script: str = OBEYS) -> Booted:
    environment = {**BASE_ENVIRONMENT, "DETECTOR_PORT": str(answers["port"])}
    config = Config(environment=environment, entrypoint=("sh", "-c", script), user=(10001, 10001))
    return Booted(root, Image(root, (), config), log)


def test_a_server_that_is_ready_is_ended_by_its_signal(
    root: Path, answers: dict[str, Any], tmp_path: Path
) -> None:
    found = booted(root, answers, tmp_path / "log")
    with found.serving() as server:
        until_up(server, tmp_path / "log")
        assert boot._stop(server, found.image).startswith("SIGTERM ends it with 0")
    assert server.returncode == 0


@pytest.mark.parametrize(
    ("trap", "why"),
    [("exit 3", r"ended with 3 after SIGTERM"), (":", r"SIGTERM did not end the server within 0.3 s")],
)
def test_a_server_that_ends_otherwise_or_not_at_all_fails(
    root: Path,
    answers: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trap: str,
    why: str,
) -> None:
    monkeypatch.setattr(boot, "STOP_S", 0.3 if trap == ":" else boot.STOP_S)
    found = booted(root, answers, tmp_path / "log", OBEYS.replace("exit 0", trap))
    with found.serving() as server:
        until_up(server, tmp_path / "log")
        with pytest.raises(CheckFailed, match=why):
            boot._stop(server, found.image)
        first = Path(f"/proc/{server.pid}/task/{server.pid}/children")
        children = first.read_text(encoding="ascii").split() if first.exists() else []
    assert server.returncode != 0
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def test_a_server_that_ends_before_it_is_ready_says_why(
    root: Path, answers: dict[str, Any], tmp_path: Path
) -> None:
    answers["/readyz"] = (503, b"")
    found = booted(root, answers, tmp_path / "log", "echo bad news; exit 4")
    with pytest.raises(CheckFailed, match=r"ended with 4:\nbad news"), found.serving():
        pytest.fail("nothing was ready")


def test_other_commands_give_their_exit_code(root: Path, answers: dict[str, Any], tmp_path: Path) -> None:
    assert booted(root, answers, tmp_path / "log").run(["sh", "-c", "exit $(id -u | cat)"]) == 10001 % 256


def test_a_clip_has_to_be_judged(root: Path, answers: dict[str, Any], tmp_path: Path) -> None:
    found = booted(root, answers, tmp_path / "log")
    answers["/v1/detect"] = (200, json.dumps(JUDGED).encode())
    assert boot._answer(found, b"clip") == "POST /v1/detect: authentic, 0.25 fake"
    unjudged = JUDGED | {"probabilities": None, "reasons": ["no_face: none"]}
    for answer in ((503, b"busy"), (200, json.dumps(unjudged).encode())):
        answers["/v1/detect"] = answer
        with pytest.raises(CheckFailed, match=r"says 503: b'busy'|not judged: \['no_face: none'\]"):
            boot._answer(found, b"clip")


def test_decoders_have_to_be_confined(root: Path, answers: dict[str, Any], tmp_path: Path) -> None:
    found = booted(root, answers, tmp_path / "log")
    answers["/metrics"] = (200, CONFINED)
    assert boot._confinement(found) == "decoders are confined by seccomp"
    answers["/metrics"] = (200, CONFINED.replace(b"true", b"false"))
    with pytest.raises(CheckFailed, match="not confined"):
        boot._confinement(found)


def test_modules_that_no_image_holds_must_not_be_found(
    answers: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tiny_root(tmp_path / "own")
    python = own / "bin" / "python"
    python.write_text('#!/bin/sh\ncase "$2" in *torch) exit 1;; esac\n')
    python.chmod(0o755)
    found = booted(own, answers, tmp_path / "log")
    monkeypatch.setattr(boot, "NEVER", ("torch",))
    assert next(boot._modules(found)) == "no torch can be imported"
    monkeypatch.setattr(boot, "NEVER", ("torch", "pip"))
    with pytest.raises(CheckFailed, match="`import pip` works"):
        list(boot._modules(found))


def test_variables_are_added_to_those_of_the_image(
    root: Path, answers: dict[str, Any], tmp_path: Path
) -> None:
    image = booted(root, answers, tmp_path / "log").image
    other = boot.with_variables(image, {"A": "1"})
    assert other.config == replace(image.config, environment={**image.config.environment, "A": "1"})


def until_up(server: subprocess.Popen[str], log: Path) -> None:
    """Wait for the script's own word: before it, the signal would find no trap."""
    while "up" not in log.read_text():
        assert server.poll() is None, log.read_text()
        time.sleep(0.01)
