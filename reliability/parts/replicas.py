"""Replicas behind a balancer: throughput beside one replica on the same cores, and one killed under load."""

import asyncio
import json
import os
import random
import signal
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.bench import CLIENTS
from benchmarks.load import Call, closed_loop
from benchmarks.processes import cpu_seconds, memory_bytes, tree
from benchmarks.servers import Server, detect
from pipeline.runtime import usable_cores
from reliability.balancer import (
    BALANCER,
    GIVES_UP,
    SERVED_BY,
    TRIES_AGAIN,
    Replica,
    balanced,
    installed,
    version,
)
from reliability.judging import problem_in
from reliability.lab import Lab, settled
from reliability.wire import Connection, Reply

CLIP_S, CLIP_HEIGHT = 5, 360
REPLICAS = 2
BALANCE = "leastconn"
"""Clips take unequally long, so that turns alone would fill one replica while another idles."""
ROUNDS, REQUESTS = 3, 32
CONNECTIONS, IN_A_ROW = 4, 4
"""Requests that follow each other on one connection, to see which replica answers each."""
SHARE = 0.6
"""Of the rate of the closed loop: one replica alone can not keep up for long, as after any loss of one."""
KILLS = 3
CALM_S, DOWN_S = 5.0, 2.0
"""Before and after each kill, and until the replica is started anew."""
TRIES, PAUSE_S = 3, 1.0
"""Of a client that sends a lost clip again, and how long it waits at least."""
GIVE_UP_S = 60.0


@dataclass(frozen=True, slots=True)
class Setup:
    """One way to put the same threads to work. balancer: None where clients go straight to the replica."""

    name: str
    front: Server
    replicas: tuple[Server, ...]
    balancer: Server | None


@dataclass(frozen=True, slots=True)
class Asked:
    """One clip of a client. first: what came of the first attempt; last: of the last one of TRIES."""

    first: Reply
    last: Reply


