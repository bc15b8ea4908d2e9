"""The document, rendered from the results that lie beside it; a part that was not tried says so."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.figures import number
from benchmarks.report import basis
from benchmarks.summary import Spread
from reliability.judging import ALLOWED_BYTES, ALLOWED_SHARE
from reliability.replicas_report import replicas
from reliability.words import counts, met
from training.report import table

Json = dict[str, Any]
HEAD = """# Reliability

Written by `make reliability`; [reliability/README.md](../reliability/README.md) says how each figure comes
about and how to repeat it. The raw results lie in [docs/reliability](reliability/). A target that was missed
is written as missed."""
QUICK = "**A quick run, to see that it works: its figures are not to be quoted.**"
LEAST_GOODPUT = 0.9
MOST_REFUSED_S = 0.05
MOST_GROWTH = 0.02
FILES = 4
PATIENCE = 1.5
"""By how much an accepted request may take longer than those in flight at the peak's rate."""


def write(out: Path) -> None:
    """Render `out`/reliability.md from `out`/reliability/*.json."""
    folder = out / "reliability"
    folder.mkdir(parents=True, exist_ok=True)
    (out / "reliability.md").write_text(render(read(folder)), encoding="utf-8")


def read(folder: Path) -> dict[str, Json]:
    """The results of each part that was tried."""
    files = {part: folder / f"{part}.json" for part in SECTIONS}
    return {part: json.loads(at.read_text(encoding="utf-8")) for part, at in files.items() if at.is_file()}


def render(tried: dict[str, Json]) -> str:
    """The document in Markdown."""
    parts = [HEAD]
    if any(t["quick"] for t in tried.values()):
        parts.append(QUICK)
    for part, (title, section) in SECTIONS.items():
        parts.append(f"## {title}")
        if part in tried:
            parts += [*section(tried[part]["results"]), basis(tried[part])]
        else:
            parts.append("Not tried yet.")
    return "\n\n".join(parts) + "\n"


def _fuzz(r: Json) -> list[str]:
    before, after = r["memory_bytes"]
    most = f"at most {ALLOWED_SHARE:.0%} and {number(ALLOWED_BYTES, binary=True)}iB more"
    rows = [
        ["cases answered as they should be", f"{r['cases'] - r['failed']} of {r['cases']}"],
        ["uploads/s", f"{r['cases'] / r['seconds']:.1f}"],
        [
            "answered within, p50, p99 and worst",
            " / ".join(f"{r[k]:.2f} s" for k in ("p50_s", "p99_s", "worst_s")),
        ],
        ["limit of a request, with slack", f"{r['limit_s']:g} s"],
        [
            f"memory of the server's process after a third and in the end ({most})",
            f"{number(before, binary=True)}iB, {number(after, binary=True)}iB",
        ],
        ["decoders in the end", f"{r['children']} of {r['decoders']}"],
        ["decoders replaced", counts(r["restarts"])],
        ["files left in the scratch directory", str(r["left_files"])],
        ["lines of severity `error`", counts(r["log_errors"])],
    ]
    parts = [
        f"Uploads that were tampered with, over {r['connections']} connections. A failure is a status from "
        "500 on other than 503 with Retry-After and 504, an error that is no problem document, an answer "
        "that comes late or not at all; and for the server as a whole what the last rows tell of.",
        table(["", "Found"], rows),
        "What the cases of each kind came to, by status:",
        _by_status(r["kinds"], "Made from"),
        "By what was done to them (up to four things each):",
        _by_status(r["mutations"], "Mutation"),
        f"By problem: {counts(r['problems'])}.",
    ]
    if r["unforeseen"]:
        parts += [
            "Exceptions in decoders that nobody foresaw; each was answered with 422 and cost a decoder:",
            table(
                ["Exception", "First seen", "Times"],
                [[f"`{what}`", first, str(times)] for what, (first, times) in r["unforeseen"].items()],
            ),
        ]
    if r["failures"] or r["failures_of_the_server"]:
        lines = [f"- case {f['case']}: {f['why']}" for f in r["failures"]]
        parts.append("\n".join(["Failures:", "", *lines, *(f"- {w}" for w in r["failures_of_the_server"])]))
    else:
        parts.append("No failures.")
    return parts


def _by_status(rows: dict[str, dict[str, int]], head: str) -> str:
    statuses = sorted({s for row in rows.values() for s in row})
    lines = [[name, *(str(row.get(s, "")) for s in statuses)] for name, row in rows.items()]
    return table([head, *statuses], lines)


def _overload(r: Json) -> list[str]:
    rows = [row for run in r["runs"] for row in _run(run, PATIENCE * r["in_flight"] / run["peak"])]
    loops = ", ".join(f"{rate:.1f}/s with {n} clients" for n, rate in r["closed_loop"].items())
    return [
        f"Clips of {r['clip']['seconds']} s at {r['clip']['height']}p ({number(r['clip']['bytes'])}B). "
        f"Closed loops give {loops}. Then {r['times']:g} times the higher rate for {r['seconds']:g} s, at "
        "random times (Poisson), each over a connection of its own, with at most "
        f"{r['in_flight']} in flight. *Asking first* sends "
        "`Expect: 100-continue` and waits for a word before the body. The sender shares the machine. The "
        "peak is that of the faster closed loop, on average of one before and one after.",
        table(["", "", "Found", ""], rows),
    ]


