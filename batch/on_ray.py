"""A plan scored by Ray Data: a pool of actors, each with a loaded bundle, to which parts are dealt.

An actor that dies is started again and given its part anew; the part that it writes is the same.
"""

import json
import logging
import os
import re
import secrets
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import astuple
from pathlib import Path
from typing import Any

from batch.clips import Clip
from batch.errors import Interrupted
from batch.parts import Plan, score_part
from batch.scorer import Scorer, Work

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_LOG_LEVEL": "CRITICAL",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
"""Ray reads these when it is imported. It reports its use to its makers unless it is told not to."""
STORE_BYTES = 100 * 1024 * 1024
"""For what actors are sent and send: paths and counts. Ray takes no less than 75 MiB."""


class PartScorer:
    """An actor. It writes parts itself and says only what came of them: no answer goes through Ray."""

    def __init__(self, work: Work, out: Path) -> None:
        self._scorer, self._out = Scorer(work), out

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """A part to its outcomes."""
        clips = [Clip(*fields) for fields in json.loads(row["clips"])]
        return {"outcomes": json.dumps(score_part(self._scorer, self._out, clips))}


def score_on_ray(plan: Plan, workers: int, address: str | None = None) -> "Iterator[Counter[str]]":
    """Score a plan by `workers` actors of one core each, here or on the cluster at `address`.

    Nodes of a cluster have this package and the bundle, and see clips and results at the same paths. Raises
    Interrupted.
    """
    os.environ.update(QUIET)
    if address is None:
        # Ray listens on all interfaces; a token of this run alone keeps others out.
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    import ray
    from ray.data import ActorPoolStrategy, DataContext, from_items

    # What Ray says of actors that died is no part of what a run prints.
    with redirect_stdout(sys.stderr), _connected(ray, workers, address):
        DataContext.get_current().enable_progress_bars = False
        # Paths may hold bytes that are no text, which Arrow does not take: they travel as ASCII.
        rows = [{"clips": json.dumps([astuple(clip) for clip in part])} for part in plan.parts]
        outcomes = from_items(rows, override_num_blocks=len(rows)).map(
            PartScorer,
            fn_constructor_args=(plan.work, plan.out),
            compute=ActorPoolStrategy(size=min(workers, len(rows)), max_tasks_in_flight_per_actor=1),
            num_cpus=1,
        )
        try:
            for row in outcomes.iter_rows():
                yield Counter(json.loads(row["outcomes"]))
        except ray.exceptions.RayError as e:
            # The last line of a remote traceback is the error, behind the name of its class.
            raise Interrupted(re.sub(r"^[\w.]+: ", "", str(e).strip().splitlines()[-1])) from e


@contextmanager
def _connected(ray: Any, workers: int, address: str | None) -> Iterator[None]:
    """The cluster given, or one of this machine, which is gone in the end."""
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is not None:
        ray.init(address=address, **quiet)
        try:
            yield
        finally:
            ray.shutdown()
        return
    # Short, since Ray puts sockets below it, whose paths may have 107 bytes. Ray opens its own folder to all.
    folder = tempfile.mkdtemp(prefix="dd-ray-", dir="/tmp")
    try:
        ray.init(
            address="local",
            num_cpus=workers,
            num_gpus=0,
            include_dashboard=False,
            object_store_memory=STORE_BYTES,
            _node_ip_address="127.0.0.1",
            _temp_dir=f"{folder}/ray",
            **quiet,
        )
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
