"""`python -m benchmarks PART`: measure, keep the results as JSON, render the document anew."""

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

from benchmarks.bench import FULL, QUICK, Bench, BenchError, open_model
from benchmarks.clips import Clips
from benchmarks.load import LoadFailed
from benchmarks.parts import ancestor, cost, growth, limit, peers, sparse
from benchmarks.report import write
from benchmarks.summary import as_json
from pipeline.errors import DetectError
from training.provenance import revision

err = Console(stderr=True, highlight=False)


class Part(StrEnum):
    """What can be measured, in the order of the document; `report` renders what was measured before."""

    limit = "limit"
    growth = "growth"
    cost = "cost"
    peers = "peers"
    ancestor = "ancestor"
    sparse = "sparse"
    all = "all"
    report = "report"


MEASURES: dict[Part, Callable[[Bench], dict[str, Any]]] = {
    Part.limit: limit.measure,
    Part.growth: growth.measure,
    Part.cost: cost.measure,
    Part.peers: peers.measure,
    Part.ancestor: ancestor.measure,
    Part.sparse: sparse.measure,
}


def main(
    part: Annotated[Part, typer.Argument(help="What to measure.")] = Part.all,
    *,
    out: Annotated[Path, typer.Option(help="Gets benchmarks.md and a folder benchmarks.")] = Path("docs"),
    model: Annotated[
        str | None, typer.Option(help="Name of an embedded bundle, or its directory; the default without.")
    ] = None,
    clips: Annotated[
        Path | None, typer.Option(help="CSV with a column `file`, for `sparse`; made clips without.")
    ] = None,
    most_clips: Annotated[
        int | None, typer.Option(help="Clips of the table at most, spread over it.", min=1)
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few repetitions: to see that it works.")] = False,
) -> None:
    """Measure and write the document. Leaves with 1 when a part could not be measured."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # servers end with us
    failed = False
    counts = QUICK if quick else FULL
    if most_clips is not None:
        counts = dataclasses.replace(counts, sparse_clips=most_clips)
    wanted = {Part.all: list(MEASURES), Part.report: []}.get(part, [part])
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as name:
        folder = Path(name)
        for each in wanted:
            err.print(f"measuring {each.value}")
            try:
                bench = Bench(open_model(model), Clips(folder), folder, counts, clips, quick=quick)
                keep(each, bench, MEASURES[each](bench), out)
            except (BenchError, LoadFailed, DetectError) as e:
                failed = True
                err.print(f"{each.value} could not be measured: {e}", markup=False, soft_wrap=True)
            write(out)
    write(out)
    err.print(f"wrote {out / 'benchmarks.md'}", markup=False, soft_wrap=True)
    sys.exit(int(failed))


def keep(part: Part, bench: Bench, results: dict[str, Any], out: Path) -> None:
    """Write the results of one part, with what they were measured on."""
    folder = out / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    whole = {"part": part.value, "code": revision(), **bench.facts(), "results": results}
    (folder / f"{part.value}.json").write_text(as_json(whole), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
