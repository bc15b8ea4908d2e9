"""`deepfake-detect evaluate`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.scoring import Pipeline


def evaluate(
    bundle: Annotated[Path, typer.Argument(help="Directory of the bundle.")],
    *,
    clips: Annotated[Path, typer.Option(help="CSV: file, label; split, identity, source, method, family.")],
    pairs: Annotated[
        Path | None, typer.Option(help="CSV of exact pairs: real_file, fake_file; family and so on.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Rows of this split; `all`: every row.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory for JSON, Markdown, PNG and scores.", show_default=False)
    ] = None,
    conditions: Annotated[
        str | None,
        typer.Option(help="Names, parted by commas; all of the ladder unless given.", show_default=False),
    ] = None,
    prevalence: Annotated[
        list[float] | None,
        typer.Option(help="Share of fakes for average precision; 0.5 and 0.01 unless given.", min=0, max=1),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 for all usable cores.")] = 0,
    card: Annotated[
        bool, typer.Option("--card", help="Write the figures into the bundle's manifest and card.")
    ] = False,
) -> None:
    """Measure a bundle on labelled clips. Needs the extra `training`; DETECTOR_* settings apply."""
    from cli.output import err, fail
    from cli.output import out as printed

    try:
        from training.card import write_figures
        from training.evaluate import evaluate as measure
        from training.figures import PREVALENCES
        from training.plots_evaluation import write_plots
        from training.report import report, write_report
        from training.transcode import CONDITIONS
    except ModuleNotFoundError as e:
        fail(f"evaluate needs {e.name}: install deepfake-detect[training]")
    with progress("judging") as (start, done):
        evaluation = measure(
            pipeline_of(bundle),
            clips,
            pairs=pairs,
            split=split,
            conditions=[c.strip() for c in conditions.split(",")] if conditions else tuple(CONDITIONS),
            prevalences=prevalence or PREVALENCES,
            workers=workers,
            on_start=start,
            on_done=done,
        )
    if out is not None:
        write_report(evaluation, out)
        write_plots(evaluation, out)
        err.print(f"wrote {out}", markup=False, soft_wrap=True)
    if card:
        write_figures(bundle, evaluation.figures)
        err.print(f"wrote the figures into {bundle}", markup=False, soft_wrap=True)
    printed.print(report(evaluation.figures), markup=False, soft_wrap=True, end="")


def pipeline_of(bundle: Path, *, neutral: bool = False) -> "Pipeline":
    """A bundle with the settings that the service would read from the environment."""
    from cli.output import fail
    from pipeline.media import Limits
    from service.settings import SettingsError, load_settings
    from training.scoring import Pipeline

    try:
        settings = load_settings()
    except SettingsError as e:
        fail(str(e))
    return Pipeline(
        bundle=bundle,
        face_detector=settings.face_detector,
        face_model=settings.face_model,
        accept_license=settings.accept_insightface_license,
        provider=settings.provider,
        limits=Limits(max_pixels=settings.max_pixels, max_duration_s=settings.max_duration_s),
        max_faces=settings.max_faces,
        neutral=neutral,
    )


@contextmanager
def progress(what: str) -> Iterator[tuple["Callable[[int], None]", "Callable[[], None]"]]:
    """A bar with an estimate on a terminal's standard error: how to start it, and to move it on by one."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from cli.output import err

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield (lambda total: bar.update(task, total=total)), (lambda: bar.advance(task))
