"""Curves of a training, drawn from its log."""

import json
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

PANELS = (
    ("loss", ("loss", "validation_loss")),
    ("validation", ("validation_auc", "validation_accuracy")),
    ("learning rate", ("learning_rate",)),
)


def draw_curves(log: Path, out: Path) -> None:
    """Write a PNG of the losses, the validation figures and the learning rate over the steps.

    log: JSON lines, each with `step`; what a line lacks is left out of its curve.
    """
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    panels = [(title, names) for title, names in PANELS if any(_points(lines, n) for n in names)]
    figure = Figure(figsize=(5 * len(panels), 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    for at, (title, names) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), at + 1)
        for name in names:
            if points := _points(lines, name):
                axes.plot(*zip(*points, strict=True), label=name.replace("_", " "), marker=".")
        axes.set(title=title, xlabel="step")
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
    part = out.with_name(out.name + ".part")
    figure.savefig(part, format="png", dpi=100)
    part.replace(out)


def _points(lines: list[dict[str, float | None]], name: str) -> list[tuple[float, float]]:
    return [(x, y) for line in lines if (x := line["step"]) is not None and (y := line.get(name)) is not None]
