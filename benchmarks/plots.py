"""The plots of the document, drawn from the same figures."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.figures import limit, peers
from benchmarks.stages import STAGES

Json = dict[str, Any]
COLOURS = ("#1f6f8b", "#c8553d", "#588b8b", "#f28f3b", "#7a6c5d", "#8f5d9b")
OWN, OTHER = COLOURS[0], "0.65"
MIB = 2**20
ROOM = 1.15
"""Height of an axis, as a multiple of the highest value."""


def draw(measured: dict[str, Json], folder: Path) -> list[Path]:
    """Write a PNG for each part that was measured and has one; returns what was written."""
    drawn = {"limit": _limit, "growth": _growth, "peers": _peers, "sparse": _sparse}
    written = []
    for part, figure_of in drawn.items():
        if part in measured:
            at = folder / f"{part}.png"
            figure_of(measured[part]["results"]).savefig(at, dpi=120, metadata={"Software": None})
            written.append(at)
    return written


def _figure(columns: int, width: float = 9.0, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = [figure.add_subplot(1, columns, k + 1) for k in range(columns)]
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.tick_params(labelsize=8)
    return figure, axes


def _limit(r: Json) -> Figure:
    figure, (latency, load) = _figure(2)
    f = limit(r)
    left = 0.0
    for stage, colour in zip(STAGES, COLOURS, strict=False):
        width = f.stages[stage].wall.median * 1000
        latency.barh(1, width, left=left, color=colour, label=stage)
        left += width
    latency.barh(0, f.idle.median * 1000, color=OTHER)
    latency.set_yticks([1, 0], ["stages alone", "service"])
    latency.set_xlabel("latency of one clip, ms")
    latency.legend(fontsize=7, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.16), frameon=False)
    load.bar([0, 1], [f.capacity.median, f.rate.median], color=[OWN, OTHER], width=0.6)
    for x, s in enumerate((f.capacity, f.rate)):
        load.errorbar(x, s.median, [[s.median - s.least], [s.greatest - s.median]], color="black", capsize=4)
    load.set_xticks([0, 1], ["capacity", f"service, {r['clients']} clients"])
    load.set_ylabel("requests/s")
    return figure


def _growth(r: Json) -> Figure:
    figure, axes = _figure(2)
    for at, (clips, key, label) in zip(
        axes,
        ((r["lengths"], "seconds", "seconds, at 720p"), (r["heights"], "height", "lines, at 10 s")),
        strict=True,
    ):
        x = [c[key] for c in clips]
        memory = [c["peak_bytes"] / MIB for c in clips]
        latency = [float(np.median(c["latency_s"])) * 1000 for c in clips]
        at.plot(x, memory, "o-", color=OWN)
        at.set(xscale="log", xlabel=label, ylim=(0, ROOM * max(memory)))
        at.set_ylabel("peak memory, MiB", color=OWN)
        at.set_xticks(x, map(str, x))
        at.minorticks_off()
        second = at.twinx()
        second.plot(x, latency, "s--", color=COLOURS[1])
        second.set_ylabel("latency, ms", color=COLOURS[1])
        second.set_ylim(0, ROOM * max(latency))
        second.tick_params(labelsize=8)
    return figure


def _peers(r: Json) -> Figure:
    figure, (rate, p95) = _figure(2)
    found = list(reversed(peers(r)))
    colours = [OWN if s.version is None else OTHER for s in found]
    y = range(len(found))
    rate.barh(y, [s.rate.median for s in found], color=colours)
    for k, s in enumerate(found):
        error = [[s.rate.median - s.rate.least], [s.rate.greatest - s.rate.median]]
        rate.errorbar(s.rate.median, k, xerr=error, color="black", capsize=3)
    rate.set_yticks(y, [s.name for s in found])
    rate.set_xlabel("requests/s")
    p95.barh(y, [s.p95 * 1000 for s in found], color=colours)
    p95.set_yticks(y, [])
    p95.set_xlabel("p95, ms")
    return figure


def _sparse(r: Json) -> Figure:
    figure, (all_frames,) = _figure(1, 6.0)
    bins = [k / 50 for k in range(51)]
    all_frames.hist([v for row in r["rows"] for v in row["iou"]], bins, color=OTHER, label="all frames")
    all_frames.hist(
        [v for row in r["rows"] for v in row["iou_between"]], bins, color=OWN, label="between detections"
    )
    all_frames.set(xlabel="IoU with detecting on every frame", ylabel="frames of a face", xlim=(0, 1))
    all_frames.legend(fontsize=8, loc="upper left", frameon=False)
    return figure
