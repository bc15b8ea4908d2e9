"""`deepfake-detect prepare`: a data set on disk to face crops to train on."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from training.prepare import Progress


class Kind(StrEnum):
    """Data sets whose layout is known."""

    faceforensics = "faceforensics"
    celebdf = "celebdf"
    dfdc = "dfdc"
    table = "table"


class SplitBy(StrEnum):
    """Where splits come from."""

    official = "official"
    seeded = "seeded"


def prepare(
    kind: Annotated[Kind, typer.Argument(help="Which data set this is; `table`: clips listed in a CSV.")],
    root: Annotated[Path, typer.Argument(help="Its directory; of `table`, the CSV file.")],
    *,
    out: Annotated[Path, typer.Option(help="Directory to write; a run that was stopped goes on there.")],
    selection: Annotated[
        Path | None, typer.Option(help="TOML: how many clips of which data set, and how they are split.")
    ] = None,
    split: Annotated[
        SplitBy | None,
        typer.Option(help="Keep the data set's own split where it has one (official), or draw one (seeded)."),
    ] = None,
    train: Annotated[float | None, typer.Option(help="Share of a drawn split to train on; 0.7.")] = None,
    validation: Annotated[
        float | None, typer.Option(help="Share of a drawn split to validate on; 0.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of splits and selection; 0.")] = None,
    hold_out: Annotated[
        list[str] | None, typer.Option(help="Generator kept from training; may be repeated.")
    ] = None,
    compression: Annotated[str, typer.Option(help="FaceForensics++: c0 (or raw), c23, c40.")] = "c23",
    frames: Annotated[int, typer.Option(min=1, max=512, help="Frames with a face, of each clip.")] = 150,
    min_frames: Annotated[int, typer.Option(min=1, help="A clip with fewer is left out.")] = 15,
    side: Annotated[int, typer.Option(min=16, max=512, help="Pixels of a crop's side.")] = 112,
    margin: Annotated[float, typer.Option(min=0.5, max=2, help="How far a crop reaches round a face.")] = 1.3,
    as_video: Annotated[
        bool, typer.Option("--as-video", help="Write the crops as MP4 files besides.")
    ] = False,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 for all usable cores.")] = 0,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for one clip.")] = 300.0,
) -> None:
    """Cut the faces of a data set as the service would, split it, and pack it to train on.

    Nothing is downloaded. A clip that can not be used is reported in DIR/report.csv and ends nothing.
    """
    from pipeline.runtime import usable_cores
    from pipeline.spec import CropSpec, SamplingSpec
    from training.datasets import read_dataset
    from training.prepare import Options, prepare_dataset
    from training.selection import make_selection, read_selection

    given = {"split": split, "train": train, "validation": validation, "seed": seed, "hold_out": hold_out}
    changes = {name: value for name, value in given.items() if value is not None}
    chosen = read_selection(selection, changes) if selection else make_selection(changes)
    data = read_dataset(kind, root, compression=compression)
    options = Options(
        crop=CropSpec(kind="aligned", side=side, margin=margin),
        sampling=SamplingSpec(bursts=frames, burst_frames=1, spread="head"),
        min_frames=min_frames,
        as_video=as_video,
        workers=workers or usable_cores(),
        timeout_s=timeout,
    )
    with _bar() as progress:
        report = prepare_dataset(data, out, chosen, options, progress)
    _tell(report, out)


@contextmanager
def _bar() -> Iterator["Progress"]:
    """A bar with the time that is left, on a terminal's standard error."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from cli.output import err

    columns = (TextColumn("preparing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("clips", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _tell(report: dict[str, Any], out: Path) -> None:
    """What was made, and what was left out."""
    from rich.table import Table

    from cli.output import err

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("split", "real", "fake"):
        table.add_column(column, justify="left" if column == "split" else "right")
    counts: dict[str, dict[bool, str]] = {}
    for stratum in report["clips"]:
        prepared, wanted = stratum["prepared"], stratum["wanted"]
        counts.setdefault(stratum["split"], {})[stratum["fake"]] = (
            str(prepared) if prepared == wanted else f"{prepared} of {wanted}"
        )
    for split, of in counts.items():
        if set(of.values()) != {"0"}:
            table.add_row(split, of[False], of[True])
    err.print(table)
    lost = {k: n for k, n in (report["outcomes"] | report["left_out"]).items() if k != "prepared"}
    if report["absent"]:
        lost["absent"] = report["absent"]
    words = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in sorted(lost.items()))
    if words:
        err.print(f"not used: {words}; see {out / 'report.csv'}", markup=False, soft_wrap=True)
    err.print(f"prepared {report['frames']} frames in {out}", markup=False, soft_wrap=True)
