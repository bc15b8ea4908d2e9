"""What a decoder process gives up before it looks at the first clip, and the time that it has for each.

A measure that the kernel does not have is left out and said, so that the parent can log it or refuse to
start. What each of them is for is in ADR 10.
"""

import ctypes
import errno
import json
import math
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Self

from service import landlock, seccomp

Sandbox = Literal["prefer", "require", "off"]
"""As `DETECTOR_SANDBOX`; `require` differs from `prefer` for the parent alone."""
MEASURES = ("no_new_privs", "undumpable", "landlock", "seccomp")
"""What a kernel may not have, in the order in which they are taken."""
OPEN_FILES = 64
LONGEST_S = 2**31
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38


class NotConfined(Exception):
    """A decoder has not the confinement that the operator requires."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """Which of MEASURES a decoder is confined by, and of the others why not."""

    had: tuple[str, ...]
    lacking: dict[str, str]

    def to_bytes(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Raises ValueError, KeyError, TypeError or AttributeError when it is malformed."""
        said = json.loads(content)
        lacking = {str(name): str(why) for name, why in said["lacking"].items()}
        return cls(tuple(name for name in MEASURES if name in said["had"]), lacking)

    def labels(self) -> dict[str, str]:
        """Each measure and whether it was had, for a metric."""
        return {name: str(name in self.had).lower() for name in MEASURES}


def tie_to_parent(parent: int) -> bool:
    """Die when the parent dies, leave Ctrl-C to it. False when it is gone already."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


def restrict(memory_bytes: int, scratch: Path, sandbox: Sandbox, also: Iterable[Path] = ()) -> Confinement:
    """Give up what decoding does not need; from here on no file can be opened but for reading.

    memory_bytes: on top of what is mapped by now. scratch: the directory of the clips, in which a decoder
    opens those that it is told of and sees no others. sandbox: with `off`, the limits and no_new_privs only.
    also: directories of packages that are yet to be imported.
    """
    _limit(memory_bytes)
    measures: dict[str, Callable[[], None]] = {
        "no_new_privs": partial(_prctl, PR_SET_NO_NEW_PRIVS, 1),
        "undumpable": partial(_prctl, PR_SET_DUMPABLE, 0),
        "landlock": lambda: landlock.install([*_code(), *also], [scratch]),
        "seccomp": seccomp.install,
    }
    had, lacking = [], {}
    for name in MEASURES:
        if sandbox == "off" and name != "no_new_privs":
            lacking[name] = "switched off"
            continue
        try:
            measures[name]()
        except OSError as e:
            lacking[name] = e.strerror or str(e)
        else:
            had.append(name)
    return Confinement(tuple(had), lacking)


def allow_cpu(seconds: float) -> None:
    """Let SIGXCPU end this process when all its threads together have computed for so long from now on.

    Rounded up to whole seconds, and never beyond a hard limit that it was started under.
    """
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = math.ceil(min(used.ru_utime + used.ru_stime + seconds, LONGEST_S))
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(
        resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard)
    )


def _limit(memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = OPEN_FILES if most_files == resource.RLIM_INFINITY else min(OPEN_FILES, most_files)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _code() -> list[Path]:
    """Where modules lie that may yet be imported: Python's own, and all of the packages imported so far.

    sys.path is not asked, since the working directory may be in it.
    """
    packages = {name: module for name, module in sys.modules.items() if "." not in name}
    places = {Path(place) for m in packages.values() for place in getattr(m, "__path__", ())}
    own = {Path(sys.prefix), Path(sys.base_prefix)}
    beside = {p for p in places if p.is_dir() and not any(p.is_relative_to(prefix) for prefix in own)}
    return sorted(own | beside)


def _prctl(option: int, value: int) -> None:
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, "prctl is Linux's alone")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}): {os.strerror(ctypes.get_errno())}")
