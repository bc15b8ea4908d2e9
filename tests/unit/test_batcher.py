"""The contract of the micro-batcher, a test for each of its lines."""

import asyncio
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.bundle import open_bundle
from pipeline.engine import Engine
from service import batcher as service_batcher
from service.batcher import PATIENCE_S, Batcher, BatcherDead, DeviceFailed, Expired, ItemFailed, Owner
from service.graphs import EncoderGraph, TemporalGraph, ladder, longest_sequence, rung
from tests.bundles import expected_scores, tiny_bundle

LONG = 30.0


class Device:
    """Doubles its items. A gate can hold it back; it keeps what it ran."""

    def __init__(self, poison=(), broken=False):
        self.batches = []
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.poison = set(poison)
        self.broken = broken

    def run(self, items):
        self.entered.set()
        assert self.gate.wait(LONG)
        self.batches.append(list(items))
        if self.broken or self.poison.intersection(items):
            raise RuntimeError("bad item")
        return [2 * i for i in items]

    def probe(self):
        if self.broken:
            raise RuntimeError("device lost")

    def hold(self):
        self.entered.clear()
        self.gate.clear()

    async def busy(self):
        assert await asyncio.to_thread(self.entered.wait, LONG)


def scenario(body, device=None, *, max_batch=4, max_queued=100, stall_s=LONG, threads=1):
    """Run `body(batcher, device)` on a fresh loop with a running batcher."""
    device = device or Device()

    async def main():
        batcher = Batcher(
            "test",
            device.run,
            device.probe,
            max_batch=max_batch,
            max_queued=max_queued,
            stall_s=stall_s,
            threads=threads,
        )
        batcher.start()
        try:
            async with asyncio.timeout(LONG):
                await body(batcher, device)
        finally:
            device.gate.set()
            await batcher.stop()

    asyncio.run(main())
    return device


def soon(seconds=LONG):
    return asyncio.get_running_loop().time() + seconds


def submit(batcher, items, deadline=None):
    return asyncio.create_task(batcher.submit(items, deadline=deadline or soon()))


async def settle():
    """Let every task that can run reach its next wait."""
    for _ in range(50):
        await asyncio.sleep(0)


async def occupied(batcher, device):
    """Hold the device with a first item, so that all that follows must queue."""
    device.hold()
    first = submit(batcher, [0])
    await device.busy()
    return first


def test_results_come_back_in_the_order_of_the_items():
    async def body(batcher, device):
        outcome = await batcher.submit(range(11), deadline=soon())
        assert outcome.results == [2 * i for i in range(11)]
        assert outcome.queued_s >= 0

    assert [len(b) for b in scenario(body).batches] == [4, 4, 3]


def test_idle_device_is_given_work_at_once_without_a_timer():
    async def body(batcher, device):
        loop = asyncio.get_running_loop()
        scheduled = []
        loop.call_later = lambda *a, **k: scheduled.append(a)  # asyncio.timeout_at uses call_at
        assert (await batcher.submit([7], deadline=soon())).results == [14]
        assert all(delay >= LONG / 2 for delay, *_ in scheduled)

    assert scenario(body).batches == [[7]]


def test_work_accumulates_up_to_max_batch_while_the_device_is_busy():
    async def body(batcher, device):
        tasks = [await occupied(batcher, device)]
        tasks += [submit(batcher, [i]) for i in range(1, 7)]
        await settle()
        device.gate.set()
        await asyncio.gather(*tasks)

    assert [len(b) for b in scenario(body).batches] == [1, 4, 2]


def test_the_age_of_the_queue_is_that_of_the_first_call_not_yet_on_the_device():
    async def body(batcher, device):
        now = soon()
        assert batcher.oldest_s(now) == 0
        first = await occupied(batcher, device)
        assert batcher.oldest_s(now) == 0, "what is on the device waits no more"
        older = submit(batcher, [1])
        await settle()
        age = batcher.oldest_s(now)
        assert 0 < age <= LONG
        younger = submit(batcher, [2])
        await settle()
        assert batcher.oldest_s(now) == age
        older.cancel()
        await settle()
        assert 0 < batcher.oldest_s(now) < age
        device.gate.set()
        await asyncio.gather(first, younger)
        assert batcher.oldest_s(now) == 0

    scenario(body)


