"""The device and its memory, as its driver tells them, and the time from a start of the service to ready."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.gpu.curve import Clip
from pipeline.bundle import Bundle
from pipeline.engine import Engine, Provider

COMMAND = Path(sys.executable).parent / "deepfake-detect"
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Growth:
    """Bytes of device memory: before the graphs, with every shape run once, and at most after all clips."""

    before: int
    warmed: int
    most: int
    clips: int


class NotReady(Exception):
    """The service did not get ready."""


def ask(*names: str) -> list[str]:
    """What the driver says of the first device. Raises OSError or CalledProcessError without one."""
    command = ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits", "--id=0"]
    said = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - no input of anyone's
    return [value.strip() for value in said.stdout.strip().split(",")]


def memory_used() -> int:
    """Bytes taken on the first device, by whomever."""
    return int(ask("memory.used")[0]) * MIB


def memory_growth(
    open_engine: Callable[[], Engine], *, clips: int, used: Callable[[], int] = memory_used
) -> Growth:
    """Device memory over clips of random lengths. Flat when `most` is `warmed`."""
    before = used()
    clip = Clip(open_engine())
    clip.warm()
    warmed = most = used()
    for length in np.random.default_rng(0).integers(1, clip.longest + 1, clips):
        clip.run(int(length))
        most = max(most, used())
    return Growth(before, warmed, most, clips)


def cold_start(bundle: Bundle, provider: Provider) -> float:
    """Seconds from the start of the service, with all bundles beside this one, to ready. Raises NotReady."""
    settings = {
        "PORT": "0",
        "MODELS_DIR": str(bundle.path.resolve().parent),
        "MODEL": bundle.manifest.id,
        "PROVIDER": provider,
        "ALLOW_UNTRAINED": "true",
    }
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DETECTOR_")}
    environment |= {f"DETECTOR_{name}": value for name, value in settings.items()}
    began = time.monotonic()
    server = subprocess.Popen(  # noqa: S603 - our own command
        [COMMAND, "serve"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    try:
        line = server.stdout.readline() if server.stdout is not None else ""
        if not line.startswith("ready:"):
            raise NotReady(f"the service with {bundle.path} on {provider} did not get ready: {line!r}")
        return time.monotonic() - began
    finally:
        server.terminate()
        server.wait()
