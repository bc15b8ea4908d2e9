"""Uploads that were tampered with, thousands of them, to one server."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.bench import BenchError
from benchmarks.servers import Server, service
from benchmarks.summary import percentile
from reliability.cases import Case, Cases
from reliability.judging import Record, fault, grown
from reliability.lab import Lab, Log, children, own_memory, read_log, restarts, settled
from reliability.seeds import make
from reliability.wire import Connection

DECODERS = 2
REQUEST_S, DECODE_S, UPLOAD_S = 20.0, 5.0, 10.0
SLACK_S = 5.0
"""After its limit a request may be answered so much later, on a machine that the sender shares."""
GIVE_UP_S = 2 * (REQUEST_S + SLACK_S)
SHOWN = 50
"""Failures that are kept one by one."""


def measure(lab: Lab) -> dict[str, Any]:
    """Send all cases, a third of them to warm up, and look at what the server is like afterwards."""
    counts = lab.counts
    cases = Cases(lab.seed, make(lab.bench.folder))
    scratch = lab.bench.folder / "scratch"
    scratch.mkdir()
    given = {
        "scratch_dir": scratch,
        "decoders": DECODERS,
        "max_in_flight": 4 * counts.connections,
        "request_timeout_s": REQUEST_S,
        "decode_timeout_s": DECODE_S,
        "upload_timeout_s": UPLOAD_S,
    }
    records: list[Record] = []
    begun = time.perf_counter()
    with service(lab.bench, **given) as server:
        until = begun + counts.fuzz_s
        memory = []
        for numbers in (range(counts.cases // 3), range(counts.cases // 3, counts.cases)):
            records += asyncio.run(_send(server, map(cases.case, numbers), counts.connections, until))
            time.sleep(counts.pause_s)
            settled(lambda: children(server), DECODERS)
            memory.append(own_memory(server))
        seconds = time.perf_counter() - begun - 2 * counts.pause_s
        left = settled(lambda: sum(1 for _ in scratch.iterdir()), 0)
        house = {
            "memory_bytes": memory,
            "decoders": DECODERS,
            "children": settled(lambda: children(server), DECODERS),
            "left_files": left,
            "restarts": restarts(server),
        }
    if not records:
        raise BenchError("no case was sent in time")
    log = read_log(server.log)
    limit_s = REQUEST_S + SLACK_S
    return {
        "seconds": seconds,
        "limit_s": limit_s,
        "connections": counts.connections,
        **summed(records),
        **house,
        "log_errors": log.errors,
        "unforeseen": log.unforeseen,
        **failures(records, limit_s, house, log),
    }


async def _send(server: Server, cases: Iterator[Case], clients: int, until: float) -> list[Record]:
    """From so many connections, each its next case when its last one is answered."""
    records: list[Record] = []

    async def client() -> None:
        async with Connection(server.url) as connection:
            for case in cases:
                call = case.call(f"{server.url}/v1/detect")
                records.append(Record.of(case, await connection.ask(call, limit_s=GIVE_UP_S)))
                if time.perf_counter() >= until:
                    return

    await asyncio.gather(*(client() for _ in range(clients)))
    return records


def summed(records: list[Record]) -> dict[str, Any]:
    """How many cases came to what, and how long they took."""
    kinds: defaultdict[str, Counter[str]] = defaultdict(Counter)
    done: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for r in records:
        kinds[r.kind][str(r.status)] += 1
        for name in r.done:
            done[name][str(r.status)] += 1
    seconds = [r.seconds for r in records]
    worst = max(records, key=lambda r: r.seconds)
    return {
        "cases": len(records),
        "kinds": {k: dict(sorted(c.items())) for k, c in sorted(kinds.items())},
        "mutations": {k: dict(sorted(c.items())) for k, c in sorted(done.items())},
        "problems": dict(Counter(r.problem or str(r.status) for r in records).most_common()),
        "p50_s": percentile(seconds, 0.5),
        "p99_s": percentile(seconds, 0.99),
        "worst_s": worst.seconds,
        "worst_case": worst.number,
    }


def failures(records: list[Record], limit_s: float, house: dict[str, Any], log: Log) -> dict[str, Any]:
    """What went wrong: with single cases, and with the server as a whole."""
    found = [(r.number, why) for r in records if (why := fault(r, limit_s)) is not None]
    whole = []
    if (why := grown(*house["memory_bytes"])) is not None:
        whole.append(why)
    if house["children"] != house["decoders"]:
        whole.append(f"{house['children']} decoders run instead of {house['decoders']}")
    if house["left_files"]:
        whole.append(f"{house['left_files']} files are left in the scratch directory")
    whole += [f"logged {times} times: {message}" for message, times in log.errors.items()]
    return {
        "failed": len(found),
        "failures": [{"case": n, "why": why} for n, why in sorted(found)[:SHOWN]],
        "failures_of_the_server": whole,
    }


def save(seed: int, number: int, folder: Path, target: Path) -> str:
    """Write the body of one case to a file; what it is, in one line."""
    case = Cases(seed, make(folder)).case(number)
    target.write_bytes(case.body)
    return f"{case.kind}, {' + '.join(case.done)}; Content-Type: {case.content_type.decode('latin-1')}"
