"""Three times as many requests as can be answered, at times of their own (open loop)."""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from benchmarks.load import Call, closed_loop
from benchmarks.servers import detect, service
from benchmarks.summary import percentile
from reliability.judging import retry_after
from reliability.lab import Lab
from reliability.wire import PLAIN, Connection, Manner, Reply

CLIP_S, CLIP_HEIGHT = 5, 360
CLIENTS = (8, 16)
"""Of the closed loops whose faster one is the peak."""
TIMES = 3.0
IN_FLIGHT = 32
"""The service's own default, given so that the bound of a wait can be told."""
RAMP_S = 3.0
"""Until so long after the first arrival, answers do not count: the service was idle before it."""
GIVE_UP_S = 180.0
MANNERS = {"asking first": Manner(expect=True), "sending at once": PLAIN}
SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "worst": 1.0}


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of an open loop. at_s: when it should have begun, late_s: by how much it began later."""

    at_s: float
    late_s: float
    reply: Reply


def measure(lab: Lab) -> dict[str, Any]:
    """The peak of a closed loop, then an open one in each manner of sending, and each time the peak again."""
    clip = lab.bench.clips.clip(CLIP_S, CLIP_HEIGHT)
    seconds = lab.counts.overload_s
    runs = []
    with service(lab.bench, max_in_flight=IN_FLIGHT) as server:
        call = detect(server, clip)
        closed_loop(call, clients=CLIENTS[0], requests=2 * CLIENTS[0]).check("warming up")

        def peak(clients: int) -> float:
            return closed_loop(call, clients=clients, requests=lab.counts.peak).check("peak").rate

        rates = {n: peak(n) for n in CLIENTS}
        clients, before = max(rates.items(), key=lambda found: found[1])
        for name, manner in MANNERS.items():
            times = poisson(TIMES * max(rates.values()), seconds, random.Random(f"{lab.seed}/{name}"))
            arrivals = asyncio.run(arrive(call, times, manner))
            # A shared machine changes its pace by more than what is asked about within minutes.
            after = peak(clients)
            runs.append({"manner": name, "peak": (before + after) / 2, **summed(arrivals, seconds)})
            before = after
    return {
        "clip": {"seconds": CLIP_S, "height": CLIP_HEIGHT, "bytes": clip.stat().st_size},
        "in_flight": IN_FLIGHT,
        "closed_loop": {str(n): r for n, r in rates.items()},
        "times": TIMES,
        "seconds": seconds,
        "runs": runs,
    }


def poisson(rate: float, seconds: float, draw: random.Random) -> list[float]:
    """Times of a Poisson process of that many arrivals a second, from 0 on."""
    times: list[float] = []
    at = draw.expovariate(rate)
    while at < seconds:
        times.append(at)
        at += draw.expovariate(rate)
    return times


async def arrive(call: Call, times: list[float], manner: Manner) -> list[Arrival]:
    """A request at each of these times, each over a connection of its own; all answers are waited for."""
    begun = time.perf_counter()

    async def one(at: float) -> Arrival:
        await asyncio.sleep(begun + at - time.perf_counter())
        late = time.perf_counter() - begun - at
        async with Connection(call.url) as connection:
            return Arrival(at, late, await connection.ask(call, limit_s=GIVE_UP_S, manner=manner))

    return list(await asyncio.gather(*map(one, times)))


def summed(arrivals: list[Arrival], seconds: float) -> dict[str, Any]:
    """What came of the arrivals of `seconds`: goodput is that of the answers that came after the ramp and
    before the last request could come."""
    answered = [a for a in arrivals if a.reply.status == 200]
    refused = [a.reply for a in arrivals if a.reply.status == 503]
    ends = [a.at_s + a.late_s + a.reply.end_s for a in answered]
    return {
        "arrivals": len(arrivals),
        "statuses": dict(Counter(str(a.reply.status) for a in arrivals)),
        "lost": dict(Counter(a.reply.lost for a in arrivals if a.reply.lost is not None)),
        "goodput": sum(RAMP_S < end <= seconds for end in ends) / (seconds - RAMP_S),
        "answered_s": quantiles([a.reply.end_s for a in answered]),
        "refused_s": quantiles([r.head_s for r in refused]),
        "refused_without_retry_after": sum(not retry_after(r.headers.get("retry-after")) for r in refused),
        "refused_before_the_body": sum(r.sent == 0 for r in refused),
        "late_s": quantiles([a.late_s for a in arrivals]),
    }


def quantiles(values: list[float]) -> dict[str, float]:
    """By their names; empty for no values."""
    return {name: percentile(values, share) for name, share in SHARES.items()} if values else {}