def test_short_request_is_not_starved_by_a_long_one():
    async def body(batcher, device):
        tasks = [await occupied(batcher, device)]
        tasks.append(submit(batcher, list(range(100, 120))))
        await settle()
        tasks.append(submit(batcher, [1, 2]))
        await settle()
        device.gate.set()
        await asyncio.gather(*tasks)

    batches = scenario(body).batches
    assert batches[1] == [100, 1, 101, 2]


def test_a_request_in_many_calls_takes_no_more_turns_than_one_in_a_single_call():
    async def body(batcher, device):
        tasks = [await occupied(batcher, device)]
        owner = Owner()
        calls = [batcher.submit([n, n + 1], deadline=soon(), owner=owner) for n in (100, 110, 120)]
        tasks += [asyncio.create_task(call) for call in calls]
        await settle()
        tasks.append(submit(batcher, [1, 2]))
        await settle()
        device.gate.set()
        await asyncio.gather(*tasks)
        assert not batcher._lanes

    assert scenario(body).batches == [[0], [100, 1, 101, 2], [110, 111, 120, 121]]


def test_of_requests_alike_the_first_is_finished_first():
    async def body(batcher, device):
        tasks = [await occupied(batcher, device)]
        early = Owner()
        tasks.append(asyncio.create_task(batcher.submit([1, 2], deadline=soon(), owner=early)))
        await settle()
        device.hold()  # the first batch is let go, the second is held: the clock has moved on
        device.gate.set()
        await tasks[0]
        await tasks[1]
        device.hold()
        tasks.append(submit(batcher, [0]))
        await device.busy()
        tasks.append(submit(batcher, [11, 12, 13]))
        await settle()
        tasks.append(asyncio.create_task(batcher.submit([3], deadline=soon(), owner=early)))
        await settle()
        device.gate.set()
        await asyncio.gather(*tasks)

    batches = scenario(body, max_batch=2).batches
    assert batches == [[0], [1, 2], [0], [11, 3], [12, 13]]


def test_queue_is_bounded_and_callers_wait_at_the_door():
    async def body(batcher, device):
        first = await occupied(batcher, device)
        a, b = submit(batcher, list(range(100, 110))), submit(batcher, [1])
        await settle()
        inside = sum(len(call.waiting) for lane in batcher._lanes.values() for call in lane)
        assert inside == 3
        assert batcher.queued == 11
        device.gate.set()
        assert len((await a).results) == 10
        assert (await b).results == [2]
        await first
        assert batcher.queued == 0

    scenario(body, max_queued=3)


def test_door_lets_callers_in_by_turns():
    async def body(batcher, device):
        tasks = [await occupied(batcher, device), submit(batcher, list(range(100, 110)))]
        await settle()
        tasks.append(submit(batcher, [1]))
        await settle()
        device.gate.set()
        await asyncio.gather(*tasks)

    batches = scenario(body, max_queued=2, max_batch=1).batches
    order = [i for b in batches for i in b]
    assert order.index(1) <= 5


def test_cancelled_work_leaves_the_queue_before_it_is_run():
    async def body(batcher, device):
        first = await occupied(batcher, device)
        gone, stays = submit(batcher, [1, 2, 3]), submit(batcher, [4])
        await settle()
        gone.cancel()
        await settle()
        assert batcher.queued == 1
        device.gate.set()
        await asyncio.gather(first, stays)
        with pytest.raises(asyncio.CancelledError):
            await gone

    assert scenario(body).batches == [[0], [4]]


def test_caller_cancelled_at_the_door_leaves_its_place_to_the_next():
    async def body(batcher, device):
        first = await occupied(batcher, device)
        tasks = [submit(batcher, [1]), submit(batcher, [2]), submit(batcher, [3])]
        await settle()
        tasks[1].cancel()
        await settle()
        device.gate.set()
        await asyncio.gather(first, tasks[0], tasks[2])

    assert scenario(body, max_queued=1).batches == [[0], [1], [3]]


def test_expired_work_leaves_the_queue_before_it_is_run():
    async def body(batcher, device):
        first = await occupied(batcher, device)
        with pytest.raises(Expired, match="2 of 2 items not begun"):
            await batcher.submit([1, 2], deadline=soon(0.01))
        assert batcher.queued == 0
        device.gate.set()
        await first

    assert scenario(body).batches == [[0]]


