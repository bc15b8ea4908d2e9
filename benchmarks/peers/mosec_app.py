"""mosec: stages as its documentation recommends for mixed work, the model's with dynamic batching.

One process a core prepares clips; one process runs the graphs on all cores, over the requests that
have come together.
"""

import os
import sys

from mosec import Server, Worker

from benchmarks.peers.common import Preparer, Scorer, cores, packed, port, unpacked
from pipeline.prepared import PreparedClip

MAX_BATCH, MAX_WAIT_MS = 8, 10


class Prepare(Worker):
    """From a clip's bytes to its samples."""

    def __init__(self) -> None:
        self._preparer = Preparer()

    def deserialize(self, data: bytes) -> bytes:
        """The body is the clip."""
        return data

    def forward(self, data: bytes) -> PreparedClip:
        """Decode, detect, track, cut."""
        return self._preparer.prepare(data)

    def serialize_ipc(self, data: PreparedClip) -> bytes:
        """To the next stage."""
        return packed(data)


class Score(Worker):
    """Both graphs over a batch of clips."""

    def __init__(self) -> None:
        self._scorer = Scorer(threads=0)

    def deserialize_ipc(self, data: bytes) -> PreparedClip:
        """From the stage before."""
        return unpacked(data)

    def forward(self, data: list[PreparedClip]) -> list[str]:
        """An answer to each clip."""
        return self._scorer.score(data)

    def serialize(self, data: str) -> bytes:
        """The JSON as it is."""
        return data.encode()


if __name__ == "__main__":
    sys.argv = [sys.argv[0], "--address", "127.0.0.1", "--port", str(port()), "--timeout", "300000"]
    os.environ.setdefault("MOSEC_LOG_LEVEL", "warning")
    server = Server()
    server.append_worker(Prepare, num=cores())
    server.append_worker(Score, num=1, max_batch_size=MAX_BATCH, max_wait_time=MAX_WAIT_MS)
    server.run()
