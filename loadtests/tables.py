"""What came of scenarios, as tables in Markdown."""

from collections.abc import Sequence
from typing import Any

from loadtests.thresholds import Check
from training.report import table

Json = dict[str, Any]


def summary(runs: Sequence[Json]) -> str:
    """One row for each scenario, in Markdown."""
    head = ["Scenario", "Clients", "Requests", "Answered", "Answers/s", "Turned away", "Failed", "p50, p95"]
    rows = [
        [
            r["scenario"],
            str(r["users"]),
            str(r["requests"]),
            str(r["answered"]),
            f"{r['rate']:.2f}",
            str(r["away"]),
            str(r["failed"]),
            f"{r['p50_s']:.2f} s, {r['p95_s']:.2f} s" if r["answered"] else "-",
        ]
        for r in runs
    ]
    return table(head, rows)


def thresholds(runs: Sequence[Json]) -> str:
    """One row for each threshold, in Markdown."""
    rows = [
        [
            r["scenario"] if k == 0 else "",
            c["name"],
            c["found"],
            c["wanted"],
            "met" if c["met"] else "**missed**",
        ]
        for r in runs
        for k, c in enumerate(r["checks"])
    ]
    return table(["Scenario", "Threshold", "Found", "Wanted", ""], rows)


def missed(runs: Sequence[Json]) -> list[Check]:
    """The thresholds that were missed."""
    return [Check(**c) for r in runs for c in r["checks"] if not c["met"]]
