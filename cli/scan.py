"""`deepfake-detect scan`: answers for people, from here without a server or from a service, both the same."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.findings import CODES, Finding, Format, Sink, appending, sink_of, to_stdout
from cli.output import AUTHENTIC, ERROR, MANIPULATED, UNDECIDED, err, fail, out

if TYPE_CHECKING:
    from service.settings import Settings

Tell = Callable[[float], None]
"""Told how much of one clip is done, 0 to 1."""
Judge = Callable[[Path, Tell], dict[str, Any]]


def scan(  # noqa: PLR0917 (typer's options)
    paths: Annotated[list[Path], typer.Argument(help="Clips or pictures, folders of them, or patterns.")],
    form: Annotated[
        Format | None,
        typer.Option("--format", help="How findings are written; `table` is for people.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format jsonl.")] = False,
    target: Annotated[
        Path | None,
        typer.Option("--out", help="File to write, in the format that its ending says.", show_default=False),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with --out: leave out what it holds of these very bytes.")
    ] = False,
    recursive: Annotated[bool, typer.Option(help="Look into folders below a folder.")] = True,
    model: Annotated[str | None, typer.Option(help="Bundle that judges; DETECTOR_MODEL.")] = None,
    max_faces: Annotated[int | None, typer.Option(help="Faces judged in a clip; DETECTOR_MAX_FACES.")] = None,
    explain: Annotated[
        bool,
        typer.Option(help="Say where on each face the evidence lies, and what the score loses without it."),
    ] = False,
    server: Annotated[
        str | None,
        typer.Option(
            help="Address of a service that judges instead; its key is read from DEEPFAKE_DETECT_API_KEY.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Judge clips, one after the other.

    Exit code: 0 when all are authentic, 1 when any is manipulated, else 2 when any is uncertain or
    not applicable; 3 when any can not be judged, whatever the others are. Interrupted: 130.
    """
    from cli.files import media_files

    form = Format.jsonl if as_json else form or _by_ending(target)
    _check(form, target, resume)
    files = media_files(paths, recursive=recursive)
    if not files:
        fail(f"no picture or video in {', '.join(map(str, paths))}")
    judge, digest = _judge_of(server, model, max_faces, explain=explain)
    known: list[str] = []
    if target is not None and resume and target.exists():
        from cli.resume import resume as go_on

        files, known = go_on(target, form, files, digest)
    codes = {CODES[verdict] for verdict in known}
    for_people = form is Format.table or target is not None or not out.is_terminal
    bar = _bar(len(files), visible=err.is_terminal and for_people)
    with _sinks(form, target, Counter(known)) as sinks, bar as start:
        for file in files:
            finding = _finding(judge, file, start(file))
            codes.add(finding.code)
            for sink in sinks:
                sink.add(finding)
    sys.exit(_overall(codes))


def _by_ending(target: Path | None) -> Format:
    if target is None:
        return Format.table
    endings = {".json": Format.json, ".jsonl": Format.jsonl, ".ndjson": Format.jsonl, ".csv": Format.csv}
    found = endings.get(target.suffix.lower())
    if found is None:
        fail(f"the ending of {target} says no format: give --format")
    return found


def _check(form: Format, target: Path | None, resume: bool) -> None:
    """Refuse what can not be meant, before anything is written."""
    if target is not None and form is Format.table:
        fail("a table is for the terminal: --out takes json, jsonl or csv")
    if resume and (target is None or form not in {Format.jsonl, Format.csv}):
        fail("--resume needs --out with a file of jsonl or csv")
    if target is not None and target.exists() and not resume:
        fail(f"{target} is there already: --resume goes on with it")


def _judge_of(
    server: str | None, model: str | None, max_faces: int | None, *, explain: bool
) -> tuple[Judge, str]:
    """What judges, there or here, and the digest of its bundle."""
    if server is not None:
        from cli.remote import Remote

        remote = Remote(server, model=model, max_faces=max_faces, explain=explain)
        return remote.judge, remote.digest
    from service.settings import SettingsError, load_settings

    try:
        given = {"model": model, "max_faces": max_faces}
        settings = load_settings(**{k: v for k, v in given.items() if v is not None})
    except SettingsError as e:
        fail(str(e))
    return _judge(settings, explain=explain)