def _run(run: Json, bound: float) -> list[list[str]]:
    refused, p95 = run["refused_s"], run["answered_s"].get("p95", math.inf)
    share = run["goodput"] / run["peak"]
    rows = [
        ["arrivals by status", counts(run["statuses"]), ""],
        ["lost", counts(run["lost"]), met(not run["lost"], "none")],
        [
            "answers of status 200 a second, of the peak",
            f"{run['goodput']:.1f} of {run['peak']:.1f}, {share:.0%}",
            met(share >= LEAST_GOODPUT, f"at least {LEAST_GOODPUT:.0%}"),
        ],
        [
            "p95 of these",
            f"{p95:.2f} s",
            met(p95 <= bound, f"at most {bound:.1f} s"),
        ],
    ]
    if refused:
        rows += [
            [
                "p50, p99 of a refusal's head",
                f"{refused['p50'] * 1000:.0f} ms, {refused['p99'] * 1000:.0f} ms",
                met(refused["p99"] < MOST_REFUSED_S, f"p99 under {MOST_REFUSED_S * 1000:.0f} ms"),
            ],
            ["refused before any of the body was sent", str(run["refused_before_the_body"]), ""],
            [
                "refusals without Retry-After",
                str(run["refused_without_retry_after"]),
                met(not run["refused_without_retry_after"], "none"),
            ],
        ]
    rows.append(["the sender was late by, p99", f"{run['late_s']['p99'] * 1000:.0f} ms", ""])
    return [[run["manner"] if k == 0 else "", *row] for k, row in enumerate(rows)]


def _soak(r: Json) -> list[str]:
    rows = [
        [
            kind,
            *(str(c[k]) for k in ("requests", "turned_away", "failed")),
            counts(c["failures"]),
            _wait(c["answered_s"]),
        ]
        for kind, c in r["clients"].items()
    ]
    failed = sum(c["failed"] for c in r["clients"].values())
    own, whole = r["growth"]["own"], r["growth"]["all"]
    earlier, later = r["least_files"]
    house = [
        ["requests that failed", str(failed), met(not failed, "none")],
        ["memory of the server's process, second half", f"{own:+.1%}", met(own < MOST_GROWTH, "under 2%")],
        ["memory with decoders, second half", f"{whole:+.1%}", met(whole < MOST_GROWTH, "under 2%")],
        [
            "least open files, second and last quarter",
            f"{earlier}, {later}",
            met(later <= earlier + FILES, f"at most {FILES} more"),
        ],
        [
            "decoders in the end",
            f"{r['children']} of {r['decoders']}",
            met(r["children"] == r["decoders"], "all"),
        ],
        ["looks at which all decoders ran", f"{r['looks_with_all_children']} of {r['looks']}", ""],
        ["decoders replaced", counts(r["restarts"]), ""],
        ["files left", str(r["left_files"]), met(not r["left_files"], "none")],
        ["lines of severity `error`", counts(r["log_errors"]), met(not r["log_errors"], "none")],
    ]
    return [
        f"{r['seconds'] / 60:g} minutes at {r['rate']:.1f} requests/s, of which {r['share']:.0%} of the "
        f"{r['peak']:.1f}/s of a closed loop are worth working on. Good clips are sent as fast as it goes, "
        "slowly, and with an event stream for an answer; bad ones break off; some clients leave while they "
        "send. Who is turned away with 503 comes again after `Retry-After`, three times at most.",
        table(["Client", "Requests", "Times turned away", "Failed", "Why", "p50, p99 of answers"], rows),
        "Memory is the rise of the line through the looks of the second half (least squares).",
        table(["", "Found", ""], house),
    ]


def _rolling(r: Json) -> list[str]:
    if "skipped" in r:
        return [f"Skipped: {r['skipped']}."]
    rows = [
        [
            run["balancer"],
            str(run["requests"]),
            f"{run['failed']} {met(not run['failed'], 'none')}",
            counts(run["failures"]),
            " and ".join(
                Spread.of(times).shown(1) + " s" for times in zip(*run["stop_and_start_s"], strict=True)
            ),
        ]
        for run in r["runs"]
    ]
    return [
        f"Two replicas behind HAProxy {r['version']}, which asks `/readyz` every second, at {r['rate']:g} "
        f"requests/s; {len(r['runs'][0]['stop_and_start_s'])} times one of them, by turns, is ended by "
        "SIGTERM and started anew.",
        table(["The balancer", "Requests", "Failed", "How", "To stop and to start"], rows),
    ]


def _schema(r: Json) -> list[str]:
    parts = [
        f"{r['requests']} requests made from `/openapi.json`, fitting and not, by Schemathesis, which checks "
        f"{', '.join(f'`{c}`' for c in r['checks'])}. Besides, each error outside of `/v2/` is to be a "
        "problem document.",
        _by_status(r["routes"], "Route"),
        f"Errors that are no problem documents: {counts(r['errors_that_are_no_problems'])}. Lines of "
        f"severity `error`: {counts(r['log_errors'])}.",
    ]
    rows = [[op, what, str(n)] for op, found in r["findings"].items() for what, n in found.items()]
    return [*parts, table(["Operation", "What does not conform", "Times"], rows) if rows else "All conform."]


def _wait(waits: dict[str, float]) -> str:
    return f"{waits['p50']:.2f} s, {waits['p99']:.2f} s" if waits else "-"


SECTIONS: dict[str, tuple[str, Callable[[Json], list[str]]]] = {
    "fuzz": ("Uploads that were tampered with", _fuzz),
    "overload": ("Three times as many requests as can be answered", _overload),
    "soak": ("Good and bad clients for a long time", _soak),
    "rolling": ("Replicas that are replaced", _rolling),
    "replicas": ("Replicas behind a balancer", replicas),
    "schema": ("The OpenAPI document", _schema),
}
