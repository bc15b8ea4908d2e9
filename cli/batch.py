"""`deepfake-detect batch`: whole archives, with resume."""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from cli.output import err, fail, out

if TYPE_CHECKING:
    from batch.parts import Plan
    from batch.scorer import Work

TEMPORARY = 75
"""Exit code of a run that broke off and goes on when it is started again (EX_TEMPFAIL of sysexits.h)."""


class Engine(StrEnum):
    """Who scores."""

    local = "local"
    ray = "ray"


def batch(  # noqa: PLR0917 (typer's options)
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders, globs, and lists: .txt, a path a line, or .csv with a column `file`."
        ),
    ],
    results: Annotated[
        Path, typer.Option("--out", help="Folder of the results; resumed when it holds some.")
    ],
    engine: Annotated[
        Engine, typer.Option(help="`local`: this process; `ray`: Ray Data, needs the extra `batch`.")
    ] = Engine.local,
    workers: Annotated[
        int,
        typer.Option(
            min=0,
            help="Cores to work on, with Ray actors of one core. 0: as DETECTOR_DECODERS and "
            "DETECTOR_THREADS say, with Ray as many as this machine has.",
        ),
    ] = 0,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to work on; this machine without it.", show_default=False)
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            help="I/N: only the share I, from 0, of N that the clips fall into.", show_default=False
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Bundle that judges; DETECTOR_MODEL.")] = None,
    max_faces: Annotated[int | None, typer.Option(help="Faces judged in a clip; DETECTOR_MAX_FACES.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say where on each face the evidence lies.")
    ] = False,
    timeline: Annotated[bool, typer.Option(help="Give the score of each moment.")] = True,
    part_clips: Annotated[int, typer.Option(min=1, help="Clips in one file of results at most.")] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="Tell what came of it as one JSON object.")] = False,
) -> None:
    """Score an archive: a line of JSON for each clip, in files that are there as a whole or not.

    Started again with the same folder it goes on where it was. Exit code: 0 when each clip has its line, 3
    when the run can not be as it was asked for, 75 when it broke off and goes on if started again.
    """
    from batch.clips import Shard
    from batch.errors import Interrupted
    from batch.on_ray import score_on_ray
    from batch.parts import make_plan, score_here
    from pipeline.runtime import usable_cores

    if address is not None and engine is not Engine.ray:
        fail("--address is for --engine ray")
    cores: dict[str, Any] = {} if workers == 0 else {"decoders": workers, "threads": workers}
    if engine is Engine.ray:
        # Ray deals out cores here; actors that each took a GPU as well would take the same one.
        workers, cores = workers or usable_cores(), {"decoders": 1, "threads": 1, "provider": "cpu"}
    work = _work({"model": model, "max_faces": max_faces, **cores}, explain=explain, timeline=timeline)
    plan = make_plan(
        inputs,
        work,
        results,
        shard=None if shard is None else Shard.parse(shard),
        part_clips=part_clips,
        workers=workers or 1,
    )
    begun = time.monotonic()
    parts = score_here(plan) if engine is Engine.local else score_on_ray(plan, workers, address)
    try:
        scored = _told(plan, parts) if plan.parts else Counter[str]()
    except ModuleNotFoundError as e:
        fail(f"--engine ray needs {e.name}: install deepfake-detect[batch]")
    except Interrupted as e:
        _break_off(str(e))
    except OSError as e:
        _break_off(f"{e.filename}: {e.strerror}" if e.filename else str(e))
    _sum_up(plan, scored, time.monotonic() - begun, as_json=as_json)


def _work(given: dict[str, Any], *, explain: bool, timeline: bool) -> "Work":
    """What the settings, and the options that win over them, say of how clips are scored."""
    from batch.scorer import Work
    from pipeline.bundle import default_bundle
    from service import logs
    from service.settings import SettingsError, load_settings

    try:
        settings = load_settings(**{k: v for k, v in given.items() if v is not None})
    except SettingsError as e:
        fail(str(e))
    logs.configure("warning")
    return Work(settings, default_bundle(settings.models_dir, settings.model), explain, timeline)


def _told(plan: "Plan", parts: "Iterator[Counter[str]]") -> "Counter[str]":
    """All outcomes; on a terminal with a bar, else a line a part, on standard error."""
    from cli.evaluate import progress

    scored: Counter[str] = Counter()
    with progress("scoring") as (start, move_on):
        start(plan.clips)
        for outcomes in parts:
            scored += outcomes
            for _ in range(outcomes.total()):
                move_on()
            if not err.is_terminal:
                err.print(f"{scored.total()} of {plan.clips} clips", markup=False)
    return scored


def _sum_up(plan: "Plan", scored: "Counter[str]", seconds: float, *, as_json: bool) -> None:
    outcomes = dict((plan.known + scored).most_common())
    found = {
        "clips": scored.total(),
        "known": plan.known.total(),
        "outcomes": outcomes,
        "seconds": round(seconds, 3),
        "clips_per_s": round(scored.total() / seconds, 3),
    }
    if as_json:
        sys.stdout.write(json.dumps(found) + "\n")
        return
    for name, count in outcomes.items():
        out.print(f"{count:>9,}  {name}", markup=False)
    if scored:
        rate = f"{seconds:.1f} s, {found['clips_per_s']:.2f} a second"
        out.print(f"{scored.total():,} clips in {rate}", markup=False)
    if plan.known:
        out.print(f"{plan.known.total():,} clips were scored before", markup=False)


def _break_off(why: str) -> NoReturn:
    err.print(f"deepfake-detect: {why}; start it again to go on", markup=False, soft_wrap=True)
    sys.exit(TEMPORARY)
