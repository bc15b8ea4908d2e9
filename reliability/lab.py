"""What every part is given, and how it looks at a server from outside."""

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.bench import Bench
from benchmarks.processes import PROC, parse_memory, tree
from benchmarks.servers import Server

SETTLE_S = 30.0
"""Within so many seconds of the last answer a server has put its house in order."""
_SAMPLE = re.compile(r'^(\w+)\{(\w+)="([^"]*)"\} ([0-9.e+]+)$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Counts:
    """How often and how long. Every part ends after one of these.

    cases, connections, fuzz_s: uploads, sent over so many connections at once, none begun after these
    seconds; pause_s: before memory is looked at; peak, overload_s: requests in the closed loop, and seconds
    of arrivals; soak_s: seconds of mixed load; examples: requests of one operation that are drawn by lot.
    """

    cases: int
    connections: int
    fuzz_s: float
    pause_s: float
    peak: int
    overload_s: float
    soak_s: float
    examples: int


FULL = Counts(20_000, 8, 1500.0, 5.0, 160, 60.0, 1200.0, 100)
QUICK = Counts(300, 4, 120.0, 1.0, 48, 10.0, 60.0, 10)


@dataclass(frozen=True, slots=True)
class Lab:
    """One run of a part. seed: of everything that is drawn by lot."""

    bench: Bench
    counts: Counts
    seed: int = 1

    def facts(self) -> dict[str, Any]:
        """What was tried, with what and where, for every file of results."""
        return self.bench.facts() | {"counts": asdict(self.counts) | {"seed": self.seed}}


def own_memory(server: Server) -> int:
    """Bytes of memory of the server's own process that belong to no file."""
    return parse_memory((PROC / str(server.pid) / "status").read_text(encoding="ascii"), "RssAnon")


def open_files(server: Server) -> int:
    """Open file descriptors of the server's own process."""
    return sum(1 for _ in (PROC / str(server.pid) / "fd").iterdir())


def children(server: Server) -> int:
    """Decoders that the server has started and that live."""
    found = 0
    for process in tree(server.pid):
        with suppress(OSError):  # it may have ended since
            found += b"service.decoder" in (PROC / str(process.pid) / "cmdline").read_bytes()
    return found


def counted(server: Server, metric: str) -> dict[str, int]:
    """The values of a counter with one label, by the label."""
    text = httpx.get(f"{server.url}/metrics", timeout=10, trust_env=False).raise_for_status().text
    return {m[3]: int(float(m[4])) for m in _SAMPLE.finditer(text) if m[1] == metric}


def restarts(server: Server) -> dict[str, int]:
    """Decoder processes that were replaced, by the reason."""
    every = counted(server, "detector_decoder_restarts_total")
    return {reason: times for reason, times in every.items() if times}


def settled(look: Callable[[], int], wanted: int, within_s: float = SETTLE_S) -> int:
    """What `look` sees, as soon as it is what is wanted, or in the end."""
    until = time.monotonic() + within_s
    while (seen := look()) != wanted and time.monotonic() < until:
        time.sleep(0.1)
    return seen


@dataclass(frozen=True, slots=True)
class Log:
    """What a server wrote. errors: messages of lines of severity `error`, and lines that are no JSON, with
    how often they came; unforeseen: exceptions in decoders, with a request that met each, and how often."""

    errors: dict[str, int]
    unforeseen: dict[str, tuple[str, int]]


UNFORESEEN = "the decoder failed on a clip"


def read_log(path: Path) -> Log:
    """The log of a server that ran with JSON lines."""
    errors: Counter[str] = Counter()
    unforeseen: dict[str, tuple[str, int]] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            said = json.loads(line)
            level, message = said["level"], said["message"]
        except (ValueError, KeyError, TypeError):
            if not line.startswith("ready: "):
                errors[line[:200]] += 1
            continue
        if message == UNFORESEEN:
            kind = said["traceback"].strip().splitlines()[-1][:200]
            first, times = unforeseen.get(kind, (said.get("request_id", ""), 0))
            unforeseen[kind] = (first, times + 1)
        elif level == "error":
            errors[message] += 1
    return Log(dict(errors), unforeseen)
