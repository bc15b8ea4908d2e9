"""A real server says how its decoders are confined, and does not start where more is required."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from service.sandbox import MEASURES
from tests.bundles import tiny_bundle

ROOT = Path(__file__).resolve().parents[2]
SERVE = "from cli.main import main; main()"
WITHOUT_SECCOMP = f"""
import sys
from service.workers import DecoderPool
decoder = '''
import errno, sys
from service import decoder, seccomp
def install(): raise OSError(errno.ENOSYS, "seccomp: Function not implemented")
seccomp.install = install
sys.exit(decoder.main())
'''
DecoderPool.__init__.__kwdefaults__["command"] = (sys.executable, "-c", decoder)
{SERVE}
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    tiny_bundle(path / "tiny")
    return path


def start(code, models, log, **settings):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DETECTOR_")}
    given = {"models_dir": models, "decoders": 2, "provider": "cpu", "port": 0} | settings
    environment |= {f"DETECTOR_{name.upper()}": str(value) for name, value in given.items()}
    with log.open("w") as errors:
        return subprocess.Popen(
            [sys.executable, "-c", code, "serve"],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )


def told(code, models, tmp_path, **settings):
    """The log line and the metric of a server that starts."""
    log = tmp_path / "log"
    server = start(code, models, log, **settings)
    try:
        ready = re.match(r"ready: (\S+)", server.stdout.readline())
        assert ready, log.read_text()
        metrics = httpx.get(f"{ready[1]}/metrics").text
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=60) == 0
        server.stdout.close()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (line,) = [line for line in lines if line["message"] == "decoders confined"]
    (labels,) = re.findall(r"^detector_sandbox_info\{(.*)\} 1\.0$", metrics, flags=re.MULTILINE)
    return line, dict(re.findall(r'(\w+)="(\w+)"', labels))


def test_a_server_says_what_its_decoders_are_confined_by(models, tmp_path):
    line, labels = told(SERVE, models, tmp_path)
    assert set(line["had"]) | line["lacking"].keys() == set(MEASURES)
    assert labels == {name: str(name in line["had"]).lower() for name in MEASURES}
    assert line["level"] == ("warning" if line["lacking"] else "info")


def test_a_server_says_what_is_lacking_and_starts(models, tmp_path):
    line, labels = told(WITHOUT_SECCOMP, models, tmp_path)
    assert line["level"] == "warning"
    assert line["lacking"]["seccomp"] == "seccomp: Function not implemented"
    assert labels["seccomp"] == "false"


def test_a_server_without_what_is_required_says_so_in_one_line(models, tmp_path):
    log = tmp_path / "log"
    server = start(WITHOUT_SECCOMP, models, log, sandbox="require")
    assert server.stdout.read() == ""
    server.stdout.close()
    assert (server.wait(timeout=60), log.read_text().count("\n")) == (1, 1), log.read_text()
    assert "decoders can not be confined: seccomp: Function not implemented" in log.read_text()