def measure(lab: Lab) -> dict[str, Any]:
    """Throughput by turns, who answers whom, then the same kills behind each manner of balancer."""
    program = installed()
    if program is None:
        return {"skipped": f"{BALANCER} is not installed"}
    clip = lab.bench.clips.clip(CLIP_S, CLIP_HEIGHT)
    cores = usable_cores()
    share = max(1, cores // REPLICAS)
    with ExitStack() as stack:
        setups = _setups(stack, lab, program, cores, share)
        rounds = _rounds(setups, clip, lab)
        answers = asyncio.run(who_answers(detect(setups[-1].front, clip)))
        memory = {s.name: sum(memory_bytes(r.pid) for r in s.replicas) for s in setups}
    rate = SHARE * float(rounds[-1][setups[-1].name]["requests_per_s"])
    return {
        "version": version(program),
        "balance": BALANCE,
        "clip": {"seconds": CLIP_S, "height": CLIP_HEIGHT, "bytes": clip.stat().st_size},
        "clients": CLIENTS,
        "cores": cores,
        "threads_each": share,
        "rounds": rounds,
        "memory_bytes": memory,
        "answers": answers,
        "share": SHARE,
        "rate": rate,
        "tries": TRIES,
        "kills": [
            _kills(lab, program, clip, how=how, share=share, rate=rate) for how in (TRIES_AGAIN, GIVES_UP)
        ],
    }


def _setups(stack: ExitStack, lab: Lab, program: str, cores: int, share: int) -> list[Setup]:
    """All of them run at once; what is not asked idles."""
    folder = lab.bench.folder
    (whole,) = _started(stack, lab, 1, cores)
    parts = _started(stack, lab, REPLICAS, share)
    fronts = [
        stack.enter_context(balanced(program, folder, [_port(s) for s in servers], TRIES_AGAIN, BALANCE))
        for servers in ((whole,), parts)
    ]
    return [
        Setup("one replica", whole, (whole,), None),
        Setup("one replica, balancer", fronts[0], (whole,), fronts[0]),
        Setup(f"{REPLICAS} replicas, balancer", fronts[1], parts, fronts[1]),
    ]


def _started(stack: ExitStack, lab: Lab, count: int, threads: int) -> tuple[Server, ...]:
    replicas = [Replica(lab, threads=threads, decoders=threads) for _ in range(count)]
    for replica in replicas:
        stack.callback(replica.stop)
    return tuple(replica.start() for replica in replicas)


def _port(server: Server) -> int:
    return int(server.url.rpartition(":")[2])


def _rounds(setups: list[Setup], clip: Path, lab: Lab) -> list[dict[str, Any]]:
    """Closed loops, by turns, every other round backwards."""
    for setup in setups:
        closed_loop(detect(setup.front, clip), clients=CLIENTS, requests=CLIENTS).check("warming up")
    count = 1 if lab.bench.quick else ROUNDS
    orders = [setups if k % 2 == 0 else setups[::-1] for k in range(count)]
    rounds = [{s.name: _loaded(s, detect(s.front, clip)) for s in order} for order in orders]
    return [{s.name: one[s.name] for s in setups} for one in rounds]


def _loaded(setup: Setup, call: Call) -> dict[str, Any]:
    def spent() -> list[float]:
        return [
            sum(cpu_seconds(r.pid) for r in setup.replicas),
            cpu_seconds(setup.balancer.pid) if setup.balancer else 0.0,
        ]

    before = spent()
    load = closed_loop(call, clients=CLIENTS, requests=REQUESTS).check(setup.name)
    replicas, balancer = (b - a for a, b in zip(before, spent(), strict=True))
    return {
        "requests_per_s": load.rate,
        "latency_s": load.latencies,
        "cpu_s_per_request": replicas / len(load.sent),
        "balancer_cpu_s_per_request": balancer / len(load.sent),
    }


async def who_answers(call: Call) -> dict[str, Any]:
    """Some requests over one connection after the other: who answers them, and do they agree?

    One at a time: under load the replica that has just answered a client is the one with the least to do.
    """

    async def client() -> list[Reply]:
        async with Connection(call.url) as connection:
            return [await connection.ask(call, limit_s=GIVE_UP_S) for _ in range(IN_A_ROW)]

    return answered([await client() for _ in range(CONNECTIONS)])


def answered(chains: list[list[Reply]]) -> dict[str, Any]:
    """moved: of the requests that followed another one on their connection, those that another replica
    answered. apart: by how much probabilities of the same clip differ."""
    by = [[reply.headers.get(SERVED_BY, "") for reply in chain] for chain in chains]
    pairs = [pair for chain in by for pair in pairwise(chain)]
    fakes = [
        json.loads(r.body)["probabilities"]["fake"] for chain in chains for r in chain if r.status == 200
    ]
    return {
        "connections": len(chains),
        "requests": sum(map(len, chains)),
        "by_replica": dict(sorted(Counter(name for chain in by for name in chain).items())),
        "followed": len(pairs),
        "moved": sum(a != b for a, b in pairs),
        "answered": len(fakes),
        "apart": max(fakes) - min(fakes) if fakes else None,
    }


def _kills(lab: Lab, program: str, clip: Path, *, how: str, share: int, rate: float) -> dict[str, Any]:
    replicas = [Replica(lab, threads=share, decoders=share) for _ in range(REPLICAS)]
    with ExitStack() as stack:
        for replica in replicas:
            stack.callback(replica.stop)
        servers = [replica.start() for replica in replicas]
        ports = [replica.port for replica in replicas]
        front = stack.enter_context(balanced(program, lab.bench.folder, ports, how, BALANCE))
        time.sleep(DOWN_S)
        count = 1 if lab.bench.quick else KILLS
        call = detect(front, clip)
        draw = random.Random(f"{lab.seed}/replicas")
        asked, left = asyncio.run(under_load(call, replicas, servers, rate=rate, kills=count, draw=draw))
    return {"balancer": how, "kills": count, "left_processes": left, **lost(asked)}


async def under_load(
    call: Call,
    replicas: list[Replica],
    servers: list[Server],
    *,
    rate: float,
    kills: int,
    draw: random.Random,
) -> tuple[list[Asked], int]:
    """Clips at random times while one replica after the other is killed and started anew; and how many
    processes of those that were killed lived on."""
    over = asyncio.Event()
    sending: list[asyncio.Task[Asked]] = []

    async def load() -> None:
        while not over.is_set():
            sending.append(asyncio.create_task(_ask(call, draw)))
            await asyncio.sleep(draw.expovariate(rate))

    loading = asyncio.create_task(load())
    left = 0
    try:
        for k in range(kills):
            await asyncio.sleep(CALM_S)
            number = k % len(replicas)
            family = [p.pid for p in tree(servers[number].pid)]
            os.kill(servers[number].pid, signal.SIGKILL)
            await asyncio.sleep(DOWN_S)
            left += await asyncio.to_thread(settled, partial(_alive, family), 0)
            await asyncio.to_thread(replicas[number].stop)
            servers[number] = await asyncio.to_thread(replicas[number].start)
        await asyncio.sleep(CALM_S)
    finally:
        over.set()
        await loading
        asked = list(await asyncio.gather(*sending))
    return asked, left


def _alive(pids: list[int]) -> int:
    return sum(bool(tree(pid)) for pid in pids)


async def _ask(call: Call, draw: random.Random) -> Asked:
    """Send a clip, and again after a pause when no answer came: the same clip has the same answer."""
    replies: list[Reply] = []
    while len(replies) < TRIES and not (replies and _good(replies[-1])):
        if replies:
            await asyncio.sleep(PAUSE_S * (1 + draw.random()))
        async with Connection(call.url) as connection:
            replies.append(await connection.ask(call, limit_s=GIVE_UP_S))
    return Asked(replies[0], replies[-1])


def _good(reply: Reply) -> bool:
    return reply.status == 200 and reply.lost is None


def lost(asked: list[Asked]) -> dict[str, Any]:
    """Clips whose first attempt failed, and those that no attempt brought an answer."""
    wrong = [a.first for a in asked if not _good(a.first)]
    return {
        "clips": len(asked),
        "failed_at_first": len(wrong),
        "failed_in_the_end": sum(not _good(a.last) for a in asked),
        "failures": dict(Counter(r.lost or f"status {r.status} {problem_in(r)}".strip() for r in wrong)),
    }