def _judge(settings: "Settings", *, explain: bool) -> tuple[Judge, str]:
    """What judges here, and the digest of its bundle."""
    from pipeline.bundle import default_bundle, open_bundle
    from pipeline.detect.registry import open_detector
    from pipeline.engine import Engine, driven, encoded, scored
    from pipeline.explain import Shown, explained
    from pipeline.look import Clock
    from pipeline.media import Limits
    from pipeline.prepare import prepare
    from pipeline.verdict import decide
    from service.anchors import trust_of
    from service.checker import checked_apart

    bundle = open_bundle(
        default_bundle(settings.models_dir, settings.model), allow_untrained=settings.allow_untrained
    )
    engine = Engine(bundle, provider=settings.provider, threads=settings.threads)
    detector = open_detector(
        settings.face_detector, settings.face_model, accept_license=settings.accept_insightface_license
    )
    limits = Limits(max_pixels=settings.max_pixels, max_duration_s=settings.max_duration_s)
    trust = trust_of(settings)

    def judge(file: Path, _: Tell) -> dict[str, Any]:
        start = time.perf_counter()
        clip = prepare(
            file,
            crop=bundle.manifest.crop,
            sampling=bundle.manifest.sampling,
            detector=detector,
            limits=limits,
            max_faces=settings.max_faces,
        )
        if clip.media.c2pa == "present":
            found = checked_apart(
                file,
                clip.media.container,
                trust,
                memory_bytes=settings.decode_memory_bytes,
                sandbox=settings.sandbox,
            )
            clip = replace(clip, credentials=found)
        clock = Clock(clip.timing_ms)
        with clock.stage("encode"):
            features = encoded(engine, clip)
        with clock.stage("temporal"):
            scores = scored(engine, features)
        answer = decide(clip, scores, bundle, explain=explain)
        if explain:
            with clock.stage("explain"):
                shown = [Shown(f, t.samples) for f, t in zip(features, clip.tracks, strict=True)]
                answer = driven(engine, explained(answer, clip, scores, shown.__getitem__, bundle))
        clock.ms["total"] = (time.perf_counter() - start) * 1000
        return answer.timed(clock.ms).model_dump(mode="json")

    return judge, bundle.digest


@contextmanager
def _sinks(form: Format, target: Path | None, known: "Counter[str]") -> Iterator[list[Sink]]:
    """Where findings go; closed also when the scan is interrupted.

    While a file is written the table is shown as well, where there is somebody to see it.
    """
    from cli.table import Table

    with ExitStack() as stack:
        sinks: list[Sink] = []
        if form is Format.table or (target is not None and out.is_terminal):
            sinks.append(Table(out, known))
        if target is not None:
            begun = target.exists()
            sinks.append(sink_of(form, stack.enter_context(appending(target)), "utf-8", begun=begun))
        elif form is not Format.table:
            sinks.append(sink_of(form, to_stdout, sys.stdout.encoding or "utf-8"))
        for sink in sinks:
            stack.callback(sink.close)
        yield sinks


def _finding(judge: Judge, file: Path, tell: Tell) -> Finding:
    """The answer, or what is wrong with the file in the words of its problem type."""
    from pipeline.errors import MediaError

    size = mtime_ns = answer = error = None
    try:
        status = file.stat()
        size, mtime_ns = status.st_size, status.st_mtime_ns
        answer = judge(file, tell)
    except MediaError as e:
        error = {"type": f"/problems/{e.problem}", "detail": str(e)}
    except OSError as e:
        error = {"type": "about:blank", "detail": e.strerror or str(e)}
    return Finding(str(file), size, mtime_ns, answer, error)


def _overall(codes: set[int]) -> int:
    """Errors outweigh everything; a manipulated clip outweighs an undecided one."""
    return next((code for code in (ERROR, MANIPULATED, UNDECIDED) if code in codes), AUTHENTIC)


@contextmanager
def _bar(files: int, *, visible: bool) -> Iterator[Callable[[Path], Tell]]:
    """A bar on a terminal. Gives what to call as a file is begun, and what to tell of it.

    It is on standard error, and on standard output where that is a terminal as well: findings can go above it
    only if one console prints both. What goes to a file or a pipe stays untouched.
    """
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    from cli.table import shown

    columns = (
        SpinnerColumn(),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    console = out if out.is_terminal else err
    bar = Progress(
        *columns, console=console, transient=True, disable=not visible, redirect_stdout=out.is_terminal
    )
    with bar:
        task = bar.add_task("", total=files)
        begun = 0

        def start(file: Path) -> Tell:
            nonlocal begun
            before, begun = begun, begun + 1
            bar.update(task, completed=before, description=f"{begun} of {files}  {shown(file.name)}")
            return lambda share: bar.update(task, completed=before + share)

        yield start
