"""The directory in which clips lie while they are worked on, and who empties it whatever happens."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

JANITOR = """
import os, signal, sys
for number in ({signals}):
    signal.signal(number, signal.SIG_IGN)
sys.stdin.buffer.read()
folder, prefix, own = sys.argv[1:]
for name in os.listdir(folder) if os.path.isdir(folder) else ():
    if name.startswith(prefix):
        try:
            os.unlink(os.path.join(folder, name))
        except OSError:
            pass
if own and os.path.isdir(folder):
    os.rmdir(folder)
""".format(signals=", ".join(str(int(s)) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)))
"""Waits until the service has ended, since then nobody writes to its standard input any more."""


def clip_prefix() -> str:
    """How the names of this process's clips begin."""
    return f"clip-{os.getpid()}-"


@contextmanager
def scratch(given: Path | None) -> Iterator[Path]:
    """The operator's directory, or one of our own that is gone in the end.

    A second process empties it also when this one is killed. What ends both at once, as the end of a
    container does, leaves it to the next start on the same directory.
    """
    folder = given or Path(tempfile.mkdtemp(prefix="deepfake-detect-"))
    _sweep(folder)
    janitor = subprocess.Popen(  # noqa: S603 - a constant script
        [sys.executable, "-I", "-S", "-c", JANITOR, folder, clip_prefix(), "" if given else "own"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield folder
    finally:
        assert janitor.stdin is not None  # noqa: S101 - a pipe was asked for
        janitor.stdin.close()
        janitor.wait()


def _sweep(folder: Path) -> None:
    """Delete clips of processes that are gone; of our own number there can only be those of one before us."""
    for path in folder.iterdir():
        if (named := re.match(r"clip-(\d+)-", path.name)) and not _another(int(named[1])):
            with suppress(OSError):  # it is another user's
                path.unlink()


def _another(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != os.getpid()
