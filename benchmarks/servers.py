"""Servers as processes of their own: started, waited for, and ended with everything that they started."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.bench import ROOT, Bench, BenchError
from benchmarks.load import Call, multipart
from benchmarks.processes import tree

START_S = 180.0
STOP_S = 20.0
MOST_BYTES = 4 * 2**30


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers. `pid` is the root of its processes, `log` gets what it says."""

    pid: int
    url: str
    log: Path


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], *, port: int, ready: str, folder: Path
) -> Iterator[Server]:
    """A server for the length of the block, from when it answers GET `ready` with 200.

    Its output goes to a file in `folder`, of which the end is shown when it does not start. Raises
    BenchError when it does not.
    """
    log = folder / f"server-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - the commands are in this package
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        server = Server(process.pid, f"http://127.0.0.1:{port}", log)
        try:
            _wait(process, server.url + ready, log)
            yield server
        finally:
            _stop(process)


@contextmanager
def service(bench: Bench, port: int = 0, /, **settings: object) -> Iterator[Server]:
    """This project's service with one bundle and otherwise its own defaults, on a free port for port 0."""
    models = bench.folder / "models"
    models.mkdir(exist_ok=True)
    link = models / bench.bundle.manifest.id
    if not link.is_symlink():
        link.symlink_to(bench.bundle.path.resolve(), target_is_directory=True)
    port = port or free_port()
    given = {
        "port": port,
        "models_dir": models,
        "provider": "cpu",
        "allow_untrained": "true",
        "max_upload_bytes": MOST_BYTES,
        "log_level": "warning",
    }
    own = {f"DETECTOR_{name.upper()}": str(value) for name, value in (given | settings).items()}
    command = [sys.executable, "-c", "from cli.main import main; main()", "serve"]
    with running(command, clean() | own, port=port, ready="/readyz", folder=bench.folder) as server:
        yield server


def detect(server: Server, clip: Path) -> Call:
    """A request to this project's service."""
    return multipart(f"{server.url}/v1/detect", clip.read_bytes())


def clean() -> dict[str, str]:
    """This environment without settings of the service."""
    return {k: v for k, v in os.environ.items() if not k.startswith("DETECTOR_")}


def _wait(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        with suppress(httpx.HTTPError):
            if httpx.get(url, timeout=5, trust_env=False).status_code == httpx.codes.OK:
                return
        time.sleep(0.1)
    tail = " / ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:])
    raise BenchError(f"a server did not start within {START_S:g} s: {tail or 'it said nothing'}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Ask the server to end, then end what it has left behind."""
    family = [p.pid for p in tree(process.pid)]
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    for pid in family:
        if tree(pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait()
    until = time.monotonic() + STOP_S
    while any(tree(pid) for pid in family) and time.monotonic() < until:
        time.sleep(0.05)
