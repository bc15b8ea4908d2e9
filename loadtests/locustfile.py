"""Clients that each send one clip after the other to a running service.

    locust --headless -u 4 -r 2 -t 60s --host http://127.0.0.1:8000 -f loadtests/locustfile.py

The clip is the file that DETECTOR_LOAD_CLIP names, or one as `deepfake-detect sample` makes it. Leaves with 1
when a request failed or none was answered. Being turned away (429, 503) with a Retry-After is no failure:
it is counted apart, and the client waits as it was asked to.
"""

import logging
import os
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

from locust import HttpUser, constant, events, task
from locust.env import Environment

DETECT = "/v1/detect"
SHED = f"{DETECT} (turned away)"
VERDICTS = {"authentic", "manipulated", "uncertain", "not_applicable"}

log = logging.getLogger("loadtests")


@cache
def clip() -> tuple[str, bytes]:
    """Name and bytes of what is sent."""
    if given := os.environ.get("DETECTOR_LOAD_CLIP"):
        path = Path(given)
        return path.name, path.read_bytes()
    from pipeline.sampleclip import write_sample

    with tempfile.TemporaryDirectory() as directory:
        path = write_sample(Path(directory) / "sample.mp4", seconds=2.0)
        return path.name, path.read_bytes()


def fault(response: Any) -> str | None:
    """What is wrong with a 200, or None."""
    try:
        answer = response.json()
        verdict, model = answer["verdict"], answer["model"]["id"]
    except (ValueError, KeyError, TypeError):
        return "the answer lacks verdict or model.id, or is no JSON"
    if verdict not in VERDICTS:
        return f"unknown verdict {verdict!r}"
    return None if model else "the model's id is empty"


class Uploader(HttpUser):
    """Sends the next clip as soon as the last one is answered."""

    wait_time = constant(0)

    @task
    def detect(self) -> None:
        name, content = clip()
        with self.client.post(DETECT, files={"file": (name, content)}, catch_response=True) as response:
            pause = judge(response)
        if pause:
            time.sleep(pause)


def judge(response: Any) -> int:
    """Report a response as answered, turned away or failed; the seconds to wait before the next request."""
    if response.status_code == 200:
        wrong = fault(response)
        response.failure(wrong) if wrong else response.success()
        return 0
    asked = response.headers.get("Retry-After", "") if response.status_code in {429, 503} else ""
    if asked.isdecimal():
        response.request_meta["name"] = SHED
        response.success()
        return int(asked)
    response.failure(f"status {response.status_code}: {response.error or response.text[:200]}")
    return 1


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def prepare(environment: Environment, **_: Any) -> None:
    """Make the clip before the clock runs."""
    name, content = clip()
    log.info("sending %s, %d bytes, to %s", name, len(content), environment.host)


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def conclude(environment: Environment, **_: Any) -> None:
    """Sum up, and choose the exit code."""
    stats = environment.stats
    detect = stats.get(DETECT, "POST")
    answered = detect.num_requests - detect.num_failures
    shed = stats.get(SHED, "POST").num_requests
    log.info("answered %d, turned away %d, failed %d", answered, shed, stats.num_failures)
    environment.process_exit_code = 0 if answered and not stats.num_failures else 1
