"""The self-test: each bundle judges the golden clip before the service is ready, and again now and then.

The clip goes the way of all others, through a decoder process and both batchers. A probability that is not
the one which the bundle's manifest knows means that answers can not be trusted: no work is taken on then.
"""

import asyncio
import logging

from pipeline.bundle import sha256
from pipeline.errors import BundleCorrupt, MediaError, PictureTooLarge
from pipeline.golden import GOLDEN, TOLERANCE, expected
from service.judge import Judge, Question
from service.models import Served
from service.problems import ServiceError
from service.state import Service
from service.upload import Upload

PATIENCE_S = 60.0
"""For one bundle. At the start the machine may be busy with the start of other replicas."""

log = logging.getLogger(__name__)


class Canary:
    """Tests the bundles of a service that has been started."""

    def __init__(self, service: Service) -> None:
        self._service = service
        digest = bytes.fromhex(sha256(GOLDEN).removeprefix("sha256:"))
        self._upload = Upload(GOLDEN, GOLDEN.stat().st_size, digest)
        self._doubts: dict[str, str] = {}

    async def first(self) -> None:
        """Test every bundle once. Raises BundleCorrupt when one does not answer what it should."""
        for model in self._service.models.values():
            try:
                wrong = await self._wrong(model)
            except PictureTooLarge as e:  # for this service's limits, which is nothing wrong
                log.warning("there is no self-test", extra={"why": str(e)})
                continue
            except (ServiceError, MediaError) as e:
                wrong = f"the golden clip is not answered: {e}"
            if wrong is not None:
                raise BundleCorrupt(f"{model.bundle.path}: {wrong}")

    async def watch(self, every_s: float) -> None:
        """Test all bundles every so many seconds, for ever; readiness follows what comes of it."""
        while True:
            await asyncio.sleep(every_s)
            await self.again()

    async def again(self) -> None:
        """Test all bundles. One that does not answer in time is thought of as before: that happens to
        clips under load, and says nothing of what is answered."""
        for name, model in self._service.models.items():
            try:
                wrong = await self._wrong(model)
            except (ServiceError, MediaError) as e:
                log.warning("the golden clip is not answered", extra={"bundle": name, "why": str(e)})
                self._service.metrics.canary_runs.labels(name, "unanswered").inc()
                continue
            except Exception:  # whatever it was, the next test is to come
                log.exception("the self-test breaks off", extra={"bundle": name})
                self._service.metrics.canary_runs.labels(name, "unanswered").inc()
                continue
            if wrong is None:
                self._doubts.pop(name, None)
            else:
                log.error("the self-test fails", extra={"bundle": name, "why": wrong})
                self._doubts[name] = f"the self-test of {name} fails"
        self._service.doubt = next(iter(self._doubts.values()), None)

    async def _wrong(self, model: Served) -> str | None:
        """What is wrong with a bundle's answer. Raises ServiceError or MediaError when there is none."""
        metrics, name = self._service.metrics, model.bundle.manifest.id
        begun = asyncio.get_running_loop().time()
        question = Question(
            model,
            max_faces=1,
            explain=False,
            timeline=False,
            begun=begun,
            deadline=begun + PATIENCE_S,
            partial=False,
            counted=False,
        )
        answer = await Judge(self._service, self._upload, question).answer()
        # The answer is known for the embedded face detector alone: another one cuts other pixels.
        embedded = self._service.settings.face_detector == "yunet" and not self._service.settings.face_model
        known = expected(model.bundle.manifest) if embedded else None
        if known is None:
            metrics.canary_runs.labels(name, "unknown").inc()
            return None
        found = answer.probabilities.fake if answer.probabilities is not None else None
        if found is not None:
            metrics.canary_score.labels(name).set(found)
            metrics.canary_expected.labels(name).set(known)
        if found is None or abs(found - known) > TOLERANCE:
            metrics.canary_runs.labels(name, "wrong").inc()
            said = "no probability" if found is None else f"{found:.4f}"
            return f"the golden clip is answered with {said} instead of {known:.4f}"
        metrics.canary_runs.labels(name, "right").inc()
        return None
