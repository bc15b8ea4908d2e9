"""What is measured on a CUDA device, tried on the CPU: counts, refusal and report."""

import itertools
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import typer

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import page, peers
from benchmarks.gpu import service as served
from benchmarks.gpu.curve import Clip, Point, Seconds, batch_curve, clip_seconds, seconds
from benchmarks.gpu.device import MIB, Growth, NotReady, cold_start, memory_growth
from benchmarks.gpu.report import PARITY_LIMIT, Result, markdown
from benchmarks.gpu.service import Served, Service, clips_a_second
from pipeline.bundle import Manifest, open_bundle
from pipeline.engine import Engine
from pipeline.sampleclip import write_sample
from tests.bundles import tiny_bundle
from training.model import native_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    return open_bundle(tiny_bundle(path, kind="native", side=16, frames=3, grid=3, bursts=8))


@pytest.fixture
def engine(bundle):
    return Engine(bundle, threads=1)


def ticks(*spans):
    """A clock that lets the given seconds pass between each two readings."""
    readings = itertools.accumulate(x for span in spans for x in (1.0, span))
    return lambda: next(readings)


def test_the_first_two_runs_are_not_timed():
    runs = []
    taken = seconds(lambda: runs.append(1), repeats=3, clock=ticks(4, 1, 2))
    assert len(runs) == 5
    assert taken == Seconds(median=2, least=1, most=4)


def test_a_curve_gives_samples_a_second_of_each_size():
    shapes = []
    points = batch_curve(
        lambda samples: shapes.append((samples.shape, samples.dtype)),
        (3, 8, 8, 3),
        [1, 10],
        repeats=2,
        clock=ticks(1, 1, 2, 5),
    )
    assert [s for s, _ in shapes] == [(1, 3, 8, 8, 3)] * 4 + [(10, 3, 8, 8, 3)] * 4
    assert {d for _, d in shapes} == {np.dtype(np.uint8)}
    assert points == [Point(1, 1, 1, 1), Point(10, median=10 / 3.5, least=2, most=5)]


def test_a_clip_is_run_as_the_service_runs_it(engine, monkeypatch):
    encoded, judged = [], []
    encode, judge = engine.encode, engine.temporal
    monkeypatch.setattr(engine, "encode", lambda s: encoded.append(len(s)) or encode(s))
    monkeypatch.setattr(engine, "temporal", lambda f, n: judged.append(f.shape[:2]) or judge(f, n))
    clip = Clip(engine)
    clip.run(clip.longest)
    assert encoded == [18, 18, 18, 18]
    assert judged == [(1, 72)]
    assert clip_seconds(engine, repeats=2, clock=ticks(3, 3)).median == 3


def test_memory_is_read_before_after_warming_and_after_each_clip(engine):
    readings = iter([100, 500, 500, 700, 600])
    grown = memory_growth(lambda: engine, clips=3, used=lambda: next(readings) * MIB)
    assert grown == Growth(before=100 * MIB, warmed=500 * MIB, most=700 * MIB, clips=3)


def test_a_cold_start_ends_when_the_service_is_ready(bundle):
    assert cold_start(bundle, "cpu") > 0


