"""Real server processes for the tests."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[1]
SERVE = [sys.executable, "-c", "from cli.main import main; main()", "serve"]
COMMAND = [*SERVE, "--port", "0"]
READY = r"ready: (http://127\.0\.0\.1:\d+)  try: curl -F file=@sample\.mp4 \1/v1/detect$"
LIMIT = 1_000_000


@contextmanager
def served(**settings: object) -> Iterator[str]:
    """Address of a server with these settings, once it is ready; ended with the block."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("DETECTOR_")}
    given = {f"DETECTOR_{k.upper()}": str(v) for k, v in settings.items()}
    server = subprocess.Popen(
        COMMAND,
        cwd=ROOT,
        env=inherited | {"DETECTOR_DECODERS": "1"} | given,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    try:
        ready = server.stdout.readline()
        assert ready.startswith("ready: "), "the server ended before it was ready"
        yield ready.split()[1]
    finally:
        server.terminate()
        server.communicate(timeout=60)


class Server:
    """A server process with a scratch directory of its own."""

    def __init__(self, tmp_path, models, **settings):
        self.scratch = tmp_path / "scratch"
        self.scratch.mkdir()
        self.log = tmp_path / "log"
        given = {
            "models_dir": models,
            "scratch_dir": self.scratch,
            "max_upload_bytes": LIMIT,
            "decoders": 2,
            "provider": "cpu",
        }
        self.process = start(self.log, **(given | settings))
        ready = self.process.stdout.readline()
        found = re.match(READY, ready)
        assert found, (ready, self.log.read_text())
        self.url = found[1]
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def detect(self, content, kind="application/octet-stream", **given):
        return self.client.post("/v1/detect", content=content, headers={"content-type": kind}, **given)

    def lines(self):
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def raw(self, data, seconds=20):
        """Send bytes as they are; what comes back until the server closes or says no more."""
        host, port = self.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=seconds) as s:
            s.sendall(data)
            answer = b""
            with contextlib.suppress(TimeoutError, ConnectionError):
                while piece := s.recv(65536):
                    answer += piece
                    if complete(answer):
                        break
            return answer

    def stop(self):
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        self.process.stdout.close()
        return code


def complete(answer):
    """Whether a response with a known length is there as a whole."""
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    return length is not None and len(body) >= int(length[1])


def start(log, **settings):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DETECTOR_")}
    given = {"port": 0} | settings
    environment |= {f"DETECTOR_{k.upper()}": str(v) for k, v in given.items()}
    with log.open("w") as errors:
        return subprocess.Popen(
            SERVE, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )


def refused(tmp_path, **settings):
    """Exit code and standard error of a server that does not start."""
    log = tmp_path / "log"
    process = start(log, **settings)
    assert process.stdout.read() == ""
    process.stdout.close()
    return process.wait(timeout=60), log.read_text()
