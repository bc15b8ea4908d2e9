"""Clients of every kind. Each waits as it is asked to and gives a clip up after some attempts."""

import os
import time
from random import Random
from typing import Any

from locust import HttpUser, constant, task
from locust.exception import StopUser

from loadtests import uploads
from loadtests.judging import Judgement, Outcome, judge
from loadtests.patience import ATTEMPTS, UNASKED_S, pause_s
from loadtests.uploads import PLAIN, Upload

DETECT = "/v1/detect"
SHED = f"{DETECT} (turned away)"
KEY = "DETECTOR_LOAD_API_KEY"
KEY_HEADER = "X-API-Key"
BETWEEN_S = 0.25
"""Between two bad uploads of one client: most are refused within milliseconds."""
TIMEOUT_S = (10, 300)
"""To connect, and between two pieces of an answer."""


def key_headers() -> dict[str, str]:
    """The key of DETECTOR_LOAD_API_KEY as a header, if there is one."""
    return {KEY_HEADER: key} if (key := os.environ.get(KEY)) else {}


class Client(HttpUser):
    """Sends the next upload as soon as the last one is done with."""

    abstract = True
    wait_time = constant(0)

    @classmethod
    def prepare(cls) -> None:
        """Make what will be sent."""
        uploads.plain()

    def on_start(self) -> None:
        """Neither a proxy nor a password of this machine is to come between."""
        self.client.trust_env = False
        self.client.headers.update(key_headers())
        self.draw = Random()

    @task
    def detect(self) -> None:
        """Bring one upload to its end."""
        upload = self.next_upload()
        for attempt in range(1, ATTEMPTS + 1):
            judged = self.send(upload, attempt)
            if judged.outcome is not Outcome.away:
                break
            time.sleep(pause_s(judged.retry_after_s, self.draw))
        if judged.outcome is Outcome.failed:
            time.sleep(UNASKED_S)
        self.delivered()

    def next_upload(self) -> Upload:
        """What is sent next."""
        return uploads.plain()

    def delivered(self) -> None:
        """What comes after an upload that was done with."""

    def send(self, upload: Upload, attempt: int) -> Judgement:
        """Send it once, and report what came of it."""
        body = upload.body if isinstance(upload.body, bytes) else upload.body()
        about: dict[str, Any] = {"kind": upload.kind, "wanted": upload.wanted, "attempt": attempt}
        with self.client.post(
            DETECT,
            data=body,
            headers={"Content-Type": upload.content_type},
            name=DETECT if upload.kind == PLAIN else f"{DETECT} ({upload.kind})",
            catch_response=True,
            context=about,
            timeout=TIMEOUT_S,
        ) as response:
            judged = judge(response, upload.wanted)
            about |= {"outcome": judged.outcome, "why": judged.why, "status": response.status_code}
            response.request_meta["context"] = about
            if judged.outcome is Outcome.away:
                response.request_meta["name"] = SHED
            response.failure(judged.why) if judged.outcome is Outcome.failed else response.success()
        return judged


class Uploader(Client):
    """The plain clip, again and again."""


class Once(Client):
    """One clip; then the client leaves."""

    def delivered(self) -> None:
        """Leave."""
        raise StopUser


class Mixed(Client):
    """Clips of all sizes, one size as often as another."""

    @classmethod
    def prepare(cls) -> None:
        """Make what will be sent."""
        for size in uploads.SIZES:
            uploads.sized(size)

    def next_upload(self) -> Upload:
        """One of the sizes."""
        return uploads.sized(self.draw.choice(list(uploads.SIZES)))


class Hostile(Client):
    """What should be refused."""

    wait_time = constant(BETWEEN_S)

    @classmethod
    def prepare(cls) -> None:
        """Make what will be sent."""
        uploads.refused()

    def next_upload(self) -> Upload:
        """One of them."""
        return uploads.hostile(self.draw)


class Slow(Client):
    """The plain clip over a slow line."""

    def next_upload(self) -> Upload:
        """It trickles."""
        return uploads.trickled()


USERS: dict[str, type[Client]] = {c.__name__: c for c in (Uploader, Once, Mixed, Hostile, Slow)}
