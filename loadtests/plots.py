"""Throughput and latency over load, as a picture."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.plots import COLOURS, ROOM

Json = dict[str, Any]


def draw_ramp(run: Json, at: Path) -> None:
    """A PNG of the stages of a run: answers a second, and latencies, over the number of clients."""
    stages = run["steps"]
    users = [s["users"] for s in stages]
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    rate, latency = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    rate.plot(users, [s["rate"] for s in stages], "o-", color=COLOURS[0])
    rate.set_ylabel("answers/s")
    rate.set_ylim(0, ROOM * max(s["rate"] for s in stages) or 1)
    for name, style, colour in (("p50_s", "o-", COLOURS[0]), ("p95_s", "s--", COLOURS[1])):
        known = [(s["users"], s[name]) for s in stages if s[name] is not None]
        latency.plot(*zip(*known, strict=True), style, color=colour, label=name.removesuffix("_s"))
    latency.set_ylabel("latency, s")
    latency.set_ylim(bottom=0)
    latency.legend(fontsize=8, frameon=False)
    for each in (rate, latency):
        each.set_xscale("log", base=2)
        each.set_xticks(users, map(str, users))
        each.set_xlabel("clients")
        each.spines[["top", "right"]].set_visible(False)
        each.tick_params(labelsize=8)
    figure.savefig(at, dpi=120, metadata={"Software": None})