def test_a_service_that_does_not_start_is_no_measurement(bundle, monkeypatch):
    monkeypatch.setattr("benchmarks.gpu.device.COMMAND", "false")
    with pytest.raises(NotReady):
        cold_start(bundle, "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
@pytest.mark.parametrize(("name", "code", "why"), [("tiny", 3, "CUDA is required"), ("none", 1, "no bundle")])
def test_a_machine_without_a_device_is_told_so_in_one_line(bundle, tmp_path, name, code, why):
    command = [sys.executable, "-m", "benchmarks.gpu", bundle.path.parent / name, "--out", tmp_path / "out"]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert why in line
    assert not (tmp_path / "out").exists()


def test_a_service_is_loaded_by_each_number_of_clients(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(served, "CLIENTS", (1, 2))
    monkeypatch.setattr(served, "LEAST_REQUESTS", 14)
    clip = write_sample(tmp_path / "clip.mp4", seconds=3, size=320)
    found = clips_a_second(bundle, clip, {"here": "cpu"}, seconds=60)["here"]
    assert found.probability is None or 0 < found.probability < 1
    assert [s.clients for s in found.served] == [1, 2]
    assert all(s.rate > 0 and s.latency.least <= s.latency.median <= s.latency.most for s in found.served)


RESULT = Result(
    bundle="tiny",
    machine={"device": "a card", "driver": "1"},
    clip_samples=72,
    curves={"ours": [Point(9, 2000.4, 1900, 2100)], "theirs": [Point(1, 10, 9, 11), Point(9, 90, 80, 99)]},
    parity={"ours": 1.5e-4, "coarse": 3e-3},
    clip={"CUDA": Seconds(0.01, 0.009, 0.02)},
    cold={"CUDA": [4.04, 5.0]},
    memory=Growth(100 * MIB, 900 * MIB, 901 * MIB, 300),
    limits={"fp32": 12345.6},
    service={"CUDA": Service(0.43216, [Served(8, 12.345, Seconds(0.5, 0.4, 0.75))])},
)


def test_the_report_shows_each_figure():
    shown = markdown(RESULT)
    for row in (
        "# tiny on a card",
        "| batch | 1 | 9 |",
        "| ours |  | 2000 (1900 to 2100) |",
        "| theirs | 10 (9 to 11) | 90 (80 to 99) |",
        "| fp32 | 12346 |",
        "| ours | 1.5e-04 | yes |",
        "| coarse | 3.0e-03 | **no** |",
        "| CUDA | 10.0 | 9.0 | 20.0 |",
        "| CUDA | 4.0, 5.0 |",
        "| CUDA | 0.4322 | 8 | 12.35 | 0.50 | 0.40 | 0.75 |",
        "| 100 MiB | 900 MiB | 901 MiB | 1 MiB |",
    ):
        assert row in shown.splitlines(), row


def test_what_was_not_tried_has_no_table():
    shown = markdown(replace(RESULT, service={}, cold={"CUDA": []}, memory=None))
    assert "## One clip" in shown
    assert not any(title in shown for title in ("Cold start", "The service", "Device memory"))


def test_json_and_markdown_are_written_before_the_service_is_loaded_and_after(
    bundle, tmp_path, monkeypatch, capsys
):
    at = tmp_path / "out" / "tiny.json"

    def loaded(bundle, clip, providers, *, seconds):
        assert json.loads(at.read_text())["service"] == {}
        return RESULT.service

    monkeypatch.setattr(gpu, "Engine", lambda opened, *, provider: None)
    monkeypatch.setattr(gpu, "measure", lambda opened, **given: replace(RESULT, service={}))
    monkeypatch.setattr(gpu, "Clips", lambda folder: SimpleNamespace(clip=lambda: folder / "clip.mp4"))
    monkeypatch.setattr(gpu, "clips_a_second", loaded)
    gpu.main(bundle.path, out=tmp_path / "out", repeats=3, clips=1, cold_starts=1)
    assert at.with_suffix(".md").read_text() == markdown(RESULT) == capsys.readouterr().out
    assert json.loads(at.read_text())["parity"]["ours"] == 1.5e-4


def test_the_page_is_what_was_measured():
    results = page.read(ROOT / "docs")
    assert [r.bundle for r in results] == ["native-lstm-2", "resnext50-lstm-1"]
    assert (ROOT / "docs" / "cuda.md").read_text() == page.render(results)
    assert max(r.parity["ONNX Runtime CUDA, fp32"] for r in results) < PARITY_LIMIT


def test_the_page_is_written_beside_what_was_measured(tmp_path):
    kept = tmp_path / "docs" / page.RESULTS
    kept.mkdir(parents=True)
    shutil.copy(ROOT / "docs" / page.RESULTS / "native-lstm-2.json", kept)
    command = [sys.executable, "-m", "benchmarks.gpu.page", "--docs", str(tmp_path / "docs")]
    subprocess.run(command, cwd=ROOT, check=True)
    written = (tmp_path / "docs" / "cuda.md").read_text()
    assert written == page.render(page.read(tmp_path / "docs"))
    assert "native-lstm-2" in written
    assert "resnext50-lstm-1" not in written


def test_everything_is_measured_on_the_device_and_compared_with_the_cpu(bundle, monkeypatch):
    """The whole course, with the CPU in the place of the device."""
    opened = []

    def engine(bundle, **named):
        opened.append(named)
        return Engine(bundle, threads=1)

    used = iter(range(100))
    monkeypatch.setattr(gpu, "Engine", engine)
    monkeypatch.setattr(gpu, "machine", lambda: {"device": "none"})
    monkeypatch.setattr(gpu, "cold_start", lambda bundle, provider: 1.0 if provider == "require" else 2.0)
    monkeypatch.setattr(
        gpu,
        "memory_growth",
        lambda open_engine, *, clips: memory_growth(open_engine, clips=clips, used=used.__next__),
    )
    result = gpu.measure(bundle, repeats=1, clips=2, cold_starts=2, compiled=False)
    assert opened == [
        {"provider": "require"},
        {"provider": "require"},
        {"provider": "require", "tf32": True},
        {"provider": "cpu"},
    ]
    assert result.cold == {"CUDA": [1.0, 1.0], "CPU": [2.0, 2.0]}
    assert result.parity == {"ONNX Runtime CUDA, fp32": 0, "ONNX Runtime CUDA, TF32": 0}
    assert [p.batch for p in result.curves["ONNX Runtime CUDA, fp32"]] == [1, 9, 18, 36, 72, 144, 288]
    assert (result.memory.before, result.memory.most) == (0, 3)
    assert "CUDA" in markdown(result)


def test_a_bundle_that_can_not_be_read_ends_at_once(tmp_path):
    with pytest.raises(typer.Exit) as ended:
        gpu.main(tmp_path, out=tmp_path / "out", repeats=3, clips=1, cold_starts=1)
    assert ended.value.exit_code == 1


@pytest.fixture(scope="module")
def network():
    config = native_config()
    manifest = json.loads((ROOT / "models" / "native-lstm-2" / "manifest.json").read_text())
    manifest["architecture"] |= {"width": 8, "members": 1, "feature_size": 16, "hidden": 4}
    manifest["feature_size"] = 16
    torch.set_num_threads(1)
    made = peers.network_of(Manifest.model_validate(manifest))
    assert made.config.crop == config.crop
    return made


def test_the_network_is_the_bundles(network):
    """In bf16 and in fp32 the same samples give the same features but for rounding."""
    samples = np.random.default_rng(0).integers(0, 256, (4, 3, 64, 64, 3), dtype=np.uint8)
    exact = peers.encoder(network, "cpu", bf16=False, compiled=False)(samples)
    with torch.inference_mode():
        np.testing.assert_allclose(exact, network.trunk(torch.from_numpy(samples)).numpy(), atol=1e-5)
    rounded = peers.encoder(network, "cpu", bf16=True, compiled=False)(samples)
    assert exact.shape == rounded.shape == (4, 16)
    assert 0 < np.abs(exact - rounded).max() < 0.1 * np.abs(exact).max()


def test_operations_are_counted_and_their_peak_is_measured(network):
    assert peers.flops(network) > 1e6
    assert peers.peak("cpu", bf16=False, side=64, repeats=1) > 0
