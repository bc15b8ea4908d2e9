"""What came of a scenario."""

from dataclasses import asdict
from typing import Any

from loadtests.record import answered, by_kind, latencies, steps
from loadtests.scenarios import Scenario
from loadtests.thresholds import Run

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