def test_work_that_expires_unnoticed_is_dropped_at_the_pop():
    """The loop may be held up past a deadline whose timer has not fired yet."""

    async def body(batcher, device):
        first = await occupied(batcher, device)
        late = submit(batcher, [1], deadline=soon(0.02))
        await settle()
        assert batcher._take() != []  # before its deadline it would be taken ...
        again = submit(batcher, [2], deadline=soon(0.02))
        await settle()
        time.sleep(0.05)  # noqa: ASYNC251 - holding up the loop is the point
        assert batcher._take() == []  # ... after it, never
        device.gate.set()
        await first
        for task in (late, again):
            with pytest.raises(Expired):
                await task

    assert scenario(body).batches == [[0]]


def test_deadline_covers_a_run_that_takes_too_long():
    async def body(batcher, device):
        device.hold()
        with pytest.raises(Expired):
            await batcher.submit([1], deadline=soon(0.02))

    scenario(body)


def test_failed_batch_is_retried_item_by_item_and_only_the_poison_fails():
    async def body(batcher, device):
        tasks = [await occupied(batcher, device)]
        tasks += [submit(batcher, [i]) for i in (1, 666, 2)]
        await settle()
        device.gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [r.results for r in results if not isinstance(r, Exception)] == [[0], [2], [4]]
        assert isinstance(results[2], ItemFailed)
        assert (await batcher.submit([3], deadline=soon())).results == [6]

    device = scenario(body, Device(poison=[666]))
    assert device.batches == [[0], [1, 666, 2], [1], [666], [2], [3]]


def test_rest_of_a_poisoned_request_is_not_run():
    async def body(batcher, device):
        with pytest.raises(ItemFailed):
            await batcher.submit([666, *range(1, 10)], deadline=soon())
        assert batcher.queued == 0

    assert scenario(body, Device(poison=[666]), max_batch=2).batches == [[666, 1], [666]]


def test_device_that_fails_on_a_known_input_ends_the_loop():
    async def body(batcher, device):
        with pytest.raises(ItemFailed):
            await batcher.submit([1], deadline=soon())
        await batcher._loop
        assert isinstance(batcher.dead, DeviceFailed)
        with pytest.raises(BatcherDead):
            await batcher.submit([1], deadline=soon())

    scenario(body, Device(broken=True))


def test_device_that_hangs_ends_the_loop_and_fails_all_who_wait():
    async def body(batcher, device):
        device.hold()
        tasks = [submit(batcher, [1]), submit(batcher, list(range(10)))]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(r) for r in results] == [BatcherDead, BatcherDead]
        assert isinstance(batcher.dead, DeviceFailed)
        assert batcher.queued == 0

    scenario(body, stall_s=0.02)


class Pair:
    """Two threads' device: a run ends when another one has begun beside it."""

    def __init__(self):
        self.meeting = threading.Barrier(2, timeout=LONG)
        self.batches = []
        self.gate = threading.Event()

    def run(self, items):
        self.meeting.wait()
        self.batches.append(items)
        return [2 * i for i in items]

    def probe(self):
        raise AssertionError("no run has failed")


def test_threads_share_what_waits_and_run_it_at_once():
    async def body(batcher, device):
        assert (await batcher.submit(range(5), deadline=soon())).results == [0, 2, 4, 6, 8]
        assert (await batcher.submit(range(20), deadline=soon())).results == list(range(0, 40, 2))

    batches = scenario(body, Pair(), max_batch=5, threads=2).batches
    assert sorted(batches[:2]) == [[0, 1, 2], [3, 4]]
    assert [len(b) for b in batches[2:]] == [5, 5, 5, 5]


def test_rate_is_that_of_all_threads_together():
    device = Device()
    device.run = lambda items: time.sleep(0.2) or items

    async def body(batcher, device):
        await batcher.submit(range(8), deadline=soon())
        assert 20 < batcher.rate <= 40

    scenario(body, device, threads=2)


def test_thread_that_hangs_ends_the_others_too():
    release = threading.Event()
    device = Device()

    def run(items):
        if items[0] == 0:
            release.wait(LONG)
        return items

    device.run = run

    async def body(batcher, device):
        results = await asyncio.gather(submit(batcher, [0]), return_exceptions=True)
        assert [type(r) for r in results] == [BatcherDead]
        assert isinstance(batcher.dead, DeviceFailed)
        with pytest.raises(BatcherDead):
            await batcher.submit([1], deadline=soon())
        release.set()

    scenario(body, device, stall_s=0.05, threads=2)


