"""What every part of the benchmark is given: the bundle, the clips, the cores and how often to measure."""

import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.clips import Clips
from benchmarks.processes import parse_memory
from pipeline.bundle import Bundle, default_bundle, default_models, open_bundle
from pipeline.detect import FaceDetector
from pipeline.engine import Engine
from pipeline.media import Limits
from pipeline.prepare import prepare
from pipeline.prepared import PreparedClip
from pipeline.runtime import usable_cores

ROOT = Path(__file__).resolve().parents[1]
CLIENTS = 8
MAX_FACES = 8
MEASURED = ("av", "httpx", "numpy", "onnxruntime", "opencv-python-headless", "uvicorn")


class BenchError(Exception):
    """A part can not be measured here. The message is one line."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How often and how long. Every loop of the benchmark ends after one of these.

    rounds: of alternating floor and service; peer_rounds: of alternating servers; repeats: of one stage
    or one clip alone; idle: requests one at a time; load, load_s: requests of all clients in one round, and
    seconds after which none is begun; lengths_s, heights: of the growing clips; ancestor_frames:
    with a face; sparse_clips: compared at most.
    """

    rounds: int
    peer_rounds: int
    repeats: int
    idle: int
    load: int
    load_s: float
    lengths_s: tuple[int, ...]
    heights: tuple[int, ...]
    ancestor_frames: int
    sparse_clips: int


FULL = Counts(5, 3, 5, 10, 80, 40.0, (5, 30, 120, 600), (360, 480, 720, 1080, 2160), 150, 120)
QUICK = Counts(2, 1, 2, 3, 24, 60.0, (5, 30, 120), (360, 720), 10, 6)


@dataclass(frozen=True, slots=True)
class Bench:
    """One run of the benchmark.

    corpus: a CSV with a column `file`, for the part that wants many clips; quick: whether the counts
    are too small for figures that mean anything.
    """

    bundle: Bundle
    clips: Clips
    folder: Path
    counts: Counts
    corpus: Path | None = None
    quick: bool = False
    peers_python: Path = ROOT / ".venv-peers/bin/python"
    dlib: Path = ROOT / ".venv-dlib"

    def engine(self, threads: int) -> Engine:
        """Both graphs on the CPU."""
        return Engine(self.bundle, provider="cpu", threads=threads)

    def facts(self) -> dict[str, Any]:
        """What was measured, with what and where, for every file of results."""
        return {
            "bundle": {
                "id": self.bundle.manifest.id,
                "digest": self.bundle.digest,
                "precision": self.bundle.manifest.precision,
                "trained": self.bundle.manifest.trained,
            },
            "machine": machine(),
            "versions": {"python": platform.python_version()} | {name: version(name) for name in MEASURED},
            "quick": self.quick,
            "counts": asdict(self.counts),
        }


def open_model(wanted: str | None) -> Bundle:
    """A bundle by its directory, or by its name among the embedded ones; the default one without."""
    at = Path(wanted) if wanted and Path(wanted).is_dir() else default_bundle(default_models(), wanted)
    return open_bundle(at.resolve(), allow_untrained=True)


def machine() -> dict[str, Any]:
    """The processor, the cores and the memory that this process may use."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8").splitlines()
        cpu = next(
            (v.strip() for n, _, v in (x.partition(":") for x in lines) if n.strip() == "model name"), cpu
        )
    memory = parse_memory(Path("/proc/meminfo").read_text(encoding="ascii"), "MemTotal")
    return {
        "cpu": cpu,
        "cores": usable_cores(),
        "memory_gib": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def prepared(
    bundle: Bundle, path: Path, detector: FaceDetector, limits: Limits | None = None
) -> PreparedClip:
    """A clip as the service prepares it for a bundle; within the service's default limits without any."""
    sampling, crop = bundle.manifest.sampling, bundle.manifest.crop
    limits = limits or Limits()
    return prepare(path, crop=crop, sampling=sampling, detector=detector, limits=limits, max_faces=MAX_FACES)
