"""`deepfake-detect export`."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def export(
    checkpoint: Annotated[
        Path | None, typer.Argument(help="Checkpoint that training wrote.", show_default=False)
    ] = None,
    *,
    out: Annotated[Path, typer.Option(help="Directory of the bundle; must not exist.")] = Path("bundle"),
    bundle_id: Annotated[
        str | None, typer.Option("--id", help="Identity of the bundle; the directory's name unless given.")
    ] = None,
    untrained: Annotated[
        str | None,
        typer.Option(
            help="Instead of a checkpoint, with random weights: `resnext50_32x4d` (the paper's), "
            "`resnext50_32x4d-native` or `native`."
        ),
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "int8"],
        typer.Option(help="How weights are stored; arithmetic stays in fp32."),
    ] = "fp32",
    speed: Annotated[
        bool, typer.Option(help="Measure this machine's speed and put it into the manifest.")
    ] = False,
) -> None:
    """Trace a trained network into a verified ONNX bundle. Needs the extra `training`."""
    from cli.output import err, fail

    if (checkpoint is None) == (untrained is None):
        raise typer.BadParameter("give a checkpoint, or --untrained and a network, and not both")
    try:
        from export.bundle import export_checkpoint, export_untrained
    except ModuleNotFoundError as e:
        fail(f"export needs {e.name}: install deepfake-detect[training]")
    if checkpoint is not None:
        made = export_checkpoint(
            checkpoint, out, bundle_id=bundle_id, precision=precision, measure_speed=speed
        )
    else:
        made = export_untrained(str(untrained), out, precision=precision, measure_speed=speed)
    err.print(f"wrote and verified {made}", markup=False, soft_wrap=True)
