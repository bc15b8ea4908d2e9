"""`deepfake-detect calibrate`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Scaling(StrEnum):
    """What is fitted."""

    platt = "platt"
    temperature = "temperature"


def calibrate(
    bundle: Annotated[Path, typer.Argument(help="Directory of the bundle.")],
    *,
    clips: Annotated[Path, typer.Option(help="CSV: file, label; split, identity.")],
    fpr: Annotated[
        float, typer.Option(help="Share of real clips that may be called manipulated.", min=0.0001, max=0.5)
    ] = 0.01,
    fnr: Annotated[
        float, typer.Option(help="Share of fakes that may be called authentic.", min=0.0001, max=0.5)
    ] = 0.2,
    split: Annotated[
        str | None, typer.Option(help="Rows of this split; `all`: every row.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Directory of the new bundle, whose name is its id; beside the old one unless given.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--id", help="Id of the calibration; from its content unless given.", show_default=False
        ),
    ] = None,
    method: Annotated[
        Scaling, typer.Option(help="`platt`: scale and bias; `temperature`: scale.")
    ] = Scaling.platt,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 for all usable cores.")] = 0,
) -> None:
    """Fit probabilities and thresholds to one's own clips. Needs the extra `training`.

    Writes another bundle with the same weights. DETECTOR_* settings apply.
    """
    from cli.evaluate import pipeline_of, progress
    from cli.output import err, fail
    from cli.output import out as printed

    try:
        from pipeline.bundle import open_bundle
        from training.recalibrate import Wanted, recalibrate
    except ModuleNotFoundError as e:
        fail(f"calibrate needs {e.name}: install deepfake-detect[training]")
    with progress("judging") as (start, done):
        made = recalibrate(
            pipeline_of(bundle),
            clips,
            Wanted(fpr, fnr, method.value, name),
            out=out,
            split=split,
            workers=workers,
            on_start=start,
            on_done=done,
        )
    printed.print(open_bundle(made).manifest.calibration.data, markup=False, soft_wrap=True)
    err.print(f"wrote {made}; its card holds the figures", markup=False, soft_wrap=True)
