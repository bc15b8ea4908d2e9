"""An evaluation in Markdown, for people: the whole report, and the tables that a model card shows too."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pipeline.cells import csv_line
from training.evaluate import Evaluation
from training.figures import VERDICTS
from training.transcode import PUBLISHED

Json = dict[str, Any]
NAMES = {
    "auc": "AUC",
    "auc_at_matched_sharpness": "AUC at matched sharpness",
    "equal_error_rate": "Equal error rate",
    "accuracy": "Accuracy (cut at 0.5)",
    "balanced_accuracy": "Balanced accuracy (cut at 0.5)",
    "log_loss": "Log loss (nats)",
    "brier_score": "Brier score",
    "calibration_error": "Expected calibration error",
    "false_positive_rate": "Real clips called `manipulated`",
    "true_positive_rate": "Fake clips called `manipulated`",
    "false_negative_rate": "Fake clips called `authentic`",
    "true_negative_rate": "Real clips called `authentic`",
    "uncertain_rate": "Clips called `uncertain`",
    "not_applicable": "Clips without a usable face",
}
MOST_LISTED = 100
"""Unreadable clips that the report names; the JSON holds all."""


def write_report(evaluation: Evaluation, out: Path) -> None:
    """Write evaluation.json, evaluation.md and scores.csv into a directory, which is made if need be."""
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(evaluation.figures, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    (out / "evaluation.json").write_text(text, encoding="utf-8")
    (out / "evaluation.md").write_text(report(evaluation.figures), encoding="utf-8")
    with (out / "scores.csv").open("w", newline="", encoding="utf-8") as f:
        f.write(csv_line(["file", "label", "condition", "fake", "verdict", "sharpness"]))
        for name, answers in evaluation.scored.items():
            for clip, s in zip(evaluation.clips, answers, strict=True):
                sharp = None if s.fake is None else round(float(s.sharpness), 4)
                label = "fake" if clip.fake else "real"
                f.write(csv_line([clip.file, label, name, s.fake, s.verdict, sharp]))


def report(e: Json) -> str:
    """The whole evaluation."""
    parts = [
        f"# Evaluation of {e['bundle']['id']}",
        basis(e),
        f"Digest of the bundle: `{e['bundle']['digest']}`.",
        "## Conditions",
        conditions_table(e),
        "## All figures, clips as published",
        figures_table(e),
        "## Verdicts, clips as published",
        _confusion(e),
    ]
    for title, body in (
        ("Generators", forgeries_table(e, "methods")),
        ("Kinds of forgery", forgeries_table(e, "families")),
        ("Kinds of footage", footage_table(e)),
        ("Sources", _sources(e)),
        ("Exact pairs", pairs_table(e)),
        ("Clips that could not be read", _unreadable(e)),
    ):
        if body:
            parts += [f"## {title}", body]
    return "\n\n".join(parts) + "\n"


def interval(figure: Json) -> str:
    """A figure with its interval, as `0.74 (0.63 to 0.83)`; without one, that it was not measured and why."""
    if figure.get("value") is None:
        why = figure.get("why")
        return f"not measured: {why}" if why else "not measured"
    return f"{figure['value']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})"


def basis(e: Json) -> str:
    """What was measured, on what, and how far the intervals can be trusted."""
    c = e["clips"]
    calibration = e["bundle"]["calibration"]
    split = f" of the split `{e['split']}`" if e.get("split") else ""
    said = [
        f"{c['listed']} clips{split}, {c['real']} real and {c['fake']} fake, of {c['people']} people, ",
        f"judged by `{e['bundle']['id']}` through the service's own pipeline, ",
        f"with its calibration `{calibration}`." if calibration else "without a calibration.",
        " Figures are of whole clips and of those that have a usable face; in brackets stand 95% bootstrap "
        "intervals, people drawn, not clips.",
    ]
    if c["with_identity"] < c["listed"]:
        missing = c["listed"] - c["with_identity"]
        said.append(
            f" {missing} clips have no identity and count as a person each: if they share people, the "
            "intervals are too narrow."
        )
    return "".join(said)


def conditions_table(e: Json) -> str:
    """One row for each condition."""
    shown = ("auc", "equal_error_rate", "false_positive_rate", "true_positive_rate", "not_applicable")
    rows = [
        [f"{name}: {c['what']}", f"{c['real']}, {c['fake']}", *(interval(c["figures"][s]) for s in shown)]
        for name, c in e["conditions"].items()
    ]
    return table(["Condition", "Judged (real, fake)", *(NAMES[s] for s in shown)], rows)


def figures_table(e: Json, condition: str = PUBLISHED) -> str:
    """Every figure under one condition."""
    figures = e["conditions"][condition]["figures"]
    return table(["Figure", "Value (95% interval)"], [[name_of(k), interval(f)] for k, f in figures.items()])


def name_of(key: str) -> str:
    """A figure's name in words."""
    if key.startswith("average_precision_at_"):
        return f"Average precision where {float(key.rsplit('_', 1)[1]):.4g} of all clips are fake"
    if key.startswith("true_positive_rate_at_fpr_"):
        return f"True positive rate at a false positive rate of {float(key.rsplit('_', 1)[1]):.4g}"
    return NAMES[key]


