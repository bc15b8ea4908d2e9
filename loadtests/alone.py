"""How long clips take when nothing else is asked: what the times under load are held against."""

import logging
import time
from collections.abc import Sequence

import numpy as np
import requests

from loadtests import uploads
from loadtests.judging import Outcome, judge
from loadtests.uploads import PLAIN, Upload
from loadtests.users import DETECT, TIMEOUT_S, key_headers

TIMES = 5
"""Of each kind; the first one meets a service that has just started and does not count."""

log = logging.getLogger("loadtests")


def measured_alone(host: str, kinds: Sequence[str]) -> dict[str, float]:
    """Median seconds of each kind of clip; empty when any of them was not answered."""
    with requests.Session() as session:
        session.trust_env = False
        session.headers.update(key_headers())
        found = {}
        for kind in kinds:
            upload = uploads.plain() if kind == PLAIN else uploads.sized(kind)
            times = [_seconds(session, host, upload) for _ in range(TIMES)]
            if None in times:
                return {}
            found[kind] = float(np.median([t for t in times[1:] if t is not None]))
    return found


def _seconds(session: requests.Session, host: str, upload: Upload) -> float | None:
    assert isinstance(upload.body, bytes)
    begun = time.perf_counter()
    try:
        answer = session.post(
            host.rstrip("/") + DETECT,
            data=upload.body,
            headers={"Content-Type": upload.content_type},
            timeout=TIMEOUT_S,
        )
    except requests.RequestException as e:
        log.warning("a clip alone was not answered: %s", e)
        return None
    judged = judge(answer, upload.wanted)
    if judged.outcome is not Outcome.answered:
        log.warning("a clip alone was not answered: %s %s", judged.outcome, judged.why)
        return None
    return time.perf_counter() - begun
