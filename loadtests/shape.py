"""Stages of a scenario as a shape of locust."""

from collections.abc import Sequence

from locust import LoadTestShape

from loadtests.scenarios import users_at


def shape_of(stages: Sequence[tuple[float, int]]) -> type[LoadTestShape]:
    """A shape that goes through the stages; all users of one come at once."""

    class Stages(LoadTestShape):
        """Made for one scenario."""

        def tick(self) -> tuple[int, float] | None:
            """Users, and how many of them may come a second."""
            users = users_at(stages, self.get_run_time())
            return None if users is None else (users, float(users))

    return Stages
