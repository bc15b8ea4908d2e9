"""What goes wrong around a real server: each fault costs what it hits, and nothing else."""

import os
import re
import resource
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.bundle import ENCODER
from tests import media
from tests.bundles import tiny_bundle
from tests.server import Server, refused

LEAVING = 1000
TICKS = 10
"""After so many a decoder is at work on a clip."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return media.face_clip(tmp_path_factory.mktemp("media") / "face.mp4").read_bytes()


@pytest.fixture
def server(tmp_path):
    tiny_bundle(tmp_path / "models" / "tiny")
    one = Server(tmp_path, tmp_path / "models", max_upload_bytes=50_000_000)
    yield one
    assert one.stop() == 0


def until(true, what):
    deadline = time.monotonic() + 60
    while not (found := true()):
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
    return found


def decoders(server):
    pid = server.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(c) for c in children if b"service.decoder" in Path(f"/proc/{c}/cmdline").read_bytes()}


def metric(server, name):
    found = re.search(rf"^{re.escape(name)} (\S+)$", server.client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def problem(response, status, name):
    assert (response.status_code, response.json()["type"]) == (status, f"/problems/{name}"), response.text


def descriptors(server):
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))  # noqa: PTH208 - only their number counts


def test_a_decoder_that_is_killed_costs_its_own_clip(server, clip, tmp_path):
    long = media.face_clip(tmp_path / "long.mp4", seconds=20, size=800, faces=6).read_bytes()
    before = {d: ticks(d) for d in decoders(server)}
    with ThreadPoolExecutor(2) as pool:
        lost = pool.submit(server.detect, long)
        (busy,) = until(lambda: [d for d in before if ticks(d) > before[d] + TICKS], "no decoder works")
        other = pool.submit(server.detect, clip)
        os.kill(busy, signal.SIGKILL)
        problem(lost.result(), 422, "undecodable-media")
        assert other.result().status_code == 200
    until(lambda: len(decoders(server)) == 2 and busy not in decoders(server), "the place is not filled")
    assert metric(server, 'detector_decoder_restarts_total{reason="crash"}') == 1
    assert server.detect(clip).status_code == 200
    assert list(server.scratch.iterdir()) == []


def ticks(pid):
    """CPU time of a process, in hundredths of a second."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


def test_a_full_disk_is_told_and_passes(server, clip):
    """The kernel refuses to let the server's files grow; a disk that is full does so with another number."""
    pid = server.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    response = server.detect(clip)
    problem(response, 503, "overloaded")
    assert int(response.headers["retry-after"]) >= 1
    assert list(server.scratch.iterdir()) == []
    resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    assert server.detect(clip).status_code == 200


def test_a_scratch_directory_that_is_gone_is_told_and_passes(server, clip):
    away = server.scratch.rename(server.scratch.with_name("away"))
    response = server.detect(clip)
    problem(response, 503, "overloaded")
    assert int(response.headers["retry-after"]) >= 1
    assert server.client.get("/livez").status_code == 200
    away.rename(server.scratch)
    assert server.detect(clip).status_code == 200


def test_a_bundle_that_is_swapped_for_a_corrupt_one_is_not_served(server, clip, tmp_path):
    """What was loaded goes on to answer, and to say what it is; the next start sees the swap."""
    usual = server.detect(clip).json()
    corrupt = tmp_path / "models" / "tiny" / ENCODER
    corrupt.write_bytes(corrupt.read_bytes()[:-1] + b"\0")
    again = server.detect(clip).json()
    assert (again["probabilities"], again["model"]) == (usual["probabilities"], usual["model"])
    (tmp_path / "next").mkdir()
    code, said = refused(tmp_path / "next", models_dir=tmp_path / "models")
    assert (code, len(said.splitlines())) == (1, 1)
    assert "digest" in said


def test_a_thousand_clients_that_leave_while_they_send_leave_nothing_behind(server, clip):
    host, port = server.url.removeprefix("http://").split(":")
    head = f"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Type: video/mp4\r\nContent-Length: {len(clip)}"
    body = head.encode() + b"\r\n\r\n" + clip

    def leave(k):
        with socket.create_connection((host, int(port)), timeout=30) as client:
            client.sendall(body[: len(head) + 4 + k * len(clip) // LEAVING])

    assert server.detect(clip).status_code == 200
    before = descriptors(server)
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(leave, range(LEAVING)))
    until(lambda: metric(server, "detector_requests_in_flight") == 0, "a request stays")
    until(lambda: not list(server.scratch.iterdir()), "a file stays")
    until(lambda: descriptors(server) <= before + 2, "descriptors stay open")
    assert len(decoders(server)) == 2
    assert server.detect(clip).status_code == 200
    assert [line for line in server.lines() if line["level"] == "error"] == []


def test_a_server_that_is_stopped_and_continued_goes_on(server, clip):
    """As a virtual machine that is moved: for it, time jumps."""
    os.kill(server.process.pid, signal.SIGSTOP)
    time.sleep(1)
    os.kill(server.process.pid, signal.SIGCONT)
    assert server.detect(clip).status_code == 200
    assert server.client.get("/livez").status_code == 200


def test_the_service_asks_no_clock_that_jumps():
    """Deadlines, limits and paces go by clocks that never go back; only logs and receipts tell the time."""
    root = Path(__file__).resolve().parents[2]
    for path in sorted((root / "service").glob("*.py")):
        if path.name not in {"logs.py", "receipts.py"}:
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"\btime\.time\(|\bdatetime\b|\butcnow\(", text), path
