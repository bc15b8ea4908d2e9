"""Figures of a bundle on labelled clips, scored through the bundle and the service's own pipeline."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.bundle import open_bundle
from pipeline.errors import DetectError
from training.figures import PREVALENCES, Json, measure, order_of_pairs
from training.labelled import LabelledClip, read_clips, read_pairs
from training.scoring import Pipeline, Scored, score_clips
from training.transcode import CONDITIONS, PUBLISHED

SCHEMA = 2


class EvaluationError(DetectError):
    """An evaluation was asked for that can not be made."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """figures: everything that is reported, ready for JSON; clips: what was judged; scored: the answers
    of each condition, in the order of `clips`."""

    figures: Json
    clips: list[LabelledClip]
    scored: dict[str, list[Scored]]


def evaluate(
    pipeline: Pipeline,
    clips: Path,
    *,
    pairs: Path | None = None,
    split: str | None = None,
    conditions: Sequence[str] = tuple(CONDITIONS),
    prevalences: Sequence[float] = PREVALENCES,
    workers: int = 0,
    on_start: Callable[[int], None] = lambda _: None,
    on_done: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Judge the clips of a table, and exact pairs of another, and measure.

    `as-published` is always among the conditions. on_start is told how many clips will be judged, each
    condition counting, and on_done is called after each. Raises TableError, EvaluationError,
    BundleError or PoolError; a clip that can not be read is counted and listed.
    """
    table = read_clips(clips, split)
    exact = read_pairs(pairs, split) if pairs else []
    bundle = open_bundle(pipeline.bundle, allow_untrained=True)
    names = _ordered(conditions)
    paired = sorted({(pairs or clips).parent / f for p in exact for f in (p.real, p.fake)})
    wanted = [(table.root / c.file, name) for name in names for c in table.clips]
    known = set(wanted)
    extra = [(path, PUBLISHED) for path in paired if (path, PUBLISHED) not in known]
    on_start(len(wanted) + len(extra))
    scored = score_clips(pipeline, [*wanted, *extra], workers=workers, on_done=on_done)
    answers = dict(zip([*wanted, *extra], scored, strict=True))
    of_condition = {name: [answers[table.root / c.file, name] for c in table.clips] for name in names}
    figures = measure(table.clips, of_condition, prevalences)
    if pairs:
        root = pairs.parent
        figures["pairs"] = order_of_pairs(
            [(p, answers[root / p.real, PUBLISHED], answers[root / p.fake, PUBLISHED]) for p in exact]
        )
    about = {
        "schema": SCHEMA,
        "bundle": {
            "id": bundle.manifest.id,
            "digest": bundle.digest,
            "calibration": bundle.manifest.calibration.id,
        },
        "split": split,
        "clips": _counts(table.clips, table.named),
    }
    return Evaluation(about | figures, table.clips, of_condition)


def _ordered(conditions: Sequence[str]) -> list[str]:
    if unknown := [c for c in conditions if c not in CONDITIONS]:
        raise EvaluationError(
            f"no condition is called {', '.join(unknown)}; there are {', '.join(CONDITIONS)}"
        )
    return [name for name in CONDITIONS if name == PUBLISHED or name in conditions]


def _counts(clips: list[LabelledClip], named: int) -> Json:
    fakes = sum(c.fake for c in clips)
    return {
        "listed": len(clips),
        "real": len(clips) - fakes,
        "fake": fakes,
        "people": len({c.person for c in clips}),
        "with_identity": named,
    }
