"""`deepfake-detect scan`: answers without a server, the same as the service would give."""

import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import AUTHENTIC, ERROR, MANIPULATED, UNDECIDED, err, out

if TYPE_CHECKING:
    from pipeline.answer import Answer
    from service.settings import Settings

Judge = Callable[[Path], "Answer"]
CODES = {
    "authentic": AUTHENTIC,
    "manipulated": MANIPULATED,
    "uncertain": UNDECIDED,
    "not_applicable": UNDECIDED,
}
COLOURS = {"authentic": "green", "manipulated": "red", "uncertain": "yellow", "not_applicable": "dim"}


def scan(
    files: Annotated[list[Path], typer.Argument(help="Clips or pictures.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line: file and answer.")] = False,
    model: Annotated[str | None, typer.Option(help="Bundle that judges; DETECTOR_MODEL.")] = None,
    max_faces: Annotated[int | None, typer.Option(help="Faces judged in a clip; DETECTOR_MAX_FACES.")] = None,
    explain: Annotated[
        bool, typer.Option(help="Say where on each face the evidence lies; shown by --json.")
    ] = False,
) -> None:
    """Judge clips here and now.

    Exit code: 0 when all are authentic, 1 when any is manipulated, else 2 when any is uncertain or
    not applicable; 3 when any can not be judged, whatever the others are.
    """
    from service.settings import SettingsError, load_settings

    try:
        given = {"model": model, "max_faces": max_faces}
        settings = load_settings(**{k: v for k, v in given.items() if v is not None})
    except SettingsError as e:
        err.print(f"deepfake-detect: {e}", markup=False, soft_wrap=True)
        sys.exit(ERROR)
    judge = _judge(settings, explain=explain)
    sys.exit(_as_lines(files, judge) if as_json else _as_table(files, judge))


def _judge(settings: "Settings", *, explain: bool) -> Judge:
    from pipeline.bundle import default_bundle, open_bundle
    from pipeline.detect.registry import open_detector
    from pipeline.engine import Engine, driven, encoded, scored
    from pipeline.explain import Shown, explained
    from pipeline.look import Clock
    from pipeline.media import Limits
    from pipeline.prepare import prepare
    from pipeline.verdict import decide

    bundle = open_bundle(
        default_bundle(settings.models_dir, settings.model), allow_untrained=settings.allow_untrained
    )
    engine = Engine(bundle, provider=settings.provider, threads=settings.threads)
    detector = open_detector(
        settings.face_detector, settings.face_model, accept_license=settings.accept_insightface_license
    )
    limits = Limits(max_pixels=settings.max_pixels, max_duration_s=settings.max_duration_s)

    def judge(file: Path) -> "Answer":
        start = time.perf_counter()
        clip = prepare(
            file,
            crop=bundle.manifest.crop,
            sampling=bundle.manifest.sampling,
            detector=detector,
            limits=limits,
            max_faces=settings.max_faces,
        )
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
        return answer.timed(clock.ms)

    return judge


def _as_lines(files: list[Path], judge: Judge) -> int:
    codes = []
    for file in _with_progress(files):
        answer, error = _try(judge, file)
        codes.append(CODES[answer.verdict] if answer else ERROR)
        line = {"file": str(file)} | (
            {"answer": answer.model_dump(mode="json")} if answer else {"error": error}
        )
        sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
        sys.stdout.flush()
    return _overall(codes)


def _as_table(files: list[Path], judge: Judge) -> int:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("verdict", "fake", "faces", "seconds", "file", "why"):
        table.add_column(
            column, overflow="fold", justify="right" if column in {"fake", "faces", "seconds"} else "left"
        )
    codes = []
    for file in _with_progress(files):
        answer, error = _try(judge, file)
        codes.append(CODES[answer.verdict] if answer else ERROR)
        if answer is None:
            table.add_row(Text("error", "bold red"), "", "", "", Text(str(file)), Text(error["detail"]))
            continue
        table.add_row(
            Text(answer.verdict.replace("_", " "), COLOURS[answer.verdict]),
            f"{answer.probabilities.fake:.2f}" if answer.probabilities else "-",
            str(len(answer.faces)),
            f"{answer.media.duration_s:.1f}",
            Text(str(file)),
            answer.summary,
        )
    out.print(table)
    return _overall(codes)


def _try(judge: Judge, file: Path) -> tuple["Answer | None", dict[str, str]]:
    """The answer, or what is wrong with the file in the words of its problem type."""
    from pipeline.errors import MediaError

    try:
        return judge(file), {}
    except MediaError as e:
        return None, {"type": f"/problems/{e.problem}", "detail": str(e)}
    except OSError as e:
        return None, {"type": "about:blank", "detail": e.strerror or str(e)}


def _overall(codes: list[int]) -> int:
    """Errors outweigh everything; a manipulated clip outweighs an undecided one."""
    return next((code for code in (ERROR, MANIPULATED, UNDECIDED) if code in codes), AUTHENTIC)


def _with_progress(files: list[Path]) -> Iterable[Path]:
    """The files, with a bar on a terminal's standard error when there are several."""
    from rich.progress import track

    if len(files) < 2 or not err.is_terminal:
        return files
    return track(files, description="scanning", console=err, transient=True)
