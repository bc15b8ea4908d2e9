"""A real server process for the tests."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-c", "from cli.main import main; main()", "serve", "--port", "0"]


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
