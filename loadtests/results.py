"""What came of a scenario, for a file and for a table."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from loadtests.record import answered, by_kind, latencies, steps
from loadtests.scenarios import Scenario
from loadtests.thresholds import Check, Run
from training.report import table

Json = dict[str, Any]
SCENARIO, SCALE, RESULTS = "DETECTOR_LOAD_SCENARIO", "DETECTOR_LOAD_SCALE", "DETECTOR_LOAD_RESULTS"
"""Environment variables: name of a scenario, how much longer it lasts, and the file for what came of it."""


def results(scenario: Scenario, run: Run) -> Json:
    """Everything that is told of a run."""
    checks = [threshold(run) for threshold in scenario.thresholds]
    good = answered(run.samples)
    return {
        "scenario": scenario.name,
        "seconds": run.seconds,
        "users": run.users,
        "requests": len(run.samples),
        "answered": len(good),
        "rate": sum(s.end_s < run.seconds for s in good) / run.seconds,
        "away": sum(s.outcome == "turned away" for s in run.samples),
        "failed": sum(s.outcome == "failed" for s in run.samples),
        "alone_s": dict(run.alone_s),
        **latencies(good),
        "kinds": by_kind(run.samples),
        "steps": [asdict(step) for step in steps(run.samples, run.stages)],
        "checks": [asdict(check) for check in checks],
        "met": all(check.met for check in checks),
    }


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
