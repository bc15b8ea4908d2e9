"""CPU time and memory of a process and all of its descendants, from /proc (proc(5))."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
KIB = 1024
CPU_FIELDS = slice(11, 15)
"""utime, stime, and those of children that were waited for, counted from the state on."""


@dataclass(frozen=True, slots=True)
class Process:
    """One line of /proc/PID/stat: its parent, seconds of CPU with those of ended children, and whether it has
    ended itself and only waits to be asked for its exit code."""

    pid: int
    parent: int
    cpu_s: float
    ended: bool


def parse_stat(text: str, ticks: int) -> Process:
    """A process from its stat line; `ticks` is the clock's rate. The name in it may hold anything.

    Raises ValueError on anything else than such a line.
    """
    pid, _, rest = text.partition(" (")
    fields = rest.rpartition(") ")[2].split()
    if len(fields) < CPU_FIELDS.stop:
        raise ValueError(f"not a line of /proc/PID/stat: {text[:80]!r}")
    spent = sum(int(f) for f in fields[CPU_FIELDS]) / ticks
    return Process(int(pid), int(fields[1]), spent, fields[0] in {"Z", "X"})


def parse_memory(text: str, field: str) -> int:
    """Bytes of one `Field:  123 kB` of /proc/PID/smaps_rollup or status. Raises KeyError without it."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * KIB
    raise KeyError(field)


def tree(pid: int, proc: Path = PROC) -> list[Process]:
    """The process and all of its living descendants; empty when it has ended."""
    ticks = os.sysconf("SC_CLK_TCK")
    alive: dict[int, Process] = {}
    for stat in proc.glob("[0-9]*/stat"):
        try:
            found = parse_stat(stat.read_text(encoding="utf-8", errors="replace"), ticks)
        except (OSError, ValueError):  # ended meanwhile
            continue
        if not found.ended:
            alive[found.pid] = found
    members = [alive[pid]] if pid in alive else []
    for member in members:  # grows while it is walked
        members.extend(p for p in alive.values() if p.parent == member.pid)
    return members


def cpu_seconds(pid: int) -> float:
    """CPU time of the tree so far, that of ended descendants included."""
    return sum(p.cpu_s for p in tree(pid))


def memory_bytes(pid: int) -> int:
    """Memory of the tree: proportional set sizes, so that shared pages count once.

    Who is not root sees only the resident size of a confined decoder, in which they count whole.
    """
    return sum(_proportional(p.pid) for p in tree(pid))


def _proportional(pid: int, proc: Path = PROC) -> int:
    for file, field in (("smaps_rollup", "Pss"), ("status", "VmRSS")):
        try:
            return parse_memory((proc / str(pid) / file).read_text(encoding="ascii"), field)
        except PermissionError:
            continue
        except (OSError, KeyError):  # ended meanwhile
            break
    return 0


class Peak:
    """The most memory that was seen of a tree, in bytes, and how often was looked."""

    def __init__(self) -> None:
        self.bytes = 0
        self.looks = 0

    def look(self, pid: int) -> None:
        """Look once."""
        self.bytes = max(self.bytes, memory_bytes(pid))
        self.looks += 1


@contextmanager
def peak_memory(pid: int, every_s: float = 0.02) -> Iterator[Peak]:
    """Look at the memory of a tree again and again for the length of the block.

    A look costs CPU time of its own, so nothing is timed meanwhile.
    """
    peak, over = Peak(), threading.Event()

    def watch() -> None:
        while not over.is_set():
            peak.look(pid)
            over.wait(every_s)

    watcher = threading.Thread(target=watch, name="memory", daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()
