"""The client against a real server, and all that its README shows; a scan that lets a server judge."""

import asyncio
import io
import json
import os
import re
import socket
import subprocess
import sys
import zipfile

import httpx
import pytest

from deepfake_detect_client import (
    Answer,
    AsyncClient,
    Client,
    ClipRefused,
    ClipTooLarge,
    DeadlineExceeded,
    KeyRefused,
    NotFound,
    Progress,
    RateLimited,
    Retries,
    TimedOut,
    Unavailable,
    Unreachable,
)
from service.keys import line_for
from tests import media
from tests.bundles import tiny_bundle
from tests.server import LIMIT, ROOT, Server

PACKAGE = ROOT / "clients" / "python"
README = (PACKAGE / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SELF = [sys.executable, "-c", "from cli.main import main; main()"]
ONCE = Retries(attempts=1)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    tiny_bundle(path / "tiny")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory, models):
    """Where a newcomer stands: with the sample clip and the faces in it."""
    path = tmp_path_factory.mktemp("newcomer")
    media.face_clip(path / "sample.mp4", seconds=1.0)
    assert run("crop", "sample.mp4", folder=path, DETECTOR_MODELS_DIR=str(models)).returncode == 0
    return path


def run(*words: object, folder, **environment: str) -> subprocess.CompletedProcess:
    command = [*SELF, *map(str, words)]
    given = clean() | environment
    return subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True, check=False)


def clean() -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("DETECTOR_")}
    return inherited | {"PYTHONPATH": f"{ROOT}{os.pathsep}{PACKAGE}"}


@pytest.fixture(scope="module")
def server(tmp_path_factory, models):
    one = Server(tmp_path_factory.mktemp("server"), models)
    yield one
    assert one.stop() == 0


@pytest.fixture(scope="module")
def client(server):
    with Client(server.url) as one:
        yield one


