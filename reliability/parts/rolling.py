"""Two replicas behind a balancer, replaced one after the other while requests come."""

import asyncio
import os
import random
import shutil
import subprocess
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any

from benchmarks.load import Call
from benchmarks.servers import free_port, running, service
from reliability.judging import problem_in
from reliability.lab import Lab
from reliability.seeds import make
from reliability.wire import Connection, Reply

BALANCER = "haproxy"
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
CONFIGURATION = """\
defaults
    mode http
    timeout connect 5s
    timeout client 90s
    timeout server 90s
frontend front
    bind 127.0.0.1:{front}
    monitor-uri /balancer
    default_backend replicas
backend replicas
    balance roundrobin
    option httpchk GET /readyz
    http-check expect status 200
    {again}
    default-server check inter 1s fall 1 rise 1
    server one 127.0.0.1:{one}
    server two 127.0.0.1:{two}
"""
AGAIN = {
    "tries the other replica when a connection is refused": "option redispatch 1\n    retries 3",
    "gives up when a connection is refused": "no option redispatch\n    retries 0",
}


def measure(lab: Lab) -> dict[str, Any]:
    """The same replacements behind a balancer that tries again and one that does not."""
    balancer = shutil.which(BALANCER)
    if balancer is None:
        return {"skipped": f"{BALANCER} is not installed"}
    clip = next(s.data for s in make(lab.bench.folder) if s.name == "mp4-h264")
    runs = []
    for how, again in AGAIN.items():
        ports = {"one": free_port(), "two": free_port(), "front": free_port()}
        configuration = lab.bench.folder / f"{BALANCER}.cfg"
        configuration.write_text(CONFIGURATION.format(**ports, again=again), encoding="utf-8")
        command = [balancer, "-db", "-f", str(configuration)]
        replicas = [Replica(lab, ports[name]) for name in ("one", "two")]
        with ExitStack() as stack:
            for replica in replicas:
                stack.callback(replica.stop)
                replica.start()
            stack.enter_context(
                running(command, os.environ, port=ports["front"], ready="/balancer", folder=lab.bench.folder)
            )
            call = Call(f"http://127.0.0.1:{ports['front']}/v1/detect", {"content-type": "video/mp4"}, clip)
            time.sleep(CALM_S)
            draw = random.Random(f"{lab.seed}/rolling")
            runs.append({"balancer": how, **asyncio.run(_replaced(call, replicas, draw))})
    version = subprocess.run([balancer, "-v"], capture_output=True, text=True, check=True).stdout  # noqa: S603
    return {"rate": RATE, "version": version.split(" ")[2], "runs": runs}


class Replica:
    """A server of this project on a port that it keeps when it is replaced."""

    def __init__(self, lab: Lab, port: int) -> None:
        self._lab, self._port = lab, port
        self._running = ExitStack()

    def start(self) -> None:
        """Until it is ready. Raises BenchError."""
        settings = {"max_in_flight": IN_FLIGHT, "shutdown_delay_s": DELAY_S}
        self._running.enter_context(service(self._lab.bench, self._port, **settings))

    def stop(self) -> None:
        """By SIGTERM, until it has ended."""
        self._running.close()


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