def chained(body, *, stall_s=LONG):
    """Run `body(first, second, device of the first, device of the second)`; the second's items come of the
    first's, and its batches hold three."""

    async def main():
        devices = Device(), Device()
        first = Batcher("1", devices[0].run, devices[0].probe, max_batch=1, max_queued=9, stall_s=stall_s)
        second = Batcher(
            "2", devices[1].run, devices[1].probe, max_batch=3, max_queued=9, stall_s=LONG, source=first
        )
        first.start()
        second.start()
        try:
            async with asyncio.timeout(LONG):
                await body(first, second, *devices)
        finally:
            devices[0].gate.set()
            await first.stop()
            await second.stop()
        return devices[1].batches

    return asyncio.run(main())


FAR = PATIENCE_S + LONG


@pytest.mark.parametrize(
    ("owners", "deadline_s", "batches"),
    [
        (2, FAR, [[1, 2, 3]]),  # two more are coming: worth waiting for
        (1, FAR, [[1], [2, 3]]),  # one would not fill the batch
        (2, PATIENCE_S, [[1], [2, 3]]),  # they are, but there is no time
    ],
)
def test_batch_waits_for_the_requests_that_fill_it(owners, deadline_s, batches):
    async def body(first, second, device, _):
        tasks = [await occupied(first, device)]
        tasks += [submit(first, [k]) for k in range(owners)]
        await settle()
        one = submit(second, [1], soon(deadline_s))
        if len(batches) > 1:
            await one
            device.gate.set()
        await settle()
        more = submit(second, [2, 3], soon(deadline_s))
        await asyncio.gather(one, more)
        device.gate.set()
        await asyncio.gather(*tasks)

    assert chained(body) == batches


@pytest.mark.parametrize("how", ["run", "cancelled"])
def test_batch_waits_no_longer_than_there_is_work_to_come(how):
    async def body(first, second, device, _):
        tasks = [await occupied(first, device), submit(first, [1]), submit(first, [2])]
        await settle()
        held = submit(second, [7], soon(FAR))
        await settle()
        assert second.queued == 1
        if how == "cancelled":
            for task in tasks:
                task.cancel()
        device.gate.set()
        assert (await held).results == [14]
        await asyncio.gather(*tasks, return_exceptions=True)

    assert chained(body) == [[7]]


def test_an_impatient_owner_waits_for_no_company():
    async def body(first, second, device, _):
        tasks = [await occupied(first, device), submit(first, [1]), submit(first, [2])]
        await settle()
        assert (await second.submit([7], deadline=soon(FAR), owner=Owner(patient=False))).results == [14]
        device.gate.set()
        await asyncio.gather(*tasks)

    assert chained(body) == [[7]]


def test_batch_waits_for_company_only_so_long(monkeypatch):
    monkeypatch.setattr(service_batcher, "COMPANY_S", 0.05)
    release = threading.Event()

    async def body(first, second, device, _):
        tasks = [await occupied(first, device), *(submit(first, [k]) for k in (1, 2, 3))]
        await settle()
        held = submit(second, [7], soon(FAR))
        await asyncio.sleep(0.1)
        assert second.queued == 1
        first._run = lambda items: release.wait(LONG) and items
        device.gate.set()  # one run ends, another begins, two more are to come
        assert (await held).results == [14]
        release.set()
        await asyncio.gather(*tasks)

    assert chained(body) == [[7]]


def test_batch_does_not_wait_for_a_dead_source():
    async def body(first, second, device, _):
        device.hold()
        lost = [submit(first, [k]) for k in range(3)]
        await device.busy()
        held = submit(second, [7], soon(FAR))
        assert (await held).results == [14]
        assert isinstance(first.dead, DeviceFailed)
        await asyncio.gather(*lost, return_exceptions=True)

    assert chained(body, stall_s=0.05) == [[7]]


def test_stopping_fails_all_who_wait():
    async def body(batcher, device):
        first = await occupied(batcher, device)
        second = submit(batcher, [1])
        await settle()
        await batcher.stop()
        for task in (first, second):
            with pytest.raises(BatcherDead):
                await task

    scenario(body)


def test_nothing_is_accepted_before_the_start():
    async def main():
        device = Device()
        batcher = Batcher("idle", device.run, device.probe, max_batch=1, max_queued=1, stall_s=1)
        with pytest.raises(BatcherDead, match="not started"):
            await batcher.submit([1], deadline=soon())

    asyncio.run(main())


