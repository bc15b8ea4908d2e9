"""Starts an image as a careful operator would, read-only, without a network or a privilege, and tries it."""

import http.client
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from imagecheck import contents
from imagecheck.namespaces import layered
from imagecheck.replay import Image, start

READY_S, ANSWER_S, COMMAND_S = 180, 120, 120
STOP_S = 10
"""What `docker stop` waits before it kills."""
NEVER = ("torch", "onnx.backend.test", "numpy.tests", "pip")
"""Modules that no image holds."""
ALSO = ("insightface.model_zoo", "pipeline.selfcheck", "cli.verify")
"""Modules that serving with other settings, or another command, imports."""


class CheckFailed(Exception):
    """The image does not what it should."""


class Booted:
    """A server of an image that is seen at `root`."""

    def __init__(self, root: Path, image: Image, log: Path) -> None:
        """log: file of what it says."""
        self.root, self.image, self._log = root, image, log
        self.port = int(image.config.environment["DETECTOR_PORT"])

    @contextmanager
    def serving(self) -> Iterator[subprocess.Popen[str]]:
        """The process that holds the image's first one, once that says it is ready. Raises CheckFailed."""
        config = self.image.config
        with self._log.open("w", encoding="utf-8") as log:
            command = [*config.entrypoint, *config.command]
            server = start(self.root, command, config, config.environment, log, isolated=True)
        try:
            self._wait(server)
            yield server
        finally:
            if server.poll() is None:
                # Its parent's end would not end it: who changes the user loses that signal.
                os.kill(_first(server), signal.SIGKILL)
                server.wait()

    def run(self, command: Sequence[str]) -> int:
        """Exit code of another command of the image, beside what runs in it, as with `docker exec`."""
        config = self.image.config
        done = start(self.root, command, config, config.environment, subprocess.DEVNULL)
        try:
            return done.wait(timeout=COMMAND_S)
        except subprocess.TimeoutExpired as e:
            done.kill()
            raise CheckFailed(f"{' '.join(command)} took more than {COMMAND_S} s") from e

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Status and body of an answer. Raises OSError or http.client.HTTPException."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)
        try:
            connection.request(method, path, body, {"Content-Type": "video/mp4"} if body else {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _wait(self, server: subprocess.Popen[str]) -> None:
        until = time.monotonic() + READY_S
        while time.monotonic() < until and server.poll() is None:
            try:
                if self.ask("GET", "/readyz")[0] == http.client.OK:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        state = f"ended with {server.returncode}" if server.poll() is not None else "was not ready in time"
        raise CheckFailed(f"the server {state}:\n{self._log.read_text(encoding='utf-8')[-2000:]}")


def check(image: Image, folder: Path, untied: set[str]) -> Iterator[str]:
    """What was tried and found right, one after the other; the first that is not raises CheckFailed.

    folder: one that this may write to; untied: packages that others ask for and that are left out. The caller
    has mounts and a network of its own.
    """
    with layered(folder / "booted", image.folders) as root:
        booted = Booted(root, image, folder / "server.log")
        (site,) = root.glob("opt/venv/lib/python*/site-packages")
        unmet = contents.unmet(site, site.parent.name.removeprefix("python"))
        _expect(unmet == untied, f"packages want {sorted(unmet)}; left out are {sorted(untied)}")
        yield f"every package finds what it asks for, but for {', '.join(sorted(untied))}"
        yield from _modules(booted)
        clip = _sample(booted)
        yield "`deepfake-detect sample` writes a clip"
        with booted.serving() as server:
            yield f"/readyz says 200 as user {image.config.user[0]} on a read-only tree, without a network"
            yield _confinement(booted)
            yield _answer(booted, clip)
            _expect(booted.run(image.config.healthcheck) == 0, "HEALTHCHECK failed")
            yield "HEALTHCHECK succeeds"
            yield _stop(server, image)
        _expect(booted.run(image.config.healthcheck) != 0, "HEALTHCHECK succeeds without a server")
        left = sorted(path.name for where in ("tmp", "dev/shm") for path in (root / where).iterdir())
        _expect(not left, f"left in scratch: {', '.join(left)}")
        yield "nothing is left in /tmp and /dev/shm, and nothing could be written elsewhere"


def _modules(booted: Booted) -> Iterator[str]:
    for name in NEVER:
        _expect(booted.run(["python", "-c", f"import {name}"]) == 1, f"`import {name}` works")
    yield f"no {', '.join(NEVER)} can be imported"
    for name in ALSO:
        _expect(booted.run(["python", "-c", f"import {name}"]) == 0, f"`import {name}` fails")
    yield f"{', '.join(ALSO)} can"


def _sample(booted: Booted) -> bytes:
    """A clip that the image made."""
    made = booted.run(["deepfake-detect", "sample", "/tmp/sample.mp4"])
    clip = booted.root / "tmp" / "sample.mp4"
    _expect(made == 0 and clip.exists(), "`deepfake-detect sample` failed")
    content = clip.read_bytes()
    clip.unlink()
    return content


def _confinement(booted: Booted) -> str:
    """What a decoder could take of the measures that it is confined by."""
    _, body = booted.ask("GET", "/metrics")
    said = re.search(r"^detector_sandbox_info\{(.*)\} 1", body.decode(), re.MULTILINE)
    measures = re.findall(r'(\w+)="true"', said[1]) if said else []
    _expect("seccomp" in measures, f"decoders are not confined: {said and said[0]}")
    return f"decoders are confined by {', '.join(measures)}"


def _answer(booted: Booted, clip: bytes) -> str:
    status, body = booted.ask("POST", "/v1/detect", clip)
    _expect(status == http.client.OK, f"POST /v1/detect says {status}: {body[:500]!r}")
    answer = json.loads(body)
    _expect(answer["probabilities"] is not None, f"the sample was not judged: {answer['reasons']}")
    return f"POST /v1/detect: {answer['verdict']}, {answer['probabilities']['fake']:.2f} fake"


def _stop(server: subprocess.Popen[str], image: Image) -> str:
    """The signal that an engine sends, to the process that an engine sends it to."""
    began = time.monotonic()
    number = signal.Signals[image.config.stop_signal]
    os.kill(_first(server), number)
    try:
        code = server.wait(timeout=STOP_S)
    except subprocess.TimeoutExpired as e:
        raise CheckFailed(f"{number.name} did not end the server within {STOP_S} s") from e
    _expect(code == 0, f"the server ended with {code} after {number.name}")
    return f"{number.name} ends it with 0 after {time.monotonic() - began:.1f} s"


def with_variables(image: Image, variables: Mapping[str, str]) -> Image:
    """The image as it is when started with other variables."""
    environment = {**image.config.environment, **variables}
    return replace(image, config=replace(image.config, environment=environment))


def _expect(right: bool, otherwise: str) -> None:
    if not right:
        raise CheckFailed(otherwise)


def _first(server: subprocess.Popen[str]) -> int:
    """Process id of the first process of its namespace, with which all others end."""
    (first,) = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text(encoding="ascii").split()
    return int(first)
