"""HAProxy before replicas of the service, each on a port that it keeps when it is replaced."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.servers import Server, free_port, running, service
from reliability.lab import Lab

BALANCER = "haproxy"
SERVED_BY = "x-served-by"
"""Field of an answer in which the balancer names the replica that gave it."""
AGAIN = {
    "tries the other replica when a connection is refused": "option redispatch 1\n    retries 3",
    "gives up when a connection is refused": "no option redispatch\n    retries 0",
}
"""What the balancer does with a request that a replica did not take, by words for it."""
TRIES_AGAIN, GIVES_UP = AGAIN
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
    balance {balance}
    option httpchk GET /readyz
    http-check expect status 200
    http-response set-header {served_by} %s
    {again}
    default-server check inter 1s fall 1 rise 1
{servers}
"""


class Replica:
    """A server of this project on a port that it keeps when it is replaced."""

    def __init__(self, lab: Lab, **settings: object) -> None:
        self.port = free_port()
        self._lab, self._settings = lab, settings
        self._running = ExitStack()

    def start(self) -> Server:
        """Until it is ready. Raises BenchError."""
        return self._running.enter_context(service(self._lab.bench, self.port, **self._settings))

    def stop(self) -> None:
        """By SIGTERM, until it has ended."""
        self._running.close()


def installed() -> str | None:
    """The program, if there is one."""
    return shutil.which(BALANCER)


def version(program: str) -> str:
    """As it says itself."""
    said = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stdout  # noqa: S603
    return said.split(" ")[2]


def configuration(front: int, ports: Sequence[int], how: str, balance: str = "roundrobin") -> str:
    """For a balancer on port `front` before servers `r1`, `r2` and so on. how: a key of AGAIN."""
    servers = "\n".join(f"    server r{k} 127.0.0.1:{port}" for k, port in enumerate(ports, 1))
    return CONFIGURATION.format(
        front=front, balance=balance, served_by=SERVED_BY, again=AGAIN[how], servers=servers
    )


@contextmanager
def balanced(
    program: str, folder: Path, ports: Sequence[int], how: str, balance: str = "roundrobin"
) -> Iterator[Server]:
    """A balancer before these ports for the length of the block. Raises BenchError when it does not start."""
    front = free_port()
    at = folder / f"{BALANCER}-{front}.cfg"
    at.write_text(configuration(front, ports, how, balance), encoding="utf-8")
    command = [program, "-db", "-f", str(at)]
    with running(command, os.environ, port=front, ready="/balancer", folder=folder) as server:
        yield server
