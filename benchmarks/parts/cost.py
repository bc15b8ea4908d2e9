"""What a clip costs in CPU time under load, over its length and the number of faces in it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.bench import Bench, BenchError
from benchmarks.load import PATIENCE_S, Call, closed_loop
from benchmarks.parts.limit import loaded
from benchmarks.servers import detect, service
from pipeline.runtime import usable_cores
from pipeline.sampleclip import write_sample

CLIENTS = 4
ROUNDS, REQUESTS = 3, 16
LOAD_S = 60.0
SHORT_S, LONG_S = 10, 60
FACES, SIDE = 3, 960
"""Of the clip with several faces: its picture is a square of about as many pixels as 1280x720."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One clip, its length and how many faces are to be found in it."""

    path: Path
    seconds: int
    faces: int


def measure(bench: Bench) -> dict[str, Any]:
    """All clips by turns on one service. Raises BenchError when a face is not found."""
    kinds = [
        Kind(bench.clips.clip(SHORT_S), SHORT_S, 1),
        Kind(bench.clips.clip(LONG_S), LONG_S, 1),
        Kind(
            write_sample(bench.folder / "faces.mp4", seconds=SHORT_S, size=SIDE, faces=FACES), SHORT_S, FACES
        ),
    ]
    count = 1 if bench.quick else ROUNDS
    with service(bench) as server:
        calls = [detect(server, kind.path) for kind in kinds]
        found = [_found(kind, call) for kind, call in zip(kinds, calls, strict=True)]
        closed_loop(calls[0], clients=CLIENTS, requests=CLIENTS).check("warming up")
        rounds = [[loaded(server, call, REQUESTS, LOAD_S, CLIENTS) for call in calls] for _ in range(count)]
    clips = [
        facts | {"rounds": list(of_one)}
        for facts, of_one in zip(found, zip(*rounds, strict=True), strict=True)
    ]
    return {"clients": CLIENTS, "cores": usable_cores(), "clips": clips}


def _found(kind: Kind, call: Call) -> dict[str, Any]:
    answer = httpx.post(
        call.url, content=call.body, headers=call.headers, timeout=PATIENCE_S, trust_env=False
    )
    said = answer.raise_for_status().json()
    media = said["media"]
    if len(said["faces"]) != kind.faces:
        raise BenchError(f"{len(said['faces'])} of {kind.faces} faces were found in {kind.path.name}")
    about = {name: media[name] for name in ("width", "height", "bytes", "frames_decoded", "frames_used")}
    return {"seconds": kind.seconds, "faces": kind.faces, **about}
