"""Closed-loop load: so many clients, each sending its next request when its last one is answered."""

import asyncio
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import repeat

import httpx
import numpy as np

PATIENCE_S = 300.0
LEAST_ANSWERS = 8
"""Through fewer no line is drawn."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request, ready to be sent again and again."""

    url: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Sent:
    """When a request began and its answer had come, in seconds of one clock, and its status; 0 for none."""

    start_s: float
    end_s: float
    status: int


@dataclass(frozen=True, slots=True)
class Load:
    """What came of a load. `failures` are answers that are not 200, and requests without one."""

    clients: int
    sent: list[Sent] = field(default_factory=list)

    @property
    def failures(self) -> int:
        """Requests that were not answered with 200."""
        return sum(s.status != httpx.codes.OK for s in self.sent)

    @property
    def rate(self) -> float:
        """Answers a second: the slope of the line through the answers' times (least squares), the first and
        the last ones, as many as there are clients, left out, since then fewer clients wait.

        Raises LoadFailed when too few were sent to have one.
        """
        settled = sorted(s.end_s for s in self.sent)[self.clients : -self.clients]
        if len(settled) < LEAST_ANSWERS:
            raise LoadFailed(f"{len(self.sent)} answers are too few for {self.clients} clients")
        seconds, _ = np.polyfit(range(len(settled)), settled, 1)
        return 1 / float(seconds)

    @property
    def latencies(self) -> list[float]:
        """Seconds of the requests that were answered before the last one was begun, in order of answers, the
        first one of each client left out: those meet a server that is idle, all at once."""
        begun = sorted(s.start_s for s in self.sent)
        settled = begun[self.clients : self.clients + 1] or [math.inf]
        return [s.end_s - s.start_s for s in self.sent if s.start_s >= settled[0] and s.end_s <= begun[-1]]

    @property
    def first_latencies(self) -> list[float]:
        """Seconds of the first request of each client."""
        return [s.end_s - s.start_s for s in sorted(self.sent, key=lambda s: s.start_s)[: self.clients]]

    def check(self, what: str) -> "Load":
        """Itself. Raises LoadFailed when a request failed: what fails is quick, and no measurement."""
        if self.failures:
            statuses = sorted({s.status for s in self.sent})
            raise LoadFailed(
                f"{what}: {self.failures} of {len(self.sent)} requests failed, status {statuses}"
            )
        return self


class LoadFailed(Exception):
    """Requests of a measurement were not answered with 200."""


def multipart(url: str, content: bytes, name: str = "file") -> Call:
    """A clip as a form with one file (RFC 7578)."""
    encoded = httpx.Request("POST", url, files={name: ("clip.mp4", content, "video/mp4")})
    return Call(url, {"content-type": encoded.headers["content-type"]}, encoded.read())


def raw(url: str, content: bytes) -> Call:
    """A clip as the body itself."""
    return Call(url, {"content-type": "video/mp4"}, content)


def closed_loop(call: Call, *, clients: int, requests: int, seconds: float = PATIENCE_S) -> Load:
    """Send `call` from `clients` clients, `requests` times in all; none is begun after `seconds`."""
    return asyncio.run(_closed_loop(call, clients, requests, seconds))


async def _closed_loop(call: Call, clients: int, requests: int, seconds: float) -> Load:
    load = Load(clients)
    places = repeat(None, requests)
    until = time.perf_counter() + seconds
    connections = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(limits=connections, timeout=PATIENCE_S, trust_env=False) as client:
        await asyncio.gather(*(_client(client, call, places, until, load) for _ in range(clients)))
    return load


async def _client(
    client: httpx.AsyncClient, call: Call, places: Iterator[None], until: float, load: Load
) -> None:
    for _ in places:
        start = time.perf_counter()
        if start >= until:
            return
        try:
            answer = await client.post(call.url, content=call.body, headers=call.headers)
            status = answer.status_code
        except httpx.HTTPError:
            status = 0
        load.sent.append(Sent(start, time.perf_counter(), status))
