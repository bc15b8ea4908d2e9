"""Two replicas behind a balancer, replaced one after the other while requests come."""

import asyncio
import random
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any

from benchmarks.load import Call
from reliability.balancer import AGAIN, BALANCER, Replica, balanced, installed, version
from reliability.judging import problem_in
from reliability.lab import Lab
from reliability.seeds import make
from reliability.wire import Connection, Reply

ROUNDS = 3
RATE = 10.0
"""Requests a second: few enough that one replica answers them while the other one starts."""
IN_FLIGHT = 512
"""Of a replica: so many that none is refused for being too many."""
DELAY_S = 3.0
"""Time that a replica goes on taking requests after SIGTERM: the balancer looks every second."""
CALM_S = 5.0
"""Before, between and after the replacements."""
GIVE_UP_S = 60.0


def measure(lab: Lab) -> dict[str, Any]:
    """The same replacements behind a balancer that tries again and one that does not."""
    program = installed()
    if program is None:
        return {"skipped": f"{BALANCER} is not installed"}
    clip = next(s.data for s in make(lab.bench.folder) if s.name == "mp4-h264")
    runs = []
    for how in AGAIN:
        replicas = [Replica(lab, max_in_flight=IN_FLIGHT, shutdown_delay_s=DELAY_S) for _ in range(2)]
        with ExitStack() as stack:
            for replica in replicas:
                stack.callback(replica.stop)
                replica.start()
            ports = [replica.port for replica in replicas]
            front = stack.enter_context(balanced(program, lab.bench.folder, ports, how))
            call = Call(f"{front.url}/v1/detect", {"content-type": "video/mp4"}, clip)
            time.sleep(CALM_S)
            draw = random.Random(f"{lab.seed}/rolling")
            runs.append({"balancer": how, **asyncio.run(_replaced(call, replicas, draw))})
    return {"rate": RATE, "version": version(program), "runs": runs}


async def _replaced(call: Call, replicas: list[Replica], draw: random.Random) -> dict[str, Any]:
    """Requests at random times, until both replicas were replaced so many times."""
    over = asyncio.Event()
    sending: list[asyncio.Task[Reply]] = []

    async def one() -> Reply:
        async with Connection(call.url) as connection:
            return await connection.ask(call, limit_s=GIVE_UP_S)

    async def load() -> None:
        while not over.is_set():
            sending.append(asyncio.create_task(one()))
            await asyncio.sleep(draw.expovariate(RATE))

    loading = asyncio.create_task(load())
    times = []
    try:
        await asyncio.sleep(CALM_S)
        for replica in replicas * ROUNDS:
            begun = time.perf_counter()
            await asyncio.to_thread(replica.stop)
            stopped = time.perf_counter()
            await asyncio.to_thread(replica.start)
            times.append([stopped - begun, time.perf_counter() - stopped])
            await asyncio.sleep(CALM_S)
    finally:
        over.set()
        await loading
        replies = await asyncio.gather(*sending)
    wrong = [r for r in replies if r.status != 200 or r.lost is not None]
    return {
        "requests": len(replies),
        "failed": len(wrong),
        "failures": dict(Counter(r.lost or f"status {r.status} {problem_in(r)}".strip() for r in wrong)),
        "stop_and_start_s": times,
    }
