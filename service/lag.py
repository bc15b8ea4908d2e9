"""How late the event loop is: while one callback keeps it, nobody else is answered."""

import asyncio
import time
from collections.abc import Callable

EVERY_S = 0.25
"""Between two looks: what keeps the loop for longer is always seen."""


async def watch(observe: Callable[[float], None], *, clock: Callable[[], float] = time.monotonic) -> None:
    """Tell for ever how many seconds after it was due the loop came back."""
    while True:
        due = clock() + EVERY_S
        await asyncio.sleep(EVERY_S)
        observe(max(0.0, clock() - due))
