"""What was measured, as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.clips import FILM_S
from benchmarks.gpu.curve import Point, Seconds
from benchmarks.gpu.device import MIB, Growth
from benchmarks.gpu.service import Service

PARITY_LIMIT = 2e-3
"""Largest difference in probability that the CUDA provider may show to the CPU provider."""


@dataclass(frozen=True, slots=True)
class Result:
    """All figures of one bundle on one machine.

    curves: samples a second by how they were encoded; limits: samples a second that the rate of large
    matrix products would allow; parity: largest difference in probability to the CPU provider; clip:
    the longest clip of one face; cold: seconds from start to ready, of each try; service: whole clips through
    the service, by provider. facts: what was measured and how often.
    """

    bundle: str
    machine: dict[str, str]
    clip_samples: int
    curves: dict[str, list[Point]]
    parity: dict[str, float]
    clip: dict[str, Seconds]
    cold: dict[str, list[float]]
    service: dict[str, Service] = field(default_factory=dict)
    memory: Growth | None = None
    limits: dict[str, float] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)


def markdown(result: Result, *, level: int = 1) -> str:
    """A page with a table for each question, under a heading of that level."""
    title, part = "#" * level, "#" * (level + 1)
    parts = [
        f"{title} {result.bundle} on {result.machine['device']}",
        _table(["", ""], [[name, value] for name, value in (result.machine | result.facts).items()]),
        f"{part} Encoder, samples a second\n\nMedian of the repeats, and the slowest and fastest of them.",
        _curves(result.curves),
    ]
    if result.limits:
        rows = [[name, f"{value:.0f}"] for name, value in result.limits.items()]
        parts += ["What the rate of large matrix products would allow:", _table(["", "samples/s"], rows)]
    rows = [
        [name, f"{value:.1e}", "yes" if value <= PARITY_LIMIT else "**no**"]
        for name, value in result.parity.items()
    ]
    parts += [
        f"{part} Parity with the CPU provider",
        _table(["", "largest difference in probability", f"at most {PARITY_LIMIT:g}"], rows),
        f"{part} One clip of one face, {result.clip_samples} samples, both graphs, idle device",
        _table(
            ["provider", "median ms", "least", "most"],
            [[n, *(f"{1000 * x:.1f}" for x in (s.median, s.least, s.most))] for n, s in result.clip.items()],
        ),
    ]
    if tries := {name: seconds for name, seconds in result.cold.items() if seconds}:
        rows = [[name, ", ".join(f"{s:.1f}" for s in seconds)] for name, seconds in tries.items()]
        parts += [f"{part} Cold start to ready", _table(["provider", "seconds of each try"], rows)]
    if result.service:
        parts += [
            f"{part} The service: 720p clips of {FILM_S} s with one face, from upload to answer",
            _served(result.service),
        ]
    if (m := result.memory) is not None:
        parts += [
            f"{part} Device memory over {m.clips} clips of random lengths",
            _table(
                ["before the graphs", "every shape run once", "most afterwards", "growth"],
                [[*(f"{x // MIB} MiB" for x in (m.before, m.warmed, m.most, m.most - m.warmed))]],
            ),
        ]
        if m.before:
            parts.append("Some of the device's memory was taken before, be it by this process.")
    return "\n\n".join(parts) + "\n"


def _served(services: dict[str, Service]) -> str:
    head = ["provider", "probability of `fake`", "clients at once", "clips/s", "median s", "least", "most"]
    rows = []
    for name, service in services.items():
        said = "none" if service.probability is None else f"{service.probability:.4f}"
        for s in service.served:
            taken = (s.latency.median, s.latency.least, s.latency.most)
            rows.append([name, said, str(s.clients), f"{s.rate:.2f}", *(f"{x:.2f}" for x in taken)])
    return _table(head, rows)


def _curves(curves: dict[str, list[Point]]) -> str:
    sizes = sorted({p.batch for points in curves.values() for p in points})
    rows = []
    for name, points in curves.items():
        at = {p.batch: p for p in points}
        cells = [
            f"{at[n].median:.0f} ({at[n].least:.0f} to {at[n].most:.0f})" if n in at else "" for n in sizes
        ]
        rows.append([name, *cells])
    return _table(["batch", *map(str, sizes)], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
