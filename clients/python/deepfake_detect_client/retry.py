"""When to try again, and when to give up."""

import math
import random
import time
from dataclasses import dataclass

from deepfake_detect_client.errors import ClientError, RateLimited, TimedOut, Unavailable, Unreachable


@dataclass(frozen=True, slots=True)
class Retries:
    """How patient a client is. The same clip gets the same answer, so that asking again does no harm.

    attempts: in all, 1 for no second one. patience_s: no attempt begins later than that after the first.
    Where the service names no time to wait it is `first_wait_s`, doubled from one attempt to the next up to
    `longest_wait_s`. All waits are spread at random, so that many clients do not come back at once.
    """

    attempts: int = 6
    patience_s: float = 120.0
    first_wait_s: float = 0.5
    longest_wait_s: float = 20.0


class Deadline:
    """A point in time by which all has to be over; none where `seconds` is None."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._at = math.inf if seconds is None else time.monotonic() + seconds

    def left_s(self) -> float:
        """Seconds that are left, 0 when it has passed; infinite where there is none."""
        return max(0.0, self._at - time.monotonic())

    def check(self) -> None:
        """Raises TimedOut when it has passed."""
        if self.left_s() == 0:
            raise self.missed()

    def missed(self) -> TimedOut:
        """What to raise when it has passed."""
        return TimedOut(f"there was no answer within {self.seconds:g} s")


class Attempts:
    """The attempts at one call."""

    def __init__(self, retries: Retries, deadline: Deadline) -> None:
        self._retries, self._deadline = retries, deadline
        self._patience = Deadline(retries.patience_s)
        self._made = 0

    def wait_after(self, error: ClientError, *, repeatable: bool) -> float:
        """Seconds to wait before the next attempt. Raises `error` when there is to be none.

        repeatable: whether what was sent can be sent again. A wait that would end too late is not begun:
        who asked learns at once when to come back.
        """
        self._made += 1
        wait_s = self._wait_s(error)
        left_s = min(self._patience.left_s(), self._deadline.left_s())
        if wait_s is None or not repeatable or self._made >= self._retries.attempts or wait_s >= left_s:
            raise error
        return wait_s

    def _wait_s(self, error: ClientError) -> float | None:
        if isinstance(error, RateLimited | Unavailable) and error.retry_after_s is not None:
            return max(error.retry_after_s, self._retries.first_wait_s) * random.uniform(1.0, 1.25)
        if isinstance(error, RateLimited | Unavailable | Unreachable):
            doubled: float = self._retries.first_wait_s * 2 ** (self._made - 1)
            longest = min(self._retries.longest_wait_s, doubled)
            return longest * random.uniform(0.5, 1.0)
        return None
