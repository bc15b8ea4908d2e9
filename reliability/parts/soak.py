"""Good and bad clients side by side for a long time, at most of what the server can do."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from benchmarks.bench import CLIENTS
from benchmarks.load import Call, closed_loop
from benchmarks.processes import memory_bytes
from benchmarks.servers import Server, detect, service
from reliability.judging import problem_in, retry_after
from reliability.lab import Lab, Log, children, open_files, own_memory, read_log, restarts, settled
from reliability.parts.overload import poisson, quantiles
from reliability.seeds import make
from reliability.wire import PLAIN, Connection, Manner, Reply

CLIP_S, CLIP_HEIGHT = 5, 360
DECODERS = 2
SHARE = 0.8
"""Of the rate of a closed loop."""
LOOKS = 200
"""At memory, files and processes, spread over the time."""
GIVE_UP_S = 120.0
MOST_TURNS = 3
"""As often a client that is turned away comes again, each time when it was told to."""
PIECE = 16_384
SLOW = Manner(chunk=PIECE, pause_s=0.1)
LEAVING = Manner(chunk=PIECE, pause_s=0.01, leaves_after=2 * PIECE)


@dataclass(frozen=True, slots=True)
class Client:
    """A kind of client. share: of all requests; works: whether its clip is worked on; good: whether an answer
    is as it should be."""

    share: float
    works: bool
    manner: Manner
    events: bool
    good: Callable[[Reply], bool]


def _answered(reply: Reply) -> bool:
    return reply.status == 200 and reply.lost is None


def _streamed(reply: Reply) -> bool:
    return _answered(reply) and b"event: answer\n" in reply.body


def _told(reply: Reply) -> bool:
    return reply.lost is None and 400 <= reply.status < 500 and problem_in(reply) != ""


CLIENTS_OF = {
    "good": Client(0.60, True, PLAIN, False, _answered),
    "events": Client(0.15, True, PLAIN, True, _streamed),
    "slow": Client(0.08, True, SLOW, False, _answered),
    "bad": Client(0.09, False, PLAIN, False, _told),
    "leaving": Client(0.08, False, LEAVING, False, lambda _: True),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client of one kind got in the end, after it was turned away so many times."""

    kind: str
    reply: Reply
    turned_away: int = 0


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of the server at one time. own: bytes of its own process, all: with its decoders."""

    at_s: float
    own: int
    all: int
    files: int
    children: int


def measure(lab: Lab) -> dict[str, Any]:
    """Mixed load; the server is looked at meanwhile."""
    seconds = lab.counts.soak_s
    clip = lab.bench.clips.clip(CLIP_S, CLIP_HEIGHT)
    bad = [s.data[: len(s.data) // 3] for s in make(lab.bench.folder) if s.name == "mp4-h264"]
    scratch = lab.bench.folder / "scratch"
    scratch.mkdir()
    with service(lab.bench, decoders=DECODERS, scratch_dir=scratch) as server:
        call = detect(server, clip)
        broken = Call(call.url, {"content-type": "video/mp4"}, bad[0])
        closed_loop(call, clients=CLIENTS, requests=2 * CLIENTS).check("warming up")
        peak = closed_loop(call, clients=CLIENTS, requests=lab.counts.peak).check("peak").rate
        rate = SHARE * peak / sum(c.share for c in CLIENTS_OF.values() if c.works)
        draw = random.Random(f"{lab.seed}/soak")
        times = poisson(rate, seconds, draw)
        kinds = draw.choices(list(CLIENTS_OF), [c.share for c in CLIENTS_OF.values()], k=len(times))
        replies, looks = asyncio.run(_load(server, call, broken, list(zip(times, kinds, strict=True))))
        house = {
            "children": settled(lambda: children(server), DECODERS),
            "left_files": settled(lambda: sum(1 for _ in scratch.iterdir()), 0),
            "restarts": restarts(server),
        }
    facts = {"peak": peak, "rate": rate, "share": SHARE, "seconds": seconds, "decoders": DECODERS}
    return facts | house | summed(replies, looks, read_log(server.log))


async def _load(
    server: Server, call: Call, broken: Call, arrivals: list[tuple[float, str]]
) -> tuple[list[Asked], list[Look]]:
    """Send them all at their times, and look at the server until the last one begins."""
    begun = time.perf_counter()
    streamed = Call(call.url, call.headers | {"accept": "text/event-stream"}, call.body)

    async def one(at: float, kind: str) -> Asked:
        await asyncio.sleep(begun + at - time.perf_counter())
        client = CLIENTS_OF[kind]
        sent = broken if kind == "bad" else streamed if client.events else call
        return Asked(kind, *await patiently(sent, client.manner))

    async def watch() -> list[Look]:
        looks = []
        end = arrivals[-1][0]
        for k in range(LOOKS):
            await asyncio.sleep(begun + end * (k + 1) / LOOKS - time.perf_counter())
            looks.append(await asyncio.to_thread(_look, server, time.perf_counter() - begun))
        return looks

    watching = asyncio.create_task(watch())
    replies = list(await asyncio.gather(*(one(*arrival) for arrival in arrivals)))
    return replies, await watching


async def patiently(call: Call, manner: Manner) -> tuple[Reply, int]:
    """The answer to a client that comes again when it was told to, and how often it was turned away."""
    for turned_away in count():
        async with Connection(call.url) as connection:
            reply = await connection.ask(call, limit_s=GIVE_UP_S, manner=manner)
        after = reply.headers.get("retry-after")
        if reply.status != 503 or turned_away == MOST_TURNS or not retry_after(after):
            break
        await asyncio.sleep(int(after or 0))
    return reply, turned_away


def _look(server: Server, at_s: float) -> Look:
    return Look(at_s, own_memory(server), memory_bytes(server.pid), open_files(server), children(server))


def summed(asked: list[Asked], looks: list[Look], log: Log) -> dict[str, Any]:
    """Failures by the kind of client, and how the server changed from half of the time on."""
    half = looks[len(looks) // 2 :]
    clients = {}
    for kind, client in CLIENTS_OF.items():
        own = [a.reply for a in asked if a.kind == kind]
        wrong = [reply for reply in own if not client.good(reply)]
        clients[kind] = {
            "requests": len(own),
            "turned_away": sum(a.turned_away for a in asked if a.kind == kind),
            "failed": len(wrong),
            "failures": dict(Counter(r.lost or f"status {r.status}" for r in wrong)),
            "answered_s": quantiles([r.end_s for r in own if r.status == 200]),
        }
    return {
        "clients": clients,
        "growth": {name: growth([(k.at_s, getattr(k, name)) for k in half]) for name in ("own", "all")},
        "least_files": [min(k.files for k in looks[a:b]) for a, b in _quarters(len(looks))],
        "looks_with_all_children": sum(k.children == DECODERS for k in looks),
        "looks": len(looks),
        "own_bytes": [k.own for k in looks],
        "all_bytes": [k.all for k in looks],
        "log_errors": log.errors,
    }


def _quarters(count: int) -> list[tuple[int, int]]:
    """The second and the last quarter of so many."""
    return [(count // 4, count // 2), (3 * count // 4, count)]


def growth(values: list[tuple[float, float]]) -> float:
    """By which share the line through these (time, value) rises, first to last (least squares)."""
    times, sizes = np.array(values, np.float64).T
    slope, start = np.polyfit(times - times[0], sizes, 1)
    return float(slope * (times[-1] - times[0]) / start)
