"""`deepfake-detect distill`."""

from pathlib import Path
from typing import Annotated

import typer


def distill(
    plan: Annotated[Path, typer.Argument(help="Plan, a TOML file; see training/recipes/distilled.toml.")],
    *,
    data: Annotated[Path, typer.Option(help="Corpus with clips.csv; its split `train` is read.")],
    teacher: Annotated[
        list[Path], typer.Option(help="Checkpoint or bundle that teaches; as often as there are.")
    ],
    out: Annotated[Path, typer.Option(help="Directory of the run; resumed when it holds one.")],
    threads: Annotated[int, typer.Option(min=1, help="Threads on a CPU.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Teach a network to answer as others do. Needs the extra `training`."""
    from cli.output import err, fail

    try:
        from training.distill_pairs import distill_pairs
    except ModuleNotFoundError as e:
        fail(f"distill needs {e.name}: install deepfake-detect[training]")
    model = distill_pairs(plan, data, teacher, out, threads=threads, device=device)
    err.print(f"wrote {model}; next: deepfake-detect export {model}", markup=False, soft_wrap=True)
