"""The micro-batcher: many requests share the runs of one graph on one device.

A request submits its items in one call or in several, and waits for the results of each. The next batch is
taken whenever a thread of the device is free; nothing here waits for a clock, so work is never held back
while the device idles, and accumulates by itself while it is busy.

    submit -> door (a semaphore of `max_queued` places, first come, first served)
           -> queue (the item that is due first) -> batch -> device thread -> results

When items are due is kept by virtual clock (L. Zhang, SIGCOMM 1990), which counts the items taken: those of
one owner are due at every second tick from its first one on. So a short request passes a long one that has
had its share, and of several alike, the one that came first is finished first.

A device has one thread, or as many as it has cores that each run a batch alone. All state belongs to the
event loop; the device threads see lists of items and nothing else.
"""

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from service.tracing import OFF, Span, Tracer, request_span

Item = TypeVar("Item")
Result = TypeVar("Result")
T = TypeVar("T")

RATE_SMOOTHING = 0.2
"""Weight of the newest batch in the running mean of the rate."""

TICKS = 2
"""Ticks of the virtual clock from one item of an owner to its next. More share the device more evenly and
leave more requests unfinished."""

PATIENCE_S = 30.0
"""Time left before its deadline with which an item may wait for company."""
COMPANY_S = 3.0
"""Time that it waits for it at most: those on their way may be long."""


class BatcherDead(Exception):
    """The batcher does not run, or no more: nothing submitted to it will be answered."""


class DeviceFailed(Exception):
    """The device fails on an input known to be good, or does not come back from a run."""


class ItemFailed(Exception):
    """An item of this call fails on the device even when it is run alone."""


class Expired(Exception):
    """The deadline of a call has passed before its results were there."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Result]):
    """Results of one call in the order of its items, and the seconds before its first item was run."""

    results: list[Result]
    queued_s: float


@dataclass(eq=False, slots=True)
class Owner:
    """Whose items they are: a request. due: its next item, on the clock of the one batcher that it is for.
    patient: whether its items may wait for company. span: of what waits for the items."""

    due: int | None = None
    patient: bool = True
    span: Span = field(default_factory=request_span.get)


@dataclass(eq=False, slots=True)
class _Call(Generic[Item, Result]):
    """The items of one submission: `waiting` are those in the queue, `untaken` also those at the door."""

    owner: Owner
    submitted: float
    deadline: float
    missing: int
    untaken: int
    done: asyncio.Future[None]
    waiting: deque[tuple[int, Item]] = field(default_factory=deque)
    results: dict[int, Result] = field(default_factory=dict)
    begun: float | None = None


class _DeviceThread:
    """One thread that runs work in order. A daemon: a device that hangs must not keep the process alive."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=f"device {name}", daemon=True).start()

    def submit(self, work: Callable[[], T]) -> Future[T]:
        job: Future[T] = Future()
        self._jobs.put((work, job))
        return job

    def stop(self) -> None:
        self._jobs.put(None)

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            work, job = item
            if not job.set_running_or_notify_cancel():
                continue
            try:
                job.set_result(work())
            except BaseException as e:  # it belongs to whoever waits for the job
                job.set_exception(e)