def test_no_items_need_no_run():
    async def body(batcher, device):
        assert (await batcher.submit([], deadline=soon())).results == []

    assert scenario(body).batches == []


@settings(max_examples=40, deadline=None)
@given(
    requests=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    max_batch=st.integers(1, 6),
    max_queued=st.integers(1, 10),
)
def test_every_item_is_run_once_and_goes_to_its_caller(requests, max_batch, max_queued):
    async def body(batcher, device):
        items = [[1000 * r + i for i in range(count)] for r, count in enumerate(requests)]
        outcomes = await asyncio.gather(*(batcher.submit(i, deadline=soon()) for i in items))
        assert [o.results for o in outcomes] == [[2 * i for i in own] for own in items]
        assert batcher.queued == 0

    device = scenario(body, max_batch=max_batch, max_queued=max_queued)
    run = [i for b in device.batches for i in b]
    assert len(run) == len(set(run)) == sum(requests)
    assert max(len(b) for b in device.batches) <= max_batch


@given(top=st.integers(1, 5000), bottom=st.integers(1, 64), count=st.integers(1, 5000))
def test_ladder_holds_every_count_up_to_its_top(top, bottom, count):
    rungs = ladder(top, padding=1 / 4, bottom=bottom)
    assert rungs[-1] == top
    assert list(rungs) == sorted(set(rungs))
    if count <= top:
        found = rung(count, rungs)
        assert found in rungs
        assert found >= count
        assert found < 2 * count or found == rungs[0]
    else:
        with pytest.raises(ValueError, match="over the top"):
            rung(count, rungs)


class Recording:
    """An engine that keeps the shapes it was run with."""

    def __init__(self, engine):
        self._engine = engine
        self.shapes = []

    def encode(self, samples):
        self.shapes.append(samples.shape[:1])
        return self._engine.encode(samples)

    def temporal(self, features, lengths):
        self.shapes.append(features.shape[:2])
        return self._engine.temporal(features, lengths)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return Engine(open_bundle(tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")), threads=1)


def test_only_warmed_shapes_are_ever_run(engine):
    manifest = engine.bundle.manifest
    recording = Recording(engine)
    encoder, temporal = EncoderGraph(recording, manifest, max_batch=6), TemporalGraph(recording, manifest)
    encoder.warm()
    temporal.warm()
    warmed = set(recording.shapes)
    recording.shapes.clear()
    rng = np.random.default_rng(0)
    for count in range(1, 7):
        encoder.run(list(rng.integers(0, 256, (count, 1, 32, 32, 3), np.uint8)))
    for count in range(1, 5):
        for steps in range(1, longest_sequence(manifest) + 1):
            temporal.run([rng.random((steps, 3), np.float32)] * count)
    assert set(recording.shapes) <= warmed
    assert len(recording.shapes) > len(warmed)


def test_answer_does_not_depend_on_its_company(engine):
    """The same samples alone and among others, through both graphs, and against the formula."""
    manifest = engine.bundle.manifest
    rng = np.random.default_rng(1)
    clips = [rng.integers(0, 256, (n, 1, 32, 32, 3), np.uint8) for n in (1, 3, 8, 5)]
    encoder, temporal = EncoderGraph(engine, manifest, max_batch=8), TemporalGraph(engine, manifest)

    async def through(company):
        batchers = [
            Batcher("e", encoder.run, encoder.probe, max_batch=8, max_queued=16, stall_s=LONG),
            Batcher("t", temporal.run, temporal.probe, max_batch=4, max_queued=16, stall_s=LONG),
        ]
        for b in batchers:
            b.start()

        async def judge(clip):
            features = np.stack((await batchers[0].submit(list(clip), deadline=soon())).results)
            return (await batchers[1].submit([features], deadline=soon())).results[0]

        scores = await asyncio.gather(*(judge(c) for c in company))
        for b in batchers:
            await b.stop()
        return scores

    together = asyncio.run(through(clips))
    for clip, score in zip(clips, together, strict=True):
        (alone,) = asyncio.run(through([clip]))
        steps, pooled = expected_scores(clip)
        np.testing.assert_allclose(score.steps, alone.steps, atol=1e-5)
        np.testing.assert_allclose(score.pooled, alone.pooled, atol=1e-5)
        np.testing.assert_allclose(score.steps, steps, atol=1e-5)
        np.testing.assert_allclose(score.pooled, pooled, atol=1e-5)
