"""The generated parts of docs/verdicts.md: what remarks mean, and how the default model fared."""

from pipeline.bundle import Manifest
from pipeline.verdict import UNFIT, WORDS
from service.crops import GIVEN
from training.report import interval


def remarks_table() -> str:
    """Every code that may begin a reason or a remark."""
    from_figures = {
        "over_threshold": "the score is at or over the upper threshold; both figures are told",
        "between_thresholds": "the score lies between the thresholds; all three figures are told",
    }
    code, words = GIVEN.split(": ", 1)
    rows = ["| Code | Meaning | What it does |", "| --- | --- | --- |"]
    for name, meaning in {**from_figures, **WORDS, code: words}.items():
        rows.append(f"| `{name}` | {meaning} | {_effect(name)} |")
    return "\n".join(rows)


def _effect(code: str) -> str:
    if code == "no_face" or code in UNFIT:
        return "keeps the face out; with no other left, `not_applicable`"
    if code in {"over_threshold", "between_thresholds"}:
        return "is why the verdict is `manipulated` or `uncertain`"
    if code in {"untrained_model", "uncalibrated", "crops_given"}:
        return "says how far to trust the answer"
    if code == "codec_not_calibrated":
        return "makes the verdict `uncertain`, whatever the score"
    return "moves the thresholds apart"


def outcomes(manifest: Manifest) -> str:
    """Verdicts on the clips that the bundle was measured on, and what they say where fakes are rare."""
    measured = manifest.summary["evaluation"]["conditions"]["as-published"]
    confusion, figures = measured["confusion"], measured["figures"]
    verdicts = ("authentic", "uncertain", "manipulated", "not_applicable")
    rows = [f"| Clips | {' | '.join(f'`{v}`' for v in verdicts)} |", "| --- |" + " --- |" * len(verdicts)]
    for label, name in (("real", "genuine"), ("fake", "forged")):
        counts = " | ".join(str(confusion[label][v]) for v in verdicts)
        rows.append(f"| {measured[label]} {name} | {counts} |")
    false_alarms, found = figures["false_positive_rate"], figures["true_positive_rate"]
    worst = _share_right(found["value"], false_alarms["high"], 0.01)
    best = _share_right(found["value"], false_alarms["low"], 0.01)
    return "\n".join(rows) + (
        f"\n\n`{manifest.id}`: {interval(false_alarms)} of the genuine and {interval(found)} of the forged "
        "clips were called `manipulated` (95% intervals). In a heap of which 1% is forged, if forged clips "
        f"are found as often as here, between {worst:.1%} and {best:.0%} of the clips called `manipulated` "
        "would be forged, for false alarms as common and as rare as the interval allows."
    )


def _share_right(found: float, false_alarms: float, share_forged: float) -> float:
    """How many of the alarms are right (positive predictive value); 0 where there are none."""
    right, wrong = found * share_forged, false_alarms * (1 - share_forged)
    return right / (right + wrong) if right + wrong else 0.0
