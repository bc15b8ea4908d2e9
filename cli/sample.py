"""`deepfake-detect sample`."""

from pathlib import Path
from typing import Annotated

import typer


def sample(
    out: Annotated[Path, typer.Argument(help="File to write.")] = Path("sample.mp4"),
    seconds: Annotated[float, typer.Option(min=0.2, max=60, help="Length of the clip.")] = 4.0,
    size: Annotated[int, typer.Option(min=128, max=2160, help="Pixels of the longer side.")] = 496,
    faces: Annotated[int, typer.Option(min=1, max=6, help="Faces in the picture.")] = 1,
) -> None:
    """Write a short clip to try things with, made from a picture whose licence allows it."""
    from cli.output import err
    from pipeline.sampleclip import write_sample

    write_sample(out, seconds=seconds, size=size, faces=faces)
    err.print(f"wrote {out}; try: deepfake-detect scan {out}", markup=False, soft_wrap=True)
