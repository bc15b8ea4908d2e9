"""`deepfake-detect export`."""

from pathlib import Path
from typing import Annotated

import typer


def export(
    checkpoint: Annotated[
        Path | None, typer.Argument(help="Checkpoint that training wrote.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="Directory of the bundle; must not exist.")] = Path("bundle"),
    bundle_id: Annotated[
        str | None, typer.Option("--id", help="Identity of the bundle; the directory's name unless given.")
    ] = None,
    untrained: Annotated[
        str | None,
        typer.Option(
            help="Instead of a checkpoint: `resnext50_32x4d` (the paper's) or `native`, with random weights."
        ),
    ] = None,
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
        made = export_checkpoint(checkpoint, out, bundle_id=bundle_id)
    else:
        made = export_untrained(str(untrained), out)
    err.print(f"wrote and verified {made}", markup=False, soft_wrap=True)
