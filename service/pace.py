"""How fast requests are answered, and when to come back for those that are refused."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

SMOOTHING = 0.2
"""Weight of the newest answer in the running mean."""
FIRST_GUESS_S = 1.0
LONGEST_RETRY_S = 60.0


class Pace:
    """Seconds from one answer to the next while there is work; times are in the event loop's time.

    Work begins when a clip has arrived: how slowly it is sent is no matter of the service's pace.
    """

    def __init__(self) -> None:
        self.working = 0
        """Clips that have arrived and are not answered."""
        self.seconds = FIRST_GUESS_S
        """From one answer to the next, smoothed."""
        self._since = 0.0
        self._promised = 0.0

    @contextmanager
    def work(self) -> Iterator[None]:
        """For the length of the block a clip is worked on."""
        loop = asyncio.get_running_loop()
        self.begun(loop.time())
        answered = False
        try:
            yield
            answered = True
        finally:
            self.ended(loop.time(), answered=answered)

    def begun(self, now: float) -> None:
        """A clip has arrived."""
        if self.working == 0:
            self._since = now
        self.working += 1

    def ended(self, now: float, *, answered: bool = True) -> None:
        """The work on a clip has ended. What is not answered tells nothing of the pace of answers: many a
        clip that can not be decoded is quickly done with."""
        self.working -= 1
        if not answered:
            return
        lasted = max(0.0, now - self._since)
        self._since = now
        self.seconds += SMOOTHING * (lasted - self.seconds)

    @property
    def expected_s(self) -> float:
        """Seconds until all that is worked on has been answered."""
        return self.working * self.seconds

    def retry_after(self, now: float) -> float:
        """Seconds after which one who is refused finds a place: no two are sent to the same one, so that they
        do not all come back at once."""
        after = min(max(self._promised - now, 0.0) + self.seconds, LONGEST_RETRY_S)
        self._promised = now + after
        return after
