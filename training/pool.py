"""Jobs in worker processes that may crash, hang or fail: each costs its own job, never the run.

Decoders crash and hang on broken files, and a pool of the standard library ends with the first process
that dies. Workers are spawned, tied to their parent's life, and killed when late.
"""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Literal, TypeVar

from pipeline.errors import DetectError

J = TypeVar("J")
R = TypeVar("R")

START_S = 120.0
"""Seconds in which a worker has to be ready: it imports the libraries and loads a face detector."""

GONE_S = 5.0
"""Seconds in which a process that has closed its pipe has to be gone."""

ATTEMPTS = 2
"""A job whose worker died is tried once more: the kernel may have killed it for another's memory."""


class PoolError(DetectError):
    """Workers do not start, whatever the job."""


@dataclass(frozen=True, slots=True)
class Lost:
    """What became of a job that gave no result."""

    why: Literal["crashed", "timeout", "failed"]
    detail: str


def run_jobs(
    jobs: Iterable[J], make: Callable[[], Callable[[J], R]], *, workers: int, timeout_s: float
) -> Iterator[tuple[J, R | Lost]]:
    """Run each job in one of `workers` processes and give its result as soon as it is there.

    make: called once in each process, gives the function that does a job; it, the jobs and the results
    are pickled. timeout_s: wall-clock seconds for one job. Leaving the loop early kills the workers.
    Raises PoolError.
    """
    waiting = deque((job, 1) for job in jobs)
    pool: list[_Worker[J, R]] = []
    try:
        while waiting or pool:
            while waiting and len(pool) < workers:
                pool.append(_Worker(make, timeout_s))
            for worker in [w for w in pool if w.idle]:
                if waiting:
                    worker.give(*waiting.popleft())
                else:
                    worker.kill()
                    pool.remove(worker)
            _wait(pool)
            for worker in list(pool):
                done = worker.look()
                if done is None:
                    continue
                if not worker.alive:
                    pool.remove(worker)
                job, attempt, result = done
                if isinstance(result, Lost) and result.why == "crashed" and attempt < ATTEMPTS:
                    waiting.append((job, attempt + 1))
                else:
                    yield job, result
    finally:
        for worker in pool:
            worker.kill()


def _wait(pool: "list[_Worker[Any, Any]]") -> None:
    """Sleep until a worker says something, dies or is late."""
    if pool:
        until = min(w.deadline for w in pool)
        wait([w.pipe for w in pool], max(0.0, until - time.monotonic()))


class _Worker(Generic[J, R]):
    """One process: starting, idle, or at work on one job until a deadline."""

    def __init__(self, make: Callable[[], Callable[[J], R]], timeout_s: float) -> None:
        context = get_context("spawn")
        self.pipe, child = context.Pipe()
        self._process = context.Process(target=_work, args=(child, make), daemon=True)
        self._process.start()
        child.close()
        self._timeout_s = timeout_s
        self._job: tuple[J, int] | None = None
        self._ready = False
        self.alive = True
        self.deadline = time.monotonic() + START_S

    @property
    def idle(self) -> bool:
        """Ready, and without a job."""
        return self._ready and self._job is None

    def give(self, job: J, attempt: int) -> None:
        """Start a job; a process that has died since is noticed by `look`."""
        self._job = (job, attempt)
        self.deadline = time.monotonic() + self._timeout_s
        try:
            self.pipe.send(job)
        except OSError:
            return

    def look(self) -> tuple[J, int, R | Lost] | None:
        """The job that has ended since, with its outcome; None while there is nothing to tell."""
        try:
            if self.pipe.poll():
                return self._heard(self.pipe.recv())
        except (EOFError, OSError):
            self._process.join(GONE_S)
            return self._ended(Lost("crashed", _death(self._process.exitcode)))
        if time.monotonic() < self.deadline:
            return None
        return self._ended(Lost("timeout", f"not done in {self._timeout_s:g} s"))

    def kill(self) -> None:
        """End the process, whatever it does."""
        self.alive = False
        self._process.kill()
        self._process.join()
        self.pipe.close()

    def _heard(self, message: tuple[bool, Any]) -> tuple[J, int, R | Lost] | None:
        fine, content = message
        if self._job is None:
            if not fine:
                self.kill()
                raise PoolError(f"a worker does not start: {content}")
            self._ready, self.deadline = True, float("inf")
            return None
        (job, attempt), self._job, self.deadline = self._job, None, float("inf")
        return job, attempt, content if fine else Lost("failed", content)

    def _ended(self, lost: Lost) -> tuple[J, int, R | Lost]:
        self.kill()
        if self._job is None:
            raise PoolError(f"a worker does not start: {lost.detail}")
        job, attempt = self._job
        return job, attempt, lost


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        return f"the worker was ended by {signal.Signals(-code).name}"
    return f"the worker ended with code {code}"


def _work(pipe: "Connection[Any, Any]", make: Callable[[], Callable[[Any], Any]]) -> None:
    """The life of a worker: (True, None) when ready, then (fine, result or message) for each job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    try:
        do = make()
    except Exception as e:  # told to the parent, whose error it becomes
        pipe.send((False, f"{type(e).__name__}: {e}"))
        return
    pipe.send((True, None))
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((True, do(job)))
        except Exception as e:  # a file may bring any library to its knees; the run goes on
            pipe.send((False, f"{type(e).__name__}: {e}"))


def _follow_parent() -> None:
    """Die when the parent dies, also amid a decoder that never returns."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
