"""An evaluation as pictures: ROC curves, reliability and the scores of each source."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.evaluate import Evaluation
from training.figures import Judged
from training.metrics import lacking, roc
from training.report import interval
from training.transcode import PUBLISHED

REAL, FAKE = "#1f6f8b", "#c8553d"
MOST_SOURCES = 60


def write_plots(evaluation: Evaluation, out: Path) -> list[Path]:
    """Write roc.png, reliability.png and sources.png into a directory, as far as there is something to
    show; returns what was written."""
    out.mkdir(parents=True, exist_ok=True)
    drawn = {"roc": draw_roc(evaluation), "reliability": draw_reliability(evaluation)}
    drawn["sources"] = draw_sources(evaluation)
    written = []
    for name, figure in drawn.items():
        if figure is not None:
            figure.savefig(out / f"{name}.png", dpi=120, metadata={"Software": None})
            written.append(out / f"{name}.png")
    return written


def draw_roc(evaluation: Evaluation) -> Figure | None:
    """ROC curves of all conditions with their areas; None where no condition has both classes."""
    figure, axes = _axes(6.4, 6.4)
    conditions = evaluation.figures["conditions"]
    colours = mpl.colormaps["viridis"](np.linspace(0, 0.9, len(evaluation.scored)))
    curves = 0
    for (name, answers), colour in zip(evaluation.scored.items(), colours, strict=True):
        judged = Judged.of(zip(evaluation.clips, answers, strict=True))
        if lacking(judged.fake, judged.people):
            continue
        fpr, tpr = roc(judged.fake, judged.scores)
        label = f"{name}: {interval(conditions[name]['figures']['auc'])}"
        plain = name == PUBLISHED
        axes.plot(fpr[0], tpr[0], color="black" if plain else colour, lw=2.2 if plain else 1.1, label=label)
        curves += 1
    if not curves:
        return None
    axes.plot([0, 1], [0, 1], color="0.7", lw=0.8, ls="--")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.005))
    axes.set_aspect("equal")
    axes.legend(title="condition: AUC (95% interval)", fontsize=8, title_fontsize=8, loc="lower right")
    return figure


def draw_reliability(evaluation: Evaluation) -> Figure | None:
    """Share of fakes over the probability of fake, in bins; None where a class is missing."""
    counted = evaluation.figures["conditions"][PUBLISHED]
    if not counted["real"] or not counted["fake"]:
        return None
    figure, axes = _axes(6.4, 6.4)
    bins = evaluation.figures["reliability"]
    x = np.array([b["probability"] for b in bins])
    value, low, high = (np.array([b["fakes"][k] for b in bins]) for k in ("value", "low", "high"))
    axes.errorbar(x, value, yerr=[value - low, high - value], fmt="o-", color="black", capsize=3, lw=1.2)
    for b, at, share in zip(bins, x, value, strict=True):
        axes.annotate(str(b["clips"]), (at, share), textcoords="offset points", xytext=(6, -10), fontsize=7)
    axes.plot([0, 1], [0, 1], color="0.7", lw=0.8, ls="--")
    error = interval(counted["figures"]["calibration_error"])
    axes.set(xlabel="mean probability of fake", ylabel="share of fakes", xlim=(0, 1), ylim=(-0.02, 1.02))
    axes.set_aspect("equal")
    axes.set_title(f"Expected calibration error {error}", fontsize=9)
    return figure


def draw_sources(evaluation: Evaluation) -> Figure | None:
    """Every clip's probability, by source; None where no source is named."""
    plain = zip(evaluation.clips, evaluation.scored[PUBLISHED], strict=True)
    shown = [(c.source, c.fake, s.fake) for c, s in plain if c.source and s.fake is not None]
    if not shown:
        return None
    count = {source: sum(s == source for s, _, _ in shown) for source, _, _ in shown}
    names = sorted(count, key=lambda s: (-count[s], s))[:MOST_SOURCES]
    names.sort(key=lambda n: float(np.median([p for s, _, p in shown if s == n])))
    figure, axes = _axes(8.0, 1.2 + 0.26 * len(names))
    for fake, colour, label in ((False, REAL, "real"), (True, FAKE, "fake")):
        at = [(p, names.index(s)) for s, f, p in shown if f == fake and s in names]
        x, y = [p for p, _ in at], [row for _, row in at]
        axes.scatter(x, y, s=16, color=colour, alpha=0.7, label=label, lw=0)
    axes.set_yticks(range(len(names)), [n if len(n) <= 40 else f"…{n[-39:]}" for n in names], fontsize=7)
    axes.set(xlabel="probability of fake", xlim=(0, 1), ylim=(-0.7, len(names) - 0.3))
    axes.grid(axis="y", color="0.92", lw=0.6)
    axes.legend(fontsize=8, loc="best")
    return figure


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of its own, so that no window system and no state shared with others is needed."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
