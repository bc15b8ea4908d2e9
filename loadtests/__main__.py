"""`python -m loadtests SCENARIO ...`: load a service and say whether it bore it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.bench import FULL, ROOT, Bench, BenchError, open_model
from benchmarks.clips import Clips
from benchmarks.servers import clean, service
from benchmarks.summary import as_json
from loadtests.plots import draw_ramp
from loadtests.results import RESULTS, SCALE, SCENARIO
from loadtests.scenarios import SCENARIOS, Scenario
from loadtests.tables import missed, summary, thresholds
from pipeline.errors import DetectError
from training.provenance import revision

err = Console(stderr=True, highlight=False)
Json = dict[str, Any]
FINISH_S = 40
"""Seconds that requests have to end after the last stage."""
PREPARE_S = 240.0
"""Seconds in which a scenario has made its clips and sent them alone."""
UPLOAD_TIMEOUT_S = 15
"""Of the service that is started here: clients that stall hear of it within the run."""
MAX_UPLOAD_BYTES = 100 * 2**20
RAMP = "ramp"
LEAST_SCALE = 0.5
"""Of a run whose figures may be quoted."""


class LoadError(Exception):
    """A scenario could not be run. The message is one line."""


def main(
    scenarios: Annotated[list[str] | None, typer.Argument(help="Which to run; all without.")] = None,
    *,
    host: Annotated[
        str | None, typer.Option(help="Address of a service that runs; one is started without.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Name of an embedded bundle, or its directory; the default without.")
    ] = None,
    scale: Annotated[float, typer.Option(min=0.05, help="How much longer each stage lasts.")] = 1.0,
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("runs/load"),
    publish: Annotated[
        Path | None, typer.Option(help="Folder that gets scaling/load.json, for scaling.md.")
    ] = None,
) -> None:
    """Load a service. Leaves with 1 when a threshold was missed or a scenario could not be run."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the server ends with us
    wanted = [_scenario(name) for name in scenarios or SCENARIOS]
    if host is not None and publish is not None:
        raise typer.BadParameter("--publish tells of this machine, so that it can not go with --host")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="loadtests-") as name:
        folder = Path(name)
        try:
            bench = Bench(open_model(model), Clips(folder), folder, FULL, quick=scale < LEAST_SCALE)
            with served(bench, host) as url:
                runs = [run(scenario, url, out, scale) for scenario in wanted]
        except (BenchError, DetectError, LoadError) as e:
            err.print(f"the load tests could not be run: {e}", markup=False, soft_wrap=True)
            sys.exit(1)
    report(runs, out)
    if publish is not None:
        keep(bench, runs, publish, scale)
    sys.exit(int(bool(missed(runs))))


def _scenario(name: str) -> Scenario:
    if name not in SCENARIOS:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(SCENARIOS)}")
    return SCENARIOS[name]


@contextmanager
def served(bench: Bench, host: str | None) -> Iterator[str]:
    """The address that is loaded: the one given, or that of a service for the length of the block."""
    if host is not None:
        yield host
        return
    own = {"max_upload_bytes": MAX_UPLOAD_BYTES, "upload_timeout_s": UPLOAD_TIMEOUT_S}
    with service(bench, **own) as server:
        yield server.url


def run(scenario: Scenario, url: str, out: Path, scale: float) -> Json:
    """One scenario by a locust of its own. Raises LoadError when it says nothing of how it went."""
    err.print(f"{scenario.name}: {scenario.what}")
    to = (out / f"{scenario.name}.json").resolve()
    to.unlink(missing_ok=True)
    stem = str((out / scenario.name).resolve())
    files = ["--html", f"{stem}.html", "--csv", stem]
    own = {SCENARIO: scenario.name, SCALE: str(scale), RESULTS: str(to)}
    inherited = {k: v for k, v in os.environ.items() if k.startswith("DETECTOR_LOAD_")}
    command = [
        *(sys.executable, "-m", "locust", "-f", str(ROOT / "loadtests/locustfile.py")),
        *("--headless", "--only-summary", "--csv-full-history", "--host", url),
        *("--stop-timeout", str(FINISH_S), *files),
    ]
    most_s = PREPARE_S + scale * sum(s for s, _ in scenario.stages) + FINISH_S
    with (out / f"{scenario.name}.log").open("w", encoding="utf-8") as log:
        try:
            code = subprocess.run(
                command,
                cwd=ROOT,
                env=clean() | inherited | own,
                stdout=log,
                stderr=log,
                timeout=most_s,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired as e:
            raise LoadError(f"{scenario.name} did not end within {most_s:g} s: see {log.name}") from e
    if not to.is_file():
        raise LoadError(f"{scenario.name} ended with {code}: see {log.name}")
    found: Json = json.loads(to.read_text(encoding="utf-8"))
    return found


def report(runs: list[Json], out: Path) -> None:
    """The tables on standard output and in report.md, and a picture of the ramp."""
    text = f"{summary(runs)}\n\n{thresholds(runs)}\n"
    for ramp in (r for r in runs if r["scenario"] == RAMP):
        draw_ramp(ramp, out / f"{RAMP}.png")
        text += f"\n![Throughput and latency over clients]({RAMP}.png)\n"
    (out / "report.md").write_text(f"# Load\n\n{text}", encoding="utf-8")
    sys.stdout.write(text)
    err.print(f"wrote {out}", markup=False, soft_wrap=True)


def keep(bench: Bench, runs: list[Json], docs: Path, scale: float) -> None:
    """Write what the published document shows, with what it was measured on."""
    whole = {
        "part": "load",
        "code": revision(),
        **bench.facts(),
        "counts": {"scale": scale},
        "results": {"runs": runs},
    }
    (docs / "scaling").mkdir(parents=True, exist_ok=True)
    (docs / "scaling" / "load.json").write_text(as_json(whole), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
