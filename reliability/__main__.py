"""`python -m reliability PART`: try, keep the results as JSON, render the document anew."""

import dataclasses
import signal
import sys
import tempfile
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.bench import FULL as BENCH_FULL
from benchmarks.bench import Bench, BenchError, open_model
from benchmarks.clips import Clips
from benchmarks.load import LoadFailed
from benchmarks.summary import as_json
from pipeline.errors import DetectError
from reliability.lab import FULL, QUICK, Lab
from reliability.parts import fuzz, overload, replicas, rolling, schema, soak
from reliability.report import write
from training.provenance import revision

err = Console(stderr=True, highlight=False)
CHEAP = "native-lstm-2"
"""The bundle that is served where none is named: what is tried here does not hang on it."""


class Part(StrEnum):
    """What can be tried, in the order of the document; `report` renders what was tried before."""

    fuzz = "fuzz"
    overload = "overload"
    soak = "soak"
    rolling = "rolling"
    replicas = "replicas"
    schema = "schema"
    all = "all"
    report = "report"


TRIALS: dict[Part, Callable[[Lab], dict[str, Any]]] = {
    Part.fuzz: fuzz.measure,
    Part.overload: overload.measure,
    Part.soak: soak.measure,
    Part.rolling: rolling.measure,
    Part.replicas: replicas.measure,
    Part.schema: schema.measure,
}


def main(
    part: Annotated[Part, typer.Argument(help="What to try.")] = Part.all,
    *,
    out: Annotated[Path, typer.Option(help="Gets reliability.md and a folder reliability.")] = Path("docs"),
    model: Annotated[
        str | None,
        typer.Option(help="Name of an embedded bundle, or its directory; the cheapest without."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn by lot.")] = 1,
    cases: Annotated[int | None, typer.Option(min=3, help="Uploads of `fuzz`.")] = None,
    minutes: Annotated[float | None, typer.Option(min=1, help="Length of `soak`.")] = None,
    case: Annotated[int | None, typer.Option(min=0, help="Number of a case that is only saved.")] = None,
    save: Annotated[Path | None, typer.Option(help="File for the body of that case.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Little of everything: to see that it works.")
    ] = False,
) -> None:
    """Try what the service bears and write the document. Leaves with 1 when a part could not be tried."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # servers end with us
    with tempfile.TemporaryDirectory(prefix="reliability-") as name:
        if case is not None or save is not None:
            if part is not Part.fuzz or case is None or save is None:
                raise typer.BadParameter("--case and --save belong together, and to fuzz")
            err.print(fuzz.save(seed, case, Path(name), save), markup=False, soft_wrap=True)
            return
        counts = QUICK if quick else FULL
        if cases is not None:
            counts = dataclasses.replace(counts, cases=cases)
        if minutes is not None:
            counts = dataclasses.replace(counts, soak_s=60 * minutes)
        failed = False
        for each in {Part.all: list(TRIALS), Part.report: []}.get(part, [part]):
            err.print(f"trying {each.value}")
            folder = Path(name) / each.value
            folder.mkdir()
            try:
                bundle = open_model(model or CHEAP)
                lab = Lab(Bench(bundle, Clips(folder), folder, BENCH_FULL, quick=quick), counts, seed)
                keep(each, lab, TRIALS[each](lab), out)
            except (BenchError, LoadFailed, DetectError) as e:
                failed = True
                err.print(f"{each.value} could not be tried: {e}", markup=False, soft_wrap=True)
            write(out)
    write(out)
    err.print(f"wrote {out / 'reliability.md'}", markup=False, soft_wrap=True)
    sys.exit(int(failed))


def keep(part: Part, lab: Lab, results: dict[str, Any], out: Path) -> None:
    """Write the results of one part, with what they were found on."""
    folder = out / "reliability"
    folder.mkdir(parents=True, exist_ok=True)
    whole = {"part": part.value, "code": revision(), **lab.facts(), "results": results}
    (folder / f"{part.value}.json").write_text(as_json(whole), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
