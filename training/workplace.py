"""A preparation's directory: held by one run at a time, claimed by a plan, cleared of half-written files."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import DetectError
from training.shards import write_json

PLAN = "plan.json"


class PrepareError(DetectError):
    """The directory, the options or the clips do not allow a preparation."""


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other runs away from the directory; the kernel lets go of it when this process dies.

    Raises PrepareError when there is another.
    """
    out.mkdir(parents=True, exist_ok=True)
    handle = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        os.close(handle)
        raise PrepareError(f"another run is preparing {out}") from e
    try:
        yield
    finally:
        os.close(handle)


def agree(out: Path, described: dict[str, Any]) -> None:
    """Write the plan, or check that the one that is there is the same. Raises PrepareError."""
    at = out / PLAN
    if not at.exists():
        if any(not p.match(f"{PLAN}.*.part") for p in out.iterdir()):
            raise PrepareError(f"{out} is not empty and holds no preparation: give another directory")
        write_json(at, described)
        return
    there = json.loads(at.read_text(encoding="utf-8"))
    if changed := sorted(k for k in {*there, *described} if there.get(k) != described.get(k)):
        raise PrepareError(
            f"{out} holds a preparation with other {', '.join(changed)}: "
            "give another directory or the same options"
        )


def sweep(out: Path) -> None:
    """Delete what was half written by processes that were killed."""
    for part in list(out.rglob("*.part")):
        if part.is_file():
            part.unlink(missing_ok=True)
