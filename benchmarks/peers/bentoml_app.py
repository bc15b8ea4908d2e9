"""BentoML: two services, as its documentation composes work on CPUs with a batched model.

`Detect` has one worker a core and prepares clips; `Model` has one worker, all cores and adaptive
batching. `Alone` is the simpler way, the whole pipeline in one worker a core; both are measured.
"""

import asyncio
from pathlib import Path

import bentoml

from benchmarks.peers.common import Preparer, Scorer, cores, packed, unpacked

MAX_BATCH, MAX_LATENCY_MS = 8, 60_000
SERVED = {"traffic": {"timeout": 300}, "logging": {"access": {"enabled": False}}}


@bentoml.service(workers=1, **SERVED)
class Model:
    """Both graphs over a batch of clips."""

    def __init__(self) -> None:
        self._scorer = Scorer(threads=0)

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=MAX_LATENCY_MS)
    def score(self, clips: list[bytes]) -> list[str]:
        """An answer to each clip."""
        return self._scorer.score([unpacked(c) for c in clips])


@bentoml.service(workers=cores(), **SERVED)
class Detect:
    """Prepares clips and asks the model."""

    model = bentoml.depends(Model)

    def __init__(self) -> None:
        self._preparer = Preparer()
        self._one = asyncio.Semaphore(1)

    @bentoml.api
    async def detect(self, file: Path) -> str:
        """The JSON of the answer. A worker prepares one clip at a time, as those of the other servers do."""
        async with self._one:
            clip = await asyncio.to_thread(lambda: packed(self._preparer.prepare(file.read_bytes())))
        (answer,) = await self.model.to_async.score([clip])
        return str(answer)


@bentoml.service(workers=cores(), **SERVED)
class Alone:
    """The whole pipeline in each worker."""

    def __init__(self) -> None:
        self._preparer, self._scorer = Preparer(), Scorer(threads=1)

    @bentoml.api
    def detect(self, file: Path) -> str:
        """The JSON of the answer."""
        return self._scorer.score([self._preparer.prepare(file.read_bytes())])[0]
