"""Manifests looked into in a process of their own, which ends whatever it does."""

import os
import signal
import sys
from pathlib import Path
from threading import Thread

import pytest

from pipeline.credentials import NOT_ASKED, Credentials, Trust
from service.checker import checked_apart

ROOT = Path(__file__).resolve().parents[2]
MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def code(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def look(path, trust=None, **options):
    options = {"memory_bytes": 2048 * MIB, "sandbox": "prefer"} | options
    return checked_apart(path, "mp4", trust or Trust(), **options)


def doing(code):
    return (sys.executable, "-c", f"import os, sys, time; sys.stdin.read(); {code}")


def test_it_finds_what_is_found_otherwise(tmp_path):
    pytest.importorskip("c2pa")
    from tests.credentials import Authority, plain_file

    authority = Authority()
    (tmp_path / "there").mkdir()
    clip = authority.signed(plain_file(tmp_path / "a.mp4"), tmp_path / "there" / "signed.mp4")
    (tmp_path / "link.mp4").symlink_to(clip)
    for path in (clip, tmp_path / "link.mp4"):
        found = look(path, Trust(signers=authority.pem))
        assert (found.valid, found.trusted, found.sources) == (True, True, ("digitalCapture",))


def test_nothing_is_started_where_nobody_asks(tmp_path):
    assert look(tmp_path, Trust(check=False), command=("/nowhere",)) == NOT_ASKED


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("os._exit(3)", "failed"),
        ("os.kill(os.getpid(), 11)", "failed"),
        ("print('{}')", "failed"),
        ("print('nonsense')", "failed"),
        ("os.kill(os.getpid(), 24)", "timeout"),
    ],
)
def test_a_library_that_fails_is_told(tmp_path, what, why):
    assert look(tmp_path, command=doing(what)) == Credentials(unchecked=why)
    assert look(tmp_path, command=("/nowhere",)) == Credentials(unchecked="failed")


def test_one_that_hangs_is_ended(tmp_path):
    noted = tmp_path / "pid"
    hang = doing(f"open({str(noted)!r}, 'w').write(str(os.getpid())); time.sleep(1000)")
    assert look(tmp_path, command=hang, patience_s=3.0) == Credentials(unchecked="timeout")
    with pytest.raises(ProcessLookupError):
        os.kill(int(noted.read_text()), 0)


def test_it_ends_when_the_command_is_interrupted(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    ignoring = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    hang = doing(f"{ignoring}; open({str(pipe)!r}, 'w').write(str(os.getpid())); time.sleep(1000)")
    seen = []

    def interrupt():
        seen.append(int(pipe.read_text()))
        os.kill(os.getpid(), signal.SIGINT)

    thread = Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        look(tmp_path, command=hang, patience_s=100.0)
    thread.join()
    with pytest.raises(ProcessLookupError):
        os.kill(seen[0], 0)
