"""Measures a bundle on a CUDA device and writes JSON and Markdown."""

import importlib.util
import json
import platform
import sys
from dataclasses import asdict, replace
from importlib.metadata import distributions
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import onnxruntime as ort
import typer

from benchmarks.clips import Clips
from benchmarks.gpu.curve import Point, batch_curve, clip_seconds
from benchmarks.gpu.device import ask, cold_start, memory_growth
from benchmarks.gpu.report import Result, markdown
from benchmarks.gpu.service import Service, clips_a_second
from export.agreement import answers, difference
from pipeline.bundle import Bundle, open_bundle
from pipeline.engine import Engine
from pipeline.errors import BundleError
from pipeline.runtime import usable_cores
from service.graphs import longest_sequence
from training.provenance import revision

NO_DEVICE = 3
LIBRARIES = ("nvidia-cublas", "nvidia-cudnn")
BURSTS = (1, 2, 4, 8, 16, 32)
"""Batch sizes in bursts; a single sample is measured too."""


def main(
    bundle: Annotated[Path, typer.Argument(help="Directory of a bundle, trained or not.")],
    *,
    out: Annotated[Path, typer.Option(help="Directory for NAME.json and NAME.md.")] = Path("gpu-results"),
    repeats: Annotated[int, typer.Option(min=3, help="Runs of each measurement.")] = 30,
    clips: Annotated[int, typer.Option(min=1, help="Clips over which device memory is watched.")] = 300,
    cold_starts: Annotated[int, typer.Option(min=1, help="Starts of the service on each provider.")] = 3,
    load_s: Annotated[
        float,
        typer.Option(min=20, help="Seconds of load on the service at most, for each number of clients."),
    ] = 60.0,
    compiled: Annotated[
        bool, typer.Option(help="Compare with torch.compile, which takes minutes to compile.")
    ] = True,
) -> None:
    """Measure a bundle on a CUDA device: speed, parity, a clip, the service, cold start, memory."""
    try:
        opened = open_bundle(bundle, allow_untrained=True)
    except BundleError as e:
        sys.stderr.write(f"benchmarks.gpu: {e}\n")
        raise typer.Exit(1) from e
    try:
        Engine(opened, provider="require")
    except BundleError as e:
        sys.stderr.write(f"benchmarks.gpu needs a CUDA device and onnxruntime-gpu: {e}\n")
        raise typer.Exit(NO_DEVICE) from e
    result = measure(opened, repeats=repeats, clips=clips, cold_starts=cold_starts, compiled=compiled)
    # What stands so far is kept: a load may fail.
    _write(result, out)
    result = replace(result, service=_service(opened, load_s))
    _write(result, out)
    sys.stdout.write(markdown(result))


def _write(result: Result, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    as_json = json.dumps(asdict(result), indent=1)
    (out / f"{result.bundle}.json").write_text(as_json + "\n", encoding="utf-8")
    (out / f"{result.bundle}.md").write_text(markdown(result), encoding="utf-8")


def measure(bundle: Bundle, *, repeats: int, clips: int, cold_starts: int, compiled: bool) -> Result:
    """All but the service; memory first, while the device is empty."""
    memory = memory_growth(lambda: Engine(bundle, provider="require"), clips=clips)
    engines = {
        "ONNX Runtime CUDA, fp32": Engine(bundle, provider="require"),
        "ONNX Runtime CUDA, TF32": Engine(bundle, provider="require", tf32=True),
    }
    curves = {name: _curve(engine, repeats) for name, engine in engines.items()}
    cpu = Engine(bundle, provider="cpu")
    reference = answers(cpu)
    peers, limits = _peers(bundle, repeats, compiled=compiled)
    exact = engines["ONNX Runtime CUDA, fp32"]
    return Result(
        bundle=bundle.manifest.id,
        machine=machine(),
        clip_samples=longest_sequence(bundle.manifest),
        curves=curves | peers,
        parity={name: difference(reference, answers(engine)) for name, engine in engines.items()},
        clip={
            "CUDA": clip_seconds(exact, repeats=repeats),
            f"CPU, {cpu.threads} threads": clip_seconds(cpu, repeats=3),
        },
        cold={
            "CUDA": [cold_start(bundle, "require") for _ in range(cold_starts)],
            "CPU": [cold_start(bundle, "cpu") for _ in range(cold_starts)],
        },
        memory=memory,
        limits=limits,
        facts={
            "bundle digest": bundle.digest,
            "weights stored in": bundle.manifest.precision,
            "code": revision(),
            "repeats": f"{repeats}, of the clip on the CPU 3",
        },
    )


def _service(bundle: Bundle, load_s: float) -> dict[str, Service]:
    with TemporaryDirectory() as folder:
        clip = Clips(Path(folder)).clip()
        return clips_a_second(bundle, clip, {"CUDA": "require", "CPU": "cpu"}, seconds=load_s)


def machine() -> dict[str, str]:
    """The device and the versions of what runs on it."""
    name, driver, total = ask("name", "driver_version", "memory.total")
    return {
        "device": name,
        "device memory": f"{total} MiB",
        "driver": driver,
        "onnxruntime": ort.__version__,
        "torch": _torch_version(),
        "CUDA libraries": _libraries(),
        "python": platform.python_version(),
        "host": f"{platform.machine()}, {usable_cores()} cores",
    }


def sizes(bundle: Bundle) -> list[int]:
    """Batch sizes to measure: one sample, and whole bursts up to more than any batch that is run."""
    burst = max(bundle.manifest.crop.samples_per_burst, 8)
    return [1, *(n * burst for n in BURSTS)]


def _shape(bundle: Bundle) -> tuple[int, ...]:
    crop = bundle.manifest.crop
    return (crop.frames, crop.side, crop.side, 3)


def _curve(engine: Engine, repeats: int) -> list[Point]:
    return batch_curve(engine.encode, _shape(engine.bundle), sizes(engine.bundle), repeats=repeats)


def _peers(
    bundle: Bundle, repeats: int, *, compiled: bool
) -> tuple[dict[str, list[Point]], dict[str, float]]:
    """Curves of PyTorch and limits in samples a second; nothing where there is no torch for the device."""
    if importlib.util.find_spec("torch") is None:
        return {}, {}
    import torch

    from benchmarks.gpu.peers import encoder, flops, network_of, peak

    if not torch.cuda.is_available():
        return {}, {}
    network = network_of(bundle.manifest)
    each = flops(network)
    ways = {
        "PyTorch eager, fp32": encoder(network, "cuda", bf16=False, compiled=False),
        "PyTorch eager, bf16": encoder(network, "cuda", bf16=True, compiled=False),
    }
    if compiled:
        ways["torch.compile, bf16"] = encoder(network, "cuda", bf16=True, compiled=True)
    curves = {
        name: batch_curve(way, _shape(bundle), sizes(bundle), repeats=repeats) for name, way in ways.items()
    }
    return curves, {name: peak("cuda", bf16=bf16) / each for name, bf16 in (("fp32", False), ("bf16", True))}


def _libraries() -> str:
    """Versions of the packages that hold them; nothing of what the system may have."""
    installed = {d.name: d.version for d in distributions() if d.name.startswith(LIBRARIES)}
    return ", ".join(f"{name} {number}" for name, number in sorted(installed.items())) or "not packages"


def _torch_version() -> str:
    if importlib.util.find_spec("torch") is None:
        return "none"
    import torch

    return torch.__version__


if __name__ == "__main__":
    typer.run(main)
