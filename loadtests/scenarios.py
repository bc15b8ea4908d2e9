"""The scenarios: who comes when, and what has to hold. Knows nothing of locust."""

from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.thresholds import (
    Threshold,
    given_up,
    holds_its_rate,
    latency,
    no_failures,
    recovered,
    retry_after,
    some_answered,
    told_what_is_wrong,
    turned_away,
)

ALWAYS: tuple[Threshold, ...] = (no_failures, some_answered, retry_after)
AT_ONCE = 32
"""Clips that a service with its defaults works on at a time (DETECTOR_MAX_IN_FLIGHT)."""


@dataclass(frozen=True, slots=True)
class Member:
    """A kind of client, by its name in `users.USERS`. fixed: so many of them whatever the stage, if not 0."""

    user: str
    weight: int = 1
    fixed: int = 0


@dataclass(frozen=True, slots=True)
class Scenario:
    """stages: seconds and users of each, one after the other; alone: kinds of clips whose times are measured
    beforehand, with nothing else to do."""

    name: str
    what: str
    stages: Sequence[tuple[float, int]]
    crew: Sequence[Member]
    thresholds: Sequence[Threshold]
    alone: Sequence[str] = ("clip",)

    def scaled(self, scale: float) -> Sequence[tuple[float, int]]:
        """The stages, each so many times as long."""
        return tuple((seconds * scale, users) for seconds, users in self.stages)


def users_at(stages: Sequence[tuple[float, int]], at_s: float) -> int | None:
    """Users of the stage at a time; None after the last one."""
    for seconds, users in stages:
        if at_s < seconds:
            return users
        at_s -= seconds
    return None


SCENARIOS = {
    s.name: s
    for s in (
        Scenario(
            "steady",
            "four clients, each with one clip after the other",
            ((30, 4),),
            (Member("Uploader"),),
            (*ALWAYS, turned_away(0.0), latency(2.0)),
        ),
        Scenario(
            "burst",
            "two steady clients; after 8 s 46 more at once, each with a single clip",
            ((8, 2), (67, 48)),
            (Member("Uploader", fixed=2), Member("Once")),
            (*ALWAYS, turned_away(0.8), given_up(0.1), recovered(2.0, users=2)),
        ),
        Scenario(
            "ramp",
            "ever more clients, until more clips come than are worked on at once",
            ((10, 1), (10, 2), (10, 4), (10, 8), (10, 16), (20, 40)),
            (Member("Uploader"),),
            (*ALWAYS, turned_away(0.8), latency(2.0, at_once=AT_ONCE), holds_its_rate(0.7)),
        ),
        Scenario(
            "mixed",
            "four clients with small, medium and large clips by lot",
            ((30, 4),),
            (Member("Mixed"),),
            (*ALWAYS, turned_away(0.0), latency(2.0)),
            ("small", "medium", "large"),
        ),
        Scenario(
            "hostile",
            "four clients with uploads that should be refused beside two good ones",
            ((30, 6),),
            (Member("Uploader", fixed=2), Member("Hostile")),
            (*ALWAYS, told_what_is_wrong, turned_away(0.0), latency(2.0)),
        ),
        Scenario(
            "slow",
            "twelve clients whose clips trickle in beside four good ones",
            ((30, 16),),
            (Member("Uploader", fixed=4), Member("Slow")),
            (*ALWAYS, turned_away(0.0), latency(2.0)),
        ),
    )
}
