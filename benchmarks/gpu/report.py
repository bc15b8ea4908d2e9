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
    the service, by provider.
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


def markdown(result: Result) -> str:
    """A page with a table for each question."""
    parts = [
        f"# {result.bundle} on {result.machine['device']}",
        _table(["", ""], [[name, value] for name, value in result.machine.items()]),
        "## Encoder, samples a second\n\nMedian of the repeats, and the slowest and fastest of them.",
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
        "## Parity with the CPU provider",
        _table(["", "largest difference in probability", f"at most {PARITY_LIMIT:g}"], rows),
        f"## One clip of one face, {result.clip_samples} samples, both graphs, idle device",
        _table(
            ["provider", "median ms", "least", "most"],
            [[n, *(f"{1000 * x:.1f}" for x in (s.median, s.least, s.most))] for n, s in result.clip.items()],
        ),
        "## Cold start to ready",
        _table(
            ["provider", "seconds of each try"],
            [[name, ", ".join(f"{s:.1f}" for s in tries)] for name, tries in result.cold.items()],
        ),
    ]
    if result.service:
        parts += [
            f"## The service: 720p clips of {FILM_S} s with one face, from upload to answer",
            _table(
                ["provider", "clients at once", "clips/s", "median s", "least", "most"],
                _served(result.service),
            ),
            _table(
                ["provider", "probability of `fake`"],
                [
                    [n, "none" if s.probability is None else f"{s.probability:.4f}"]
                    for n, s in result.service.items()
                ],
            ),
        ]
    if (m := result.memory) is not None:
        parts += [
            f"## Device memory over {m.clips} clips of random lengths",
            _table(
                ["before the graphs", "every shape run once", "most afterwards", "growth"],
                [[*(f"{x // MIB} MiB" for x in (m.before, m.warmed, m.most, m.most - m.warmed))]],
            ),
        ]
    return "\n\n".join(parts) + "\n"


def _served(services: dict[str, Service]) -> list[list[str]]:
    return [
        [
            name,
            str(s.clients),
            f"{s.rate:.2f}",
            *(f"{x:.2f}" for x in (s.latency.median, s.latency.least, s.latency.most)),
        ]
        for name, service in services.items()
        for s in service.served
    ]


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
