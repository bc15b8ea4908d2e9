"""LitServe: one worker a core, each with the whole pipeline.

Its documentation scales a model on one device by `workers_per_device` and batches requests by
`max_batch_size` and `batch_timeout`. A batch is decoded by one worker, one request after the other,
so both ways are measured: BENCH_BATCH is 1 or more.
"""

import os

import litserve as ls
from fastapi import Request, Response

from benchmarks.peers.common import Preparer, Scorer, cores, port
from pipeline.prepared import PreparedClip

BATCH = int(os.environ.get("BENCH_BATCH", "1"))
BATCH_TIMEOUT_S = 0.01


class Detect(ls.LitAPI):
    """The pipeline in LitServe's steps."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        """Load both models, a thread each, since there is a worker for each core."""
        self._preparer, self._scorer = Preparer(), Scorer(threads=1)

    def decode_request(self, request: Request) -> PreparedClip:
        """From the form to samples."""
        content: bytes = request["file"].file.read()
        return self._preparer.prepare(content)

    def batch(self, inputs: list[PreparedClip]) -> list[PreparedClip]:
        """Clips stay a list: their samples are joined where they are encoded."""
        return inputs

    def predict(self, x: PreparedClip | list[PreparedClip]) -> list[str]:
        """Answers to one clip or to a batch."""
        return self._scorer.score(x if isinstance(x, list) else [x])

    def unbatch(self, output: list[str]) -> list[list[str]]:
        """One answer a request."""
        return [[answer] for answer in output]

    def encode_response(self, output: list[str]) -> Response:
        """The JSON as it is."""
        return Response(output[0], media_type="application/json")


if __name__ == "__main__":
    server = ls.LitServer(
        Detect(max_batch_size=BATCH, batch_timeout=BATCH_TIMEOUT_S if BATCH > 1 else 0.0),
        accelerator="cpu",
        workers_per_device=cores(),
        timeout=300,
    )
    server.run(host="127.0.0.1", port=port(), generate_client_file=False, log_level="warning")
