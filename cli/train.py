"""`deepfake-detect train`."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from training.loop import Line
    from training.train import Tell


def train(  # noqa: PLR0917 (typer's options)
    recipe: Annotated[Path, typer.Argument(help="Recipe, a TOML file; see training/recipes.")],
    data: Annotated[
        list[Path],
        typer.Option(
            help="Prepared shards, as often as there are, or one corpus with clips.csv, as the recipe wants."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Directory of the run; resumed when it holds one.")],
    start: Annotated[
        Path | None, typer.Option(help="Weights to start from, in the format that the recipe says.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="Threads on a CPU; 0 for all usable cores.")] = 0,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that prepare batches ahead; they change no result."),
    ] = None,
) -> None:
    """Train a network as a recipe says. Needs the extra `training`.

    Several GPUs: torchrun --nproc-per-node N deepfake-detect train ...
    """
    from cli.output import err, fail

    try:
        from training.train import train as run
    except ModuleNotFoundError as e:
        fail(f"training needs {e.name}: install deepfake-detect[training]")
    with _telling() as tell:
        model = run(
            recipe, data, out, start=start, device=device, threads=threads, workers=workers, tell=tell
        )
    if os.environ.get("RANK", "0") == "0":
        err.print(f"wrote {model}; next: deepfake-detect export {model}", markup=False, soft_wrap=True)


@contextmanager
def _telling() -> "Iterator[Tell]":
    """A progress bar on a terminal, and the lines of metrics as they come."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )

    from cli.output import err

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal, transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, step: int, steps: int, line: "Line | None") -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=steps)
            progress.update(tasks[what], completed=step)
            if line is not None:
                err.print(f"{what}: {json.dumps(line)}", markup=False, soft_wrap=True)

        yield tell