@pytest.fixture(scope="module")
def clip(folder):
    return folder / "sample.mp4"


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_what_the_readme_shows_runs(folder, server, block):
    code = block.replace("http://127.0.0.1:8000", server.url)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=clean(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def ageless(answer: Answer) -> dict:
    content = answer.model_dump(mode="json")
    del content["timing_ms"]
    return content


def test_the_answer_is_what_the_service_gives(client, server, clip):
    got = server.client.post("/v1/detect", files={"file": clip.read_bytes()}).json()
    del got["timing_ms"]
    with clip.open("rb") as file:
        for source in (clip, str(clip), clip.read_bytes(), file):
            assert ageless(client.detect(source)) == got


def test_both_clients_and_all_ways_agree(client, server, clip):
    async def asked():
        async with AsyncClient(server.url) as one:
            async with one.stream(clip) as events:
                told = [event async for event in events]
            return await one.detect(clip), told, await one.models(), await one.ready()

    answer, told, models, ready = asyncio.run(asked())
    with client.stream(clip) as events:
        told_here = list(events)
    assert ageless(answer) == ageless(client.detect(clip)) == ageless(told[-1]) == ageless(told_here[-1])
    assert [e for e in told if isinstance(e, Progress)]
    assert (models, ready) == (client.models(), client.ready())
    assert client.model(models.default).digest == answer.model.digest


def test_a_pipe_arrives_whole(client, clip):
    reading, writing = os.pipe()
    content = clip.read_bytes()
    with os.fdopen(reading, "rb") as pipe:
        sent = subprocess.Popen(["cat", clip], stdout=writing)
        os.close(writing)
        assert client.detect(pipe).media.bytes == len(content)
        assert sent.wait() == 0


def test_a_deadline_is_kept_by_whoever_sees_first_that_it_passed(client, clip):
    with pytest.raises((DeadlineExceeded, TimedOut)):
        client.detect(clip, deadline_s=0.05)
    assert client.detect(clip, wait_s=60, deadline_s=60).coverage.truncated is False


def test_refusals_have_their_kinds(client, server, clip):
    with pytest.raises(ClipRefused) as caught:
        client.detect(media.TEXT)
    assert (caught.value.type, caught.value.status) == ("/problems/unsupported-media", 415)
    with pytest.raises(NotFound):
        client.model("no/such")
    with pytest.raises(ClipTooLarge):
        client.detect(bytes(LIMIT + 1))
    with pytest.raises(Unreachable), Client("http://127.0.0.1:1", retries=ONCE) as nobody:
        nobody.ready()


def test_a_clip_of_unknown_length_that_is_too_large_is_told_so(client):
    """The service answers and closes while the clip is still being sent."""

    class Endless(io.RawIOBase):
        left = 2 * LIMIT // 65536

        def read(self, size=-1):
            self.left -= 1
            return bytes(65536) if self.left > 0 else b""

    with pytest.raises((ClipTooLarge, Unreachable)):
        client.detect(Endless())


def test_keys_and_their_rates(tmp_path, models, clip):
    (tmp_path / "keys").write_text(line_for("web", "s3cret") + " rate=1/min burst=1\n")
    one = Server(tmp_path, models, decoders=1, api_keys_file=tmp_path / "keys")
    try:
        with pytest.raises(KeyRefused), Client(one.url) as nobody:
            nobody.models()
        with Client(one.url, api_key="s3cret", retries=ONCE) as known:
            assert known.ready()
            assert known.detect(clip).model.id == "tiny"
            with pytest.raises(RateLimited) as caught:
                known.detect(clip)
        assert 0 < caught.value.retry_after_s <= 60
        done = run("scan", "--server", one.url, clip, folder=tmp_path, DEEPFAKE_DETECT_API_KEY="wrong")
        assert (done.returncode, done.stderr.count("\n")) == (3, 1)
        assert "DEEPFAKE_DETECT_API_KEY" in done.stderr
    finally:
        assert one.stop() == 0


def test_a_client_waits_for_a_busy_service_and_is_served_then(tmp_path, models, clip):
    """The one place is held by an upload that does not go on, until the client has been turned away."""
    one = Server(tmp_path, models, decoders=1, max_in_flight=1)
    host, port = one.url.removeprefix("http://").split(":")
    head = b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Type: video/mp4\r\nContent-Length: 9\r\n\r\nabc"
    statuses = []
    try:
        with socket.create_connection((host, int(port))) as holding:
            holding.sendall(head)
            while "detector_requests_in_flight 1.0" not in one.client.get("/metrics").text:
                pass
            with pytest.raises(Unavailable) as caught, Client(one.url, retries=ONCE) as hasty:
                hasty.detect(clip)
            assert caught.value.retry_after_s >= 1

            def noticed(response):
                statuses.append(response.status_code)
                holding.close()

            with httpx.Client(event_hooks={"response": [noticed]}) as http:
                assert Client(one.url, http=http).detect(clip).model.id == "tiny"
        assert statuses[0] == 503
        assert statuses[-1] == 200
    finally:
        assert one.stop() == 0


def test_a_scan_by_a_server_is_what_a_scan_here_is(folder, server, models):
    words = ("scan", "--json", "sample.mp4")
    here = run(*words, folder=folder, DETECTOR_MODELS_DIR=str(models))
    there = run(*words, "--server", server.url, folder=folder)
    assert here.returncode == there.returncode
    mine, theirs = (json.loads(done.stdout) for done in (here, there))
    for side in (mine, theirs):
        del side["answer"]["timing_ms"]
    assert mine["answer"].keys() == theirs["answer"].keys()
    for name in ("id", "verdict", "media", "coverage", "model"):
        assert mine["answer"][name] == theirs["answer"][name]


def test_the_wheel_of_the_client_stands_alone(tmp_path):
    """Its modules need nothing but httpx and pydantic, and it brings its types and its licence."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=PACKAGE, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        names = content.namelist()
        (metadata,) = (content.read(n).decode() for n in names if n.endswith("/METADATA"))
        content.extractall(tmp_path / "here")
    assert "deepfake_detect_client/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert re.findall(r"^Requires-Dist: (\w+)", metadata, re.MULTILINE) == ["httpx", "pydantic"]
    code = (
        "import sys, deepfake_detect_client as c; assert c.__file__.startswith(sys.argv[1])\n"
        "own = {'pipeline', 'service', 'cli', 'training', 'export', 'numpy', 'fastapi'}\n"
        "sys.exit(bool(own & set(sys.modules)))"
    )
    here = tmp_path / "here"
    environment = {"PYTHONPATH": str(here), "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", code, here], cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0
