"""This project's service beside the same pipeline behind other serving frameworks."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks.bench import CLIENTS, ROOT, Bench, BenchError
from benchmarks.load import PATIENCE_S, Call, closed_loop, multipart, raw
from benchmarks.parts.limit import loaded
from benchmarks.peers.common import BUNDLE, PORT
from benchmarks.processes import memory_bytes, peak_memory
from benchmarks.servers import Server, clean, detect, free_port, running, service

OWN = "deepfake-detect"
FAR = 1e-3
"""Answers to the same clip differ by no more, or it is not the same pipeline."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One framework in one configuration.

    arguments: of its environment's Python, `{port}` filled in; route: of the clip; body: how the
    clip is sent; package: whose version is shown.
    """

    name: str
    package: str
    how: str
    arguments: tuple[str, ...]
    route: str
    ready: str
    body: Any
    environment: dict[str, str] = field(default_factory=dict)


def _bentoml(service_name: str) -> tuple[str, ...]:
    target = f"benchmarks.peers.bentoml_app:{service_name}"
    return ("-m", "bentoml", "serve", target, "--host", "127.0.0.1", "--port", "{port}")


PEERS = (
    Peer(
        "LitServe",
        "litserve",
        "a worker a core",
        ("-m", "benchmarks.peers.litserve_app"),
        "/predict",
        "/health",
        multipart,
    ),
    Peer(
        "LitServe, batching",
        "litserve",
        "a worker a core, up to 4 requests in a batch, 10 ms",
        ("-m", "benchmarks.peers.litserve_app"),
        "/predict",
        "/health",
        multipart,
        {"BENCH_BATCH": "4"},
    ),
    Peer(
        "mosec",
        "mosec",
        "a preparing process a core, one for the graphs with up to 8 requests in a batch, 10 ms",
        ("-m", "benchmarks.peers.mosec_app"),
        "/inference",
        "/metrics",
        raw,
    ),
    Peer("BentoML", "bentoml", "a worker a core", _bentoml("Alone"), "/detect", "/readyz", multipart),
    Peer(
        "BentoML, batching",
        "bentoml",
        "a preparing worker a core, one for the graphs with adaptive batches of up to 8 requests",
        _bentoml("Detect"),
        "/detect",
        "/readyz",
        multipart,
    ),
)


def measure(bench: Bench) -> dict[str, Any]:
    """All servers by turns, one at a time, each started anew in every round."""
    if not bench.peers_python.is_file():
        raise BenchError(
            f"the peers are not installed in {bench.peers_python.parent.parent.name}: make bench"
        )
    about: dict[str, dict[str, Any]] = {OWN: {"version": None, "how": "its own defaults"}}
    about |= {p.name: {"version": _version(bench, p.package), "how": p.how} for p in PEERS}
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in about}
    wanted: float | None = None
    for number in range(bench.counts.peer_rounds):
        # Every other round backwards, so that none always follows the same one.
        names = list(about) if number % 2 == 0 else list(reversed(about))
        for name in names:
            with _started(bench, name) as (server, call):
                fake = _fake(call)
                wanted = fake if wanted is None else wanted
                if abs(fake - wanted) > FAR:
                    raise BenchError(f"{name} answers {fake}, another server {wanted}: not the same pipeline")
                found = _round(bench, server, call)
            rounds[name].append(found)
    servers = [{"name": name, **facts, "rounds": rounds[name]} for name, facts in about.items()]
    return {"clients": CLIENTS, "probability": wanted, "servers": servers}


def _round(bench: Bench, server: Server, call: Call) -> dict[str, Any]:
    counts = bench.counts
    closed_loop(call, clients=CLIENTS, requests=CLIENTS).check("warming up")
    found = loaded(server, call, counts.load, counts.load_s)
    found["idle_bytes"] = memory_bytes(server.pid)
    with peak_memory(server.pid) as peak:
        closed_loop(call, clients=CLIENTS, requests=CLIENTS).check("memory")
    return found | {"peak_bytes": peak.bytes}


@contextmanager
def _started(bench: Bench, name: str) -> Iterator[tuple[Server, Call]]:
    clip = bench.clips.clip()
    if name == OWN:
        with service(bench) as server:
            yield server, detect(server, clip)
        return
    peer = next(p for p in PEERS if p.name == name)
    port = free_port()
    command = [str(bench.peers_python), *(a.format(port=port) for a in peer.arguments)]
    given = {BUNDLE: str(bench.bundle.path), PORT: str(port), "PYTHONPATH": str(ROOT), "DO_NOT_TRACK": "1"}
    environment = clean() | given | {"BENTOML_DO_NOT_TRACK": "True"} | peer.environment
    with running(command, environment, port=port, ready=peer.ready, folder=bench.folder) as server:
        yield server, peer.body(server.url + peer.route, clip.read_bytes())


def _fake(call: Call) -> float:
    """The probability of manipulation that a server answers. It may be JSON inside of a JSON string."""
    answer = httpx.post(
        call.url, content=call.body, headers=call.headers, timeout=PATIENCE_S, trust_env=False
    )
    found = answer.raise_for_status().json()
    found = json.loads(found) if isinstance(found, str) else found
    return float(found["probabilities"]["fake"])


def _version(bench: Bench, package: str) -> str:
    asked = f"from importlib.metadata import version; print(version({package!r}))"
    found = subprocess.run(  # noqa: S603 - a fixed program
        [str(bench.peers_python), "-c", asked], capture_output=True, text=True, check=True
    )
    return found.stdout.strip()
