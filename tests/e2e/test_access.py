"""A real server with keys: what is refused is answered before the client sends its body."""

import os
import socket
import subprocess

import httpx
import pytest

from service.keys import line_for
from tests.bundles import tiny_bundle
from tests.media import face_clip
from tests.server import COMMAND, ROOT, served

KEY = "the-key-of-this-test"


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys")
    tiny_bundle(path / "models" / "tiny")
    (path / "keys").write_text(line_for("test", KEY) + "\n")
    with served(models_dir=path / "models", provider="cpu", api_keys_file=path / "keys") as address:
        yield address


def first_line(url, *headers):
    """What a client that waits to be asked for its body is told first."""
    host, port = url.removeprefix("http://").split(":")
    lines = ["POST /v1/detect HTTP/1.1", "Host: test", "Content-Type: video/mp4", "Content-Length: 1000"]
    with socket.create_connection((host, int(port)), timeout=20) as s:
        s.sendall("\r\n".join([*lines, "Expect: 100-continue", *headers, "", ""]).encode())
        return s.makefile("rb").readline().split(b" ")[1]


def test_a_body_is_asked_for_with_a_key_alone(url):
    assert first_line(url) == b"401"
    assert first_line(url, "X-API-Key: another") == b"403"
    assert first_line(url, f"Authorization: Bearer {KEY}") == b"100"


def test_a_clip_is_answered_with_a_key(url, tmp_path):
    clip = face_clip(tmp_path / "face.mp4").read_bytes()
    given = {"files": {"file": clip}, "headers": {"authorization": f"Bearer {KEY}"}, "timeout": 60}
    answer = httpx.post(f"{url}/v1/detect", **given)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    metrics = httpx.get(f"{url}/metrics").text
    assert 'detector_key_requests_total{key="test",status="2xx"} 1.0' in metrics
    assert KEY not in metrics


def test_a_malformed_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "keys").write_text(f"test {KEY}\n")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DETECTOR_")}
    environment["DETECTOR_API_KEYS_FILE"] = str(tmp_path / "keys")
    ended = subprocess.run(
        COMMAND, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert "DETECTOR_API_KEYS_FILE" in line
    assert "line 1 is not" in line
    assert KEY not in line
