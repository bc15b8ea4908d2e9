"""Latency, memory and decoding over longer and over larger clips."""

from typing import Any

import httpx

from benchmarks.bench import Bench
from benchmarks.clips import FILM_S, HEIGHT
from benchmarks.load import PATIENCE_S, closed_loop
from benchmarks.processes import memory_bytes, peak_memory
from benchmarks.servers import detect, service


def measure(bench: Bench) -> dict[str, Any]:
    """Each clip on a service of its own, since a process seldom gives memory back."""
    counts = bench.counts
    return {
        "lengths": [_row(bench, seconds, HEIGHT) for seconds in counts.lengths_s],
        "heights": [_row(bench, FILM_S, height) for height in counts.heights],
    }


def _row(bench: Bench, seconds: int, height: int) -> dict[str, Any]:
    clip = bench.clips.clip(seconds, height)
    with service(bench) as server:
        call = detect(server, clip)
        idle = memory_bytes(server.pid)
        with peak_memory(server.pid) as peak:
            answer = httpx.post(
                call.url, content=call.body, headers=call.headers, timeout=PATIENCE_S, trust_env=False
            )
        found = answer.raise_for_status().json()
        requests = closed_loop(call, clients=1, requests=bench.counts.repeats).check(
            f"{height}p, {seconds} s"
        )
    return {
        "seconds": seconds,
        "height": height,
        "width": found["media"]["width"],
        "bytes": found["media"]["bytes"],
        "latency_s": [s.end_s - s.start_s for s in requests.sent],
        "idle_bytes": idle,
        "peak_bytes": peak.bytes,
        "looks": peak.looks,
        "frames": round(seconds * found["media"]["frame_rate"]),
        "frames_decoded": found["media"]["frames_decoded"],
        "frames_used": found["media"]["frames_used"],
    }