def forgeries_table(e: Json, kind: str) -> str:
    """Fakes by `methods` or `families`, each against all real clips; empty when none is named."""
    head = ["", "Clips (people)", "AUC against all real clips", *(NAMES[n] for n in _OF_FAKES)]
    rows = [
        [name, f"{f['clips']} ({f['people']})", interval(f["auc"]), *(interval(f[n]) for n in _OF_FAKES)]
        for name, f in e[kind].items()
    ]
    return table(head, rows) if rows else ""


_OF_FAKES = ("true_positive_rate", "false_negative_rate")
_OF_REALS = ("false_positive_rate", "true_negative_rate")


def footage_table(e: Json) -> str:
    """Real clips by kind of footage; empty when none is named."""
    rows = [
        [name, f"{f['clips']} ({f['people']})", *(interval(f[n]) for n in _OF_REALS)]
        for name, f in e["footage"].items()
    ]
    return table(["", "Clips (people)", *(NAMES[n] for n in _OF_REALS)], rows) if rows else ""


def pairs_table(e: Json) -> str:
    """Exact pairs in order, all and by kind; empty when none was given."""
    if "pairs" not in e:
        return ""
    p = e["pairs"]
    named = [("all", p["all"]), *p["families"].items(), *p["methods"].items()]
    rows = [[name, f"{f['won']} of {f['pairs']}", interval(f)] for name, f in named]
    return (
        "In an exact pair both clips show the same footage with the same encoding, one of them forged; it is "
        "in order when the forged one has the higher score. "
        f"{p['listed'] - p['all']['pairs']} of {p['listed']} pairs could not be judged.\n\n"
        + table(["", "Pairs in order", "Share"], rows)
    )


def _sources(e: Json) -> str:
    shown = ("auc", "false_positive_rate", "true_positive_rate")
    rows = [
        [name, f"{s['real']}, {s['fake']}", *(_or_dash(s[n]) for n in shown)]
        for name, s in e["sources"].items()
    ]
    if not rows:
        return ""
    return "A dash: no clips of the class, or of too few people.\n\n" + table(
        ["", "Real, fake", *(NAMES[n] for n in shown)], rows
    )


def _or_dash(figure: Json) -> str:
    return "-" if figure["value"] is None else interval(figure)


def _confusion(e: Json) -> str:
    counts = e["conditions"][PUBLISHED]["confusion"]
    rows = [[truth, *(str(counts[truth][v]) for v in VERDICTS)] for truth in ("real", "fake")]
    return table(["Truth", *(v.replace("_", " ") for v in VERDICTS)], rows)


def _unreadable(e: Json) -> str:
    found = e["unreadable"]
    lines = [f"- `{u['file']}` ({u['condition']}): {u['why']}" for u in found[:MOST_LISTED]]
    if len(found) > MOST_LISTED:
        lines.append(f"- and {len(found) - MOST_LISTED} more, which evaluation.json lists")
    return "\n".join(lines)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; bars and line breaks inside cells are written so that they stay inside."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(c) for c in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
