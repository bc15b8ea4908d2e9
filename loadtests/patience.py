"""How long a good client waits before it asks again, and how often it does."""

from random import Random

ATTEMPTS = 5
"""Times that one clip is sent before its client gives it up."""
JITTER = 0.25
"""Of the time that was asked for: so much longer at most, lest all who were turned away come back at once."""
UNASKED_S = 1.0
"""After a failure, which names no time."""


def pause_s(asked_s: int, draw: Random) -> float:
    """Seconds until a clip that was turned away is sent again: never sooner than asked for."""
    return asked_s * (1 + JITTER * draw.random())
