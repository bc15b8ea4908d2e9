"""The event loop's lateness is what lies between when it was due and when it came."""

import asyncio

import pytest

from service import lag


def test_what_kept_the_loop_is_told_each_time(monkeypatch):
    monkeypatch.setattr(lag, "EVERY_S", 0.01)
    times = iter([100.0, 100.01, 200.0, 200.76, 300.0, 300.009])
    seen = []

    async def main():
        enough = asyncio.Event()

        def observe(late_s):
            seen.append(late_s)
            if len(seen) == 3:
                enough.set()

        watching = asyncio.create_task(lag.watch(observe, clock=lambda: next(times)))
        await asyncio.wait_for(enough.wait(), 30)
        watching.cancel()

    asyncio.run(main())
    assert seen == pytest.approx([0.0, 0.75, 0.0])