class Batcher(Generic[Item, Result]):
    """Runs the items of many callers in shared batches.

    run: 1 to `max_batch` items to as many results, called in a device thread only.
    probe: runs an input known to be good; when that fails, the device is at fault and no item.
    max_batch: items in one batch. max_queued: items in the queue; further ones wait at the door.
    threads: batches on the device at once. What waits is shared out among those that are free.
    source: the batcher of whose results the items are made. While enough owners wait there to fill the next
    batch, items are not run with less: the device is busy with those owners anyway.
    stall_s: seconds after which a run that has not come back counts as a dead device.
    on_batch: told the items and the seconds of each run. tracer: records each run.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[list[Item]], Sequence[Result]],
        probe: Callable[[], object],
        *,
        max_batch: int,
        max_queued: int,
        stall_s: float,
        threads: int = 1,
        source: "Batcher[Any, Any] | None" = None,
        on_batch: Callable[[Sequence[Item], float], None] = lambda _items, _seconds: None,
        tracer: Tracer = OFF,
    ) -> None:
        self.name = name
        self.queued = 0
        """Items submitted and not yet on the device, those at the door included."""
        self.rate = 0.0
        """Items a second that all threads manage while they run, smoothed; 0 before the first batch."""
        self.dead: Exception | None = None
        """Why it has ended, None while it runs."""
        self.dead_since: float | None = None
        """When it ended, in the event loop's time."""
        self._run, self._probe, self._on_batch, self._tracer = run, probe, on_batch, tracer
        self._max_batch, self._stall_s = max_batch, stall_s
        self._door = asyncio.Semaphore(max_queued)
        self._calls: set[_Call[Item, Result]] = set()
        self._clock = 0
        self._lanes: dict[Owner, deque[_Call[Item, Result]]] = {}
        self._work = asyncio.Event()
        self._devices = [_DeviceThread(f"{name} {n}") for n in range(threads)]
        self._free = threads
        self._source = source
        self._followers: list[Batcher[Any, Any]] = []
        if source is not None:
            source._followers.append(self)
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to serve on the running event loop."""
        self._loop = asyncio.create_task(self._supervise(), name=f"batcher {self.name}")

    async def stop(self) -> None:
        """End the loop; calls that still wait fail with BatcherDead."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)

    def oldest_s(self, now: float) -> float:
        """Seconds since the first call came of which an item is not yet on the device; 0 without any.

        now: in the event loop's time.
        """
        return max((now - call.submitted for call in self._calls if call.untaken), default=0.0)

    async def submit(
        self, items: Sequence[Item], *, deadline: float, owner: Owner | None = None
    ) -> Outcome[Result]:
        """Results of all `items`, in order; `deadline` is in the event loop's time.

        owner: whose share its items take; without one they are taken for a request's only ones.
        However it ends, and also when the caller is cancelled, nothing of the call stays queued.
        Raises Expired, ItemFailed or BatcherDead.
        """
        if self.dead is not None or self._loop is None:
            raise BatcherDead(f"{self.name} does not run: {self.dead or 'not started'}")
        if not items:
            return Outcome([], 0.0)
        loop = asyncio.get_running_loop()
        submitted = loop.time()
        call = _Call[Item, Result](
            owner or Owner(), submitted, deadline, len(items), len(items), loop.create_future()
        )
        self._calls.add(call)
        self.queued += len(items)
        try:
            async with asyncio.timeout_at(deadline):
                await self._enter(call, items)
                await call.done
        except TimeoutError as e:
            raise Expired(f"the deadline passed with {call.untaken} of {len(items)} items not begun") from e
        finally:
            self._calls.discard(call)
            self._withdraw(call)
            call.done.cancel()
        return Outcome([call.results[i] for i in range(len(items))], (call.begun or submitted) - submitted)

    async def _enter(self, call: _Call[Item, Result], items: Sequence[Item]) -> None:
        """Bring items through the door one by one, so that a long call can not keep others out."""
        for numbered in enumerate(items):
            await self._door.acquire()
            if call.done.done():
                self._door.release()
                return
            if not call.waiting:
                self._line_up(call)
            call.waiting.append(numbered)
            self._work.set()

    def _line_up(self, call: _Call[Item, Result]) -> None:
        if call.owner.due is None:
            call.owner.due = self._clock
        self._lanes.setdefault(call.owner, deque()).append(call)

    def _leave(self, call: _Call[Item, Result]) -> None:
        """Take a call out of its owner's lane."""
        lane = self._lanes[call.owner]
        lane.remove(call)
        if not lane:
            del self._lanes[call.owner]

    def _withdraw(self, call: _Call[Item, Result]) -> None:
        """Take what was not begun out of the queue."""
        self.queued -= call.untaken
        call.untaken = 0
        for _ in call.waiting:
            self._door.release()
        if call.waiting:
            call.waiting.clear()
            self._leave(call)

    def _take(self) -> list[tuple[_Call[Item, Result], int, Item]]:
        """The next batch: the items due first, none of a call that has ended or expired.

        It is a free thread's share of what waits, so that no other is left idle.
        """
        now = asyncio.get_running_loop().time()
        for call in [c for c in self._lined_up() if c.done.done() or c.deadline <= now]:
            self._withdraw(call)
        waiting = sum(len(call.waiting) for call in self._lined_up())
        batch: list[tuple[_Call[Item, Result], int, Item]] = []
        if self._fuller_soon(waiting, now):
            return batch
        while len(batch) < min(self._max_batch, -(-waiting // max(1, self._free))):
            owner = min(self._lanes, key=_due)
            owner.due = _due(owner) + TICKS
            self._clock += 1
            call = self._lanes[owner][0]
            position, item = call.waiting.popleft()
            if not call.waiting:
                self._leave(call)
            if call.begun is None:
                call.begun = now
            call.untaken -= 1
            self.queued -= 1
            self._door.release()
            batch.append((call, position, item))
        return batch

    def _lined_up(self) -> Iterator[_Call[Item, Result]]:
        return (call for lane in self._lanes.values() for call in lane)

    def _fuller_soon(self, waiting: int, now: float) -> bool:
        """Whether as many as a batch lacks are on their way, and all that wait have time for them."""
        source = self._source
        return (
            source is not None
            and waiting + len(source._lanes) >= self._max_batch > waiting
            and all(
                call.owner.patient and call.deadline > now + PATIENCE_S and now < call.submitted + COMPANY_S
                for call in self._lined_up()
            )
        )

    async def _supervise(self) -> None:
        """Serve until stopped; whatever ends the loop, no caller is left waiting."""
        try:
            async with asyncio.TaskGroup() as group:
                for device in self._devices:
                    group.create_task(self._serve(device))
        except ExceptionGroup as e:  # whatever it was, callers and health checks must learn of it
            self.dead = e.exceptions[0]
        finally:
            self.dead = self.dead or BatcherDead("stopped")
            self.dead_since = asyncio.get_running_loop().time()
            for device in self._devices:
                device.stop()
            for call in self._calls:
                _fail(call, BatcherDead(f"{self.name} has ended: {self.dead}"))
                self._withdraw(call)
            self._wake_followers()

    async def _serve(self, device: _DeviceThread) -> None:
        while True:
            await self._work.wait()
            if batch := self._take():
                self._free -= 1
                await self._answer(device, batch)
                self._free += 1
            else:
                self._work.clear()
            self._wake_followers()

    def _wake_followers(self) -> None:
        """Let those look again that may wait for what was queued here."""
        for follower in self._followers:
            follower._work.set()

    async def _answer(
        self, device: _DeviceThread, batch: list[tuple[_Call[Item, Result], int, Item]]
    ) -> None:
        try:
            results = await self._timed(device, batch)
        except DeviceFailed:
            raise
        except Exception:  # any item may be the cause: each is tried alone
            await self._one_by_one(device, batch)
            return
        for (call, position, _), result in zip(batch, results, strict=True):
            _give(call, position, result)

    async def _one_by_one(
        self, device: _DeviceThread, batch: list[tuple[_Call[Item, Result], int, Item]]
    ) -> None:
        """Retry once each item of a failed batch; only calls with an item that fails again fail."""
        answered = False
        for one in batch:
            call, position, _ = one
            if call.done.done():
                continue
            try:
                (result,) = await self._timed(device, [one])
            except DeviceFailed:
                raise
            except Exception as e:  # the graph's own error, of a class that the runtime chooses
                _fail(call, ItemFailed(f"{self.name} fails on an item: {e}"))
            else:
                answered = True
                _give(call, position, result)
        if not answered:
            await self._check(device)

    async def _check(self, device: _DeviceThread) -> None:
        try:
            await self._on(device, self._probe)
        except Exception as e:
            raise DeviceFailed(f"the device fails on a known input: {e}") from e

    async def _timed(
        self, device: _DeviceThread, batch: list[tuple[_Call[Item, Result], int, Item]]
    ) -> Sequence[Result]:
        loop = asyncio.get_running_loop()
        started = loop.time()
        items = [item for _, _, item in batch]
        with self._tracer.run(self.name, (call.owner.span for call, _, _ in batch)):
            results = await self._on(device, lambda: self._run(items))
        seconds = max(loop.time() - started, 1e-6)
        now = len(self._devices) * len(items) / seconds
        self.rate = now if self.rate == 0.0 else self.rate + RATE_SMOOTHING * (now - self.rate)
        self._on_batch(items, seconds)
        return results

    async def _on(self, device: _DeviceThread, work: Callable[[], T]) -> T:
        """Run in a device thread. Raises DeviceFailed when it does not come back within `stall_s`."""
        running = asyncio.wrap_future(device.submit(work))
        finished, _ = await asyncio.wait({running}, timeout=self._stall_s)
        if not finished:
            raise DeviceFailed(f"the device did not come back within {self._stall_s:g} s")
        return running.result()


def _due(owner: Owner) -> int:
    return owner.due or 0


def _give(call: _Call[Any, Any], position: int, result: Any) -> None:
    call.results[position] = result
    call.missing -= 1
    if call.missing == 0 and not call.done.done():
        call.done.set_result(None)


def _fail(call: _Call[Any, Any], error: Exception) -> None:
    if not call.done.done():
        call.done.set_exception(error)
        call.done.exception()  # the caller may be gone already, which is no cause for a warning
