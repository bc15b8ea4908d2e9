"""CPU seconds of one clip: this project's service, and the common way of the paper's public ancestor."""

import json
import os
import subprocess
import sys
from typing import Any

from benchmarks.bench import ROOT, Bench, BenchError
from benchmarks.load import closed_loop
from benchmarks.processes import cpu_seconds
from benchmarks.servers import clean, detect, service

LONGEST_S = 600.0


def measure(bench: Bench) -> dict[str, Any]:
    """The same clip both ways; the ancestor once, since it takes minutes."""
    if not (bench.dlib / "dlib").is_dir():
        raise BenchError(f"dlib is not installed in {bench.dlib.name}: make bench")
    clip = bench.clips.clip()
    with service(bench) as server:
        call = detect(server, clip)
        closed_loop(call, clients=1, requests=2).check("warming up")
        own = []
        for _ in range(bench.counts.rounds):
            before = cpu_seconds(server.pid)
            closed_loop(call, clients=1, requests=bench.counts.idle).check("own")
            own.append((cpu_seconds(server.pid) - before) / bench.counts.idle)
    command = [sys.executable, "-m", "benchmarks.ancestor", str(clip), str(bench.counts.ancestor_frames)]
    environment = clean() | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(bench.dlib)])}
    try:
        found = subprocess.run(  # noqa: S603 - a module of this package
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=LONGEST_S
        )
    except subprocess.CalledProcessError as e:
        raise BenchError(f"the ancestor failed: {(e.stderr.splitlines() or ['it said nothing'])[-1]}") from e
    except subprocess.TimeoutExpired as e:
        raise BenchError(f"the ancestor takes longer than {LONGEST_S:g} s") from e
    return {
        "own_cpu_s": own,
        "wanted_faces": bench.counts.ancestor_frames,
        "ancestor": json.loads(found.stdout),
    }
