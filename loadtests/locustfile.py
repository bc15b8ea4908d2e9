"""What locust is given: a scenario, or, without one, clients that send one clip after the other.

    locust --headless -u 4 -r 2 -t 60s --host http://127.0.0.1:8000 -f loadtests/locustfile.py
    DETECTOR_LOAD_SCENARIO=burst locust --headless --host http://127.0.0.1:8000 -f loadtests/locustfile.py

The clip is the file that DETECTOR_LOAD_CLIP names, or one as `deepfake-detect sample` makes it. Leaves with 1
when a threshold was missed; without a scenario, when a request failed or none was answered. Being turned away
(429, 503) with a Retry-After is no failure: it is counted apart, and the client waits as it was asked to.
"""

import logging
import os
import time
from pathlib import Path
from typing import Any

from locust import events
from locust.env import Environment

from benchmarks.summary import as_json
from loadtests.alone import measured_alone
from loadtests.record import Sample
from loadtests.results import RESULTS, SCALE, SCENARIO, results
from loadtests.scenarios import SCENARIOS, Member, users_at
from loadtests.shape import shape_of
from loadtests.thresholds import Run, no_failures, some_answered
from loadtests.users import USERS

log = logging.getLogger("loadtests")
CHOSEN = SCENARIOS[os.environ[SCENARIO]] if os.environ.get(SCENARIO) else None
STAGES = CHOSEN.scaled(float(os.environ.get(SCALE, "1"))) if CHOSEN else ()
CREW = CHOSEN.crew if CHOSEN else (Member("Uploader"),)


class Recorder:
    """The requests of this run, from when the clock runs."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.alone_s: dict[str, float] = {}
        self.begun = 0.0

    def __call__(self, *, context: dict[str, Any], response_time: float, start_time: float, **_: Any) -> None:
        """Keep one request, as locust tells of it. Times of answers come in milliseconds."""
        at_s = start_time - self.begun
        users = users_at(STAGES, at_s) or 0
        self.samples.append(Sample(at_s=at_s, seconds=response_time / 1000, users=users, **context))


recorder = Recorder()
events.request.add_listener(recorder)


@events.init.add_listener
def prepare(environment: Environment, **_: Any) -> None:
    """Make what is sent, and send it alone. Not when the test starts: then the clock of its stages runs."""
    for each in CREW:
        USERS[each.user].prepare()
    if CHOSEN is not None:
        recorder.alone_s = measured_alone(str(environment.host), CHOSEN.alone)


@events.test_start.add_listener
def begin(**_: Any) -> None:
    """The clock runs."""
    recorder.begun = time.time()


@events.quitting.add_listener
def conclude(environment: Environment, **_: Any) -> None:
    """Judge the run, and choose the exit code."""
    run = Run(recorder.samples, STAGES, recorder.alone_s)
    if CHOSEN is None:
        checks = [no_failures(run), some_answered(run)]
    else:
        found = results(CHOSEN, run)
        if to := os.environ.get(RESULTS):
            Path(to).write_text(as_json(found), encoding="utf-8")
        checks = [threshold(run) for threshold in CHOSEN.thresholds]
    for check in checks:
        log.info("%s: %s (%s): %s", check.name, check.found, check.wanted, "met" if check.met else "MISSED")
    environment.process_exit_code = 0 if all(check.met for check in checks) else 1


# Locust takes the users and the shape that it finds here by their classes.
if CHOSEN is not None:
    Shape = shape_of(STAGES)
for member in CREW:
    facts = {"weight": member.weight, "fixed_count": member.fixed}
    globals()[member.user] = type(member.user, (USERS[member.user],), facts)
