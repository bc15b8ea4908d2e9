"""The document, rendered from the results that lie beside it; a part that was not measured says so."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.figures import cost, growth, limit, number, peers, sparse
from benchmarks.plots import draw
from benchmarks.summary import Spread
from training.report import table

Json = dict[str, Any]
PAPER_FACES = 150
"""Frames with a face that the paper looks at."""

PARTS = ("limit", "growth", "cost", "peers", "ancestor", "sparse")
HEAD = """# Benchmarks

Written by `make bench`; [benchmarks/README.md](../benchmarks/README.md) says how each figure comes about and
how to repeat it. Every figure is a median; in brackets stand the least and the greatest of the rounds. The
raw measurements lie in [docs/benchmarks](benchmarks/)."""
QUICK = (
    "**A quick run with few repetitions, to see that the benchmark works: its figures are not to be quoted.**"
)


def write(out: Path) -> None:
    """Render `out`/benchmarks.md and the plots from `out`/benchmarks/*.json."""
    folder = out / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    measured = read(folder)
    draw(measured, folder)
    (out / "benchmarks.md").write_text(render(measured), encoding="utf-8")


def read(folder: Path) -> dict[str, Json]:
    """The results of each part that was measured."""
    files = {part: folder / f"{part}.json" for part in PARTS}
    return {part: json.loads(at.read_text(encoding="utf-8")) for part, at in files.items() if at.is_file()}


def render(measured: dict[str, Json]) -> str:
    """The document in Markdown."""
    parts = [HEAD]
    if any(m["quick"] for m in measured.values()):
        parts.append(QUICK)
    for part, (title, section) in SECTIONS.items():
        parts.append(f"## {title}")
        if part in measured:
            parts += [*section(measured[part]["results"]), basis(measured[part])]
        else:
            parts.append("Not measured yet.")
    return "\n\n".join(parts) + "\n"


def basis(m: Json) -> str:
    """What a part was measured with, in one paragraph."""
    machine, bundle = m["machine"], m["bundle"]
    versions = ", ".join(f"{name} {v}" for name, v in m["versions"].items())
    counts = ", ".join(f"{name} {_counted(v)}" for name, v in m["counts"].items())
    quick = "quick run; " if m["quick"] else ""
    untrained = "" if bundle["trained"] else ", untrained"
    return (
        f"*{quick}bundle `{bundle['id']}` ({bundle['precision']}{untrained}); "
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}, "
        f"load average {machine['load_average_before']} before the run; {versions}; code {m['code']}; "
        f"counts: {counts}.*"
    )


def _counted(value: Any) -> str:
    return "/".join(map(str, value)) if isinstance(value, list) else str(value)


def _limit(r: Json) -> list[str]:
    f, clip = limit(r), r["clip"]
    rows = [
        [name, f"{f.stages[name].wall.shown(1, 1000)} ms", f"{f.stages[name].cpu.shown(1, 1000)} ms"]
        for name in f.stages
    ]
    rows += [
        [
            "temporal, one of several clips in a run",
            f"{f.shared.wall.shown(1, 1000)} ms",
            f"{f.shared.cpu.shown(1, 1000)} ms",
        ],
        [
            "**floor** (clock: the first four; CPU: with the shared run)",
            f"{f.floor.shown(1, 1000)} ms",
            f"{f.cost.shown(1, 1000)} ms",
        ],
        [
            "prepare and score in one process",
            f"{f.whole.wall.shown(1, 1000)} ms",
            f"{f.whole.cpu.shown(1, 1000)} ms",
        ],
    ]
    service = [
        ["latency of one clip, idle machine", f"{f.idle.shown(1, 1000)} ms", "floor"],
        ["latency / floor", f.latency_ratio.shown(), _target(f.latency_ratio.median, most=1.25)],
        [f"requests/s, {r['clients']} clients", f.rate.shown(), f"capacity {f.capacity.shown()}"],
        ["throughput / capacity", f.rate_ratio.shown(), _target(f.rate_ratio.median, least=0.90)],
        ["p50 under load", f"{f.p50 * 1000:.0f} ms", ""],
        ["p95 under load", f"{f.p95 * 1000:.0f} ms", ""],
        ["p99 under load", f"{f.p99 * 1000:.0f} ms", ""],
        ["p99 / p50", f"{f.p99 / f.p50:.2f}", _target(f.p99 / f.p50, most=3.0)],
        [
            "CPU time of a request",
            f"{f.cpu_per_request.shown(1, 1000)} ms",
            f"stages {f.cost.shown(1, 1000)} ms",
        ],
    ]
    return [
        f"One clip of {clip['seconds']:g} s, {clip['width']}x{clip['height']}, one face, "
        f"{number(clip['bytes'])}B: {clip['frames_decoded']} frames decoded, {clip['detections']} searched "
        f"for faces, {clip['samples']} samples encoded. Each stage alone, its input ready, on the better of "
        "one thread and all cores:",
        table(["Stage", "On the clock", "CPU"], rows),
        "Samples/s of the encoder by the size of a batch:",
        _sweep(r["sweep"]),
        "Capacity is the number of cores by the CPU time of the four stages. The service over HTTP, measured "
        "by turns with the stages:",
        table(["Service", "Measured", "Against"], service),
        "![Stages, floor and service](benchmarks/limit.png)",
    ]


def _sweep(rows: list[Json]) -> str:
    sizes = sorted({int(s["batch"]) for s in rows})
    speed = {(s["threads"], s["batch"]): f"{s['samples_per_s']:.0f}" for s in rows}
    threads = sorted({int(s["threads"]) for s in rows})
    lines = [[f"{t} thread{'s' if t > 1 else ''}", *(speed.get((t, n), "-") for n in sizes)] for t in threads]
    return table(["Samples in a batch", *map(str, sizes)], lines)


def _target(value: float, *, most: float | None = None, least: float | None = None) -> str:
    met = (most is None or value <= most) and (least is None or value >= least)
    wanted = f"at most {most:.2f}" if most is not None else f"at least {least:.2f}"
    return f"target {wanted}: {'met' if met else 'missed'}"


def _growth(r: Json) -> list[str]:
    f = growth(r)
    head = ["Clip", "Latency", "Idle memory", "Peak memory", "Frames", "Decoded", "Used"]

    def row(name: str, c: Json) -> list[str]:
        memory = [f"{number(c[m], binary=True)}iB" for m in ("idle_bytes", "peak_bytes")]
        frames = [str(c[n]) for n in ("frames", "frames_decoded", "frames_used")]
        return [name, f"{Spread.of(c['latency_s']).shown(0, 1000)} ms", *memory, *frames]

    parts = [
        "Each clip on a service just started. Memory is that of the service and its decoders together "
        "(proportional set size, looked at every 20 ms).",
        table(head, [row(f"{c['height']}p, {c['seconds']} s", c) for c in r["lengths"]]),
        table(head, [row(f"{c['height']}p, {c['seconds']} s", c) for c in r["heights"]]),
        "![Latency and memory over clips](benchmarks/growth.png)",
    ]
    if f.spread_from_30_s is not None:
        target = _target(f.spread_from_30_s, most=1.10)
        parts.insert(
            2, f"From 30 s on the highest peak is {f.spread_from_30_s:.3f} of the lowest ({target})."
        )
    return parts


def _cost(r: Json) -> list[str]:
    rows = [
        [
            f"{c.seconds:g} s, {c.faces} face{'s' if c.faces > 1 else ''}, {c.width}x{c.height}",
            f"{c.cpu.shown(2)} s",
            f"{c.per_face_second.shown(0, 1000)} ms",
            c.rate.shown(),
            c.busy.shown(),
            str(c.frames_used),
        ]
        for c in cost(r)
    ]
    return [
        f"CPU seconds of all processes of the service, {r['clients']} clients in a closed loop on "
        f"{r['cores']} cores; a face-second is the same by the faces and the seconds of the clip. A longer "
        "clip costs no more samples: the plan looks at as many frames as in a short one. Busy is the share "
        "of the cores that the service took.",
        table(["Clip", "CPU a clip", "CPU a face-second", "Clips/s", "Busy", "Frames used"], rows),
    ]


def _peers(r: Json) -> list[str]:
    rows = [
        [
            f"{s.name}{' ' + s.version if s.version else ''}",
            s.how,
            s.rate.shown(),
            f"{s.p50 * 1000:.0f} ms",
            f"{s.p95 * 1000:.0f} ms",
            f"{s.slowest_first * 1000:.0f} ms",
            f"{s.cpu.shown(0, 1000)} ms",
            f"{number(s.idle_bytes, binary=True)}iB",
            f"{number(s.peak_bytes, binary=True)}iB",
        ]
        for s in peers(r)
    ]
    own, *others = peers(r)
    ahead = [o.name for o in others if own.ahead_of(o)]
    said = "; ".join(ahead) if ahead else "none of them"
    return [
        f"The same clip, the same pipeline functions and the same graphs, {r['clients']} clients in a closed "
        "loop, on the same cores, one server at a time by turns. Slowest start is the slowest of the first "
        "requests of all clients, which meet an idle server at once and are in no percentile. Memory is that "
        "of all processes of a server together.",
        table(
            [
                "Server",
                "How",
                "Requests/s",
                "p50",
                "p95",
                "Slowest start",
                "CPU a request",
                "Idle memory",
                "Peak memory",
            ],
            rows,
        ),
        f"More requests/s in every round, at an equal or better p95, than: {said} "
        f"(of {len(others)} configurations).",
        "![Requests a second and p95](benchmarks/peers.png)",
    ]


def _ancestor(r: Json) -> list[str]:
    own, a = Spread.of(r["own_cpu_s"]), r["ancestor"]
    ratio = a["cpu_s"] / own.median
    said = f"{ratio:.0f} times as many CPU seconds ({_target(ratio, least=100)})."
    if r["wanted_faces"] < PAPER_FACES:
        said = f"It was stopped after {a['faces']} faces instead of {PAPER_FACES}: nothing to compare."
    rows = [
        ["this service, over HTTP", f"{own.shown(3)} s", "its whole plan for the clip"],
        [
            "decode, dlib HOG on each frame, PyTorch",
            f"{a['cpu_s']:.1f} s",
            f"{a['frames']} frames read, {a['faces']} faces: {a['decode_detect_cpu_s']:.1f} s decoding and "
            f"detecting, {a['network_cpu_s']:.1f} s ResNeXt-50 and LSTM",
        ],
    ]
    return [
        "CPU seconds of one clip, the way of the paper's public ancestor beside this service (random "
        f"weights, which cost the same; dlib {a['dlib']}, PyTorch {a['torch']}):",
        table(["How", "CPU", "Work"], rows),
        said,
    ]


def _sparse(r: Json) -> list[str]:
    f = sparse(r)
    rows = [
        ["median IoU, all frames looked at", f"{f.iou:.3f}", _target(f.iou, least=0.9)],
        ["median IoU, only frames between detections", _or_dash(f.iou_between), ""],
        ["5% of the frames are below", f"{f.low:.3f}", ""],
        ["clips with the same set of tracks", f"{f.same} of {f.clips} ({f.same / f.clips:.0%})", ""],
        ["frames of a partner that dense detection missed", f"{f.alone:.2%}", ""],
        ["frames searched for faces", f"{f.detections[0]} of {f.detections[1]}", ""],
    ]
    kind = "of the given table" if r["clips"] == "given" else "made by the command"
    left = f"; {r['unreadable']} more could not be read" if r["unreadable"] else ""
    return [
        f"{f.clips} clips {kind}{left}. Sparse is what the service does, dense is the detector on every "
        "frame with the same tracker. Tracks in fewer than two of the bursts that were looked at are ignored "
        "on both sides.",
        table(["", "Measured", ""], rows),
        "![Distribution of IoU](benchmarks/sparse.png)",
    ]


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


SECTIONS: dict[str, tuple[str, Callable[[Json], list[str]]]] = {
    "limit": ("The limit: the service beside its own stages", _limit),
    "growth": ("Growth: longer and larger clips", _growth),
    "cost": ("Cost: what a clip and a second of a face take", _cost),
    "peers": ("Peers: other serving frameworks", _peers),
    "ancestor": ("The ancestor: every frame, dlib, PyTorch", _ancestor),
    "sparse": ("Sparse detection beside detecting on every frame", _sparse),
}
