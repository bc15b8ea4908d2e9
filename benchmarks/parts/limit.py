"""How near the service comes to the sum of its own stages, and to the machine's capacity."""

from typing import Any

from benchmarks.bench import CLIENTS, Bench
from benchmarks.load import Call, closed_loop
from benchmarks.processes import cpu_seconds
from benchmarks.servers import Server, detect, service
from benchmarks.stages import Stages
from pipeline.runtime import usable_cores


def measure(bench: Bench) -> dict[str, Any]:
    """Floor and service by turns, so that a noisy machine troubles both alike."""
    counts = bench.counts
    clip = bench.clips.clip()
    stages = Stages(bench, clip)
    sweep = stages.sweep()
    stages.floor(1)
    rounds = []
    with service(bench) as server:
        call = detect(server, clip)
        closed_loop(call, clients=CLIENTS, requests=CLIENTS).check("warming up")
        for _ in range(counts.rounds):
            floor = stages.floor(counts.repeats)
            idle = closed_loop(call, clients=1, requests=counts.idle, seconds=counts.load_s).check("idle")
            rounds.append(
                {
                    "floor": floor,
                    "idle_s": [s.end_s - s.start_s for s in idle.sent],
                    "load": loaded(server, call, counts.load, counts.load_s),
                }
            )
    facts = {"clip": stages.facts(), "clients": CLIENTS, "cores": usable_cores()}
    return facts | {"sweep": sweep, "rounds": rounds}


def loaded(
    server: Server, call: Call, requests: int, seconds: float, clients: int = CLIENTS
) -> dict[str, Any]:
    """Rate, latencies and CPU time of a server under closed-loop load of all clients."""
    before = cpu_seconds(server.pid)
    load = closed_loop(call, clients=clients, requests=requests, seconds=seconds).check(call.url)
    spent = cpu_seconds(server.pid) - before
    return {
        "requests": len(load.sent),
        "requests_per_s": load.rate,
        "latency_s": load.latencies,
        "first_latency_s": load.first_latencies,
        "cpu_s_per_request": spent / len(load.sent),
    }
