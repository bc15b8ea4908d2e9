"""Whole clips through the service on the device and on the CPU: how many a second, how fast, how alike."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from benchmarks.bench import FULL, Bench
from benchmarks.clips import Clips
from benchmarks.gpu.curve import Seconds
from benchmarks.load import PATIENCE_S, Load, closed_loop
from benchmarks.servers import Server, detect, service
from pipeline.bundle import Bundle
from pipeline.engine import Provider

CLIENTS = (1, 8, 32)
REQUESTS_A_CLIENT = 6
LEAST_REQUESTS = 40


@dataclass(frozen=True, slots=True)
class Served:
    """What so many clients at once were answered. rate: clips a second; latency: seconds of one request."""

    clients: int
    rate: float
    latency: Seconds


@dataclass(frozen=True, slots=True)
class Service:
    """The service on one provider. probability: of `fake`, of the clip that is sent; None without one."""

    probability: float | None
    served: list[Served]


def clips_a_second(
    bundle: Bundle, clip: Path, providers: Mapping[str, Provider], *, seconds: float
) -> dict[str, Service]:
    """Load a service on each provider, by name, with one clip: at most so many seconds with each number of
    clients.

    Raises LoadFailed when a request fails and BenchError when a service does not start.
    """
    with TemporaryDirectory() as folder:
        bench = Bench(bundle, Clips(Path(folder)), Path(folder), FULL)
        return {name: _loaded(bench, clip, provider, seconds) for name, provider in providers.items()}


def _loaded(bench: Bench, clip: Path, provider: Provider, seconds: float) -> Service:
    with service(bench, provider=provider, max_in_flight=2 * max(CLIENTS)) as server:
        call = detect(server, clip)
        answer = httpx.post(
            call.url, content=call.body, headers=call.headers, timeout=PATIENCE_S, trust_env=False
        )
        found = answer.raise_for_status().json()["probabilities"]
        loads = [_load(server, clip, clients, seconds) for clients in CLIENTS]
        return Service(found and float(found["fake"]), [_served(load) for load in loads])


def _load(server: Server, clip: Path, clients: int, seconds: float) -> Load:
    requests = max(LEAST_REQUESTS, REQUESTS_A_CLIENT * clients)
    load = closed_loop(detect(server, clip), clients=clients, requests=requests, seconds=seconds)
    return load.check(f"{clients} clients")


def _served(load: Load) -> Served:
    taken = load.latencies
    return Served(load.clients, load.rate, Seconds(statistics.median(taken), min(taken), max(taken)))
