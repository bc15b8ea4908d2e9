"""`deepfake-detect autoencoders`."""

from pathlib import Path
from typing import Annotated

import typer


def autoencoders(
    *,
    data: Annotated[list[Path], typer.Option(help="Prepared shards, as often as there are.")],
    out: Annotated[Path, typer.Option(help="Folder to write; those of the same name are replaced.")],
    minutes: Annotated[float, typer.Option(min=0.001, help="For all of them together.")] = 60.0,
    threads: Annotated[int, typer.Option(min=0, help="Threads; 0 for all usable cores.")] = 0,
) -> None:
    """Teach small autoencoders to redraw real faces, for pseudo-fakes. Needs the extra `training`."""
    from cli.output import err, fail

    try:
        from training.loader import real_faces
        from training.reconstruct import train_autoencoders, varied
    except ModuleNotFoundError as e:
        fail(f"autoencoders needs {e.name}: install deepfake-detect[training]")
    from pipeline.runtime import usable_cores

    faces, configs = real_faces(data), varied(3)
    for config in configs:
        (file,) = train_autoencoders(
            faces,
            out,
            configs=[config],
            seconds=60 * minutes / len(configs),
            threads=threads or usable_cores(),
        )
        err.print(f"wrote {file}", markup=False, soft_wrap=True)
    err.print(f'next: autoencoders = "{out}" in the table clips of a recipe', markup=False, soft_wrap=True)
