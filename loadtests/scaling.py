"""`python -m loadtests.scaling`: docs/scaling.md, computed from what was measured."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.figures import ClipCost, cost, limit, number
from benchmarks.report import basis
from benchmarks.stages import SHARED, STAGES
from loadtests.arithmetic import Replica, balancer_seconds, replica, split
from loadtests.tables import summary, thresholds
from pipeline.engine import BEST_BATCH
from pipeline.runtime import CUDA
from training.report import table

Json = dict[str, Any]
RATES = (1.0, 100.0, 10_000.0)
HEADROOM = 0.7
PRICE_RATIOS = (5.0, 10.0, 20.0, 50.0, 100.0)
LINK_BITS = 10e9
"""A second: of the network link that saturation is told of."""
SOURCES = {
    "cost": ("benchmarks/cost.json", 'make bench BENCH="cost"'),
    "limit": ("benchmarks/limit.json", 'make bench BENCH="limit"'),
    "cuda": ("benchmarks/cuda/resnext50-lstm-1.json", "python -m benchmarks.gpu"),
    "growth": ("benchmarks/growth.json", 'make bench BENCH="growth"'),
    "replicas": ("reliability/replicas.json", "python -m reliability replicas"),
    "load": ("scaling/load.json", 'make load LOAD="--publish docs"'),
}
"""Where each measurement lies, and the command that makes it."""
HEAD = """# Scaling

Written by `python -m loadtests.scaling`: every number below is measured, or computed from measured ones as
shown; [loadtests/README.md](../loadtests/README.md) says how to repeat it. A replica is one server with the
cores that were measured. Costs are CPU seconds, and a GPU is worth as many cores as you pay for it: no price
is assumed."""
QUICK = "**Partly from quick runs, to see that it works: such figures are not to be quoted.**"


class Missing(Exception):
    """A section lacks what it is computed from. The message is the command that measures it."""


def main(
    docs: Annotated[Path, typer.Option(help="Folder with the results; gets scaling.md.")] = Path("docs"),
    headroom: Annotated[
        float, typer.Option(min=0.1, max=1.0, help="Share of a replica's rate that is planned with.")
    ] = HEADROOM,
    price_ratio: Annotated[
        list[float] | None, typer.Option(min=0.1, help="What a GPU costs in cores; may be given often.")
    ] = None,
) -> None:
    """Render the document."""
    text = render(read(docs), headroom, tuple(price_ratio or PRICE_RATIOS))
    (docs / "scaling.md").write_text(text, encoding="utf-8")


def read(docs: Path) -> dict[str, Json]:
    """What was measured, by its name in SOURCES."""
    files = {name: docs / at for name, (at, _) in SOURCES.items()}
    return {name: json.loads(at.read_text(encoding="utf-8")) for name, at in files.items() if at.is_file()}


def render(
    found: dict[str, Json], headroom: float = HEADROOM, price_ratios: tuple[float, ...] = PRICE_RATIOS
) -> str:
    """The document in Markdown; what was not measured says so."""
    sections: dict[str, Callable[[], list[str]]] = {
        "What a clip costs": lambda: _costs(found),
        "How many replicas": lambda: _replicas(found, headroom),
        "What saturates first": lambda: _saturation(found),
        "When a GPU pays off": lambda: _gpu(found, price_ratios),
        "Replicas behind a balancer": lambda: _balancer(found),
        "Under load": lambda: _load(found),
    }
    parts = [HEAD]
    if any(m.get("quick") for m in found.values()):
        parts.append(QUICK)
    for title, section in sections.items():
        parts.append(f"## {title}")
        try:
            parts += section()
        except Missing as e:
            parts.append(f"Not measured yet: `{e}`.")
    return "\n\n".join(parts) + "\n"


def _of(found: dict[str, Json], name: str) -> Json:
    if name not in found:
        raise Missing(SOURCES[name][1])
    results: Json = found[name]["results"]
    return results


def _clip(c: ClipCost) -> str:
    return f"{c.seconds:g} s, {c.faces} face{'s' if c.faces > 1 else ''}, {c.width}x{c.height}"


def _costs(found: dict[str, Json]) -> list[str]:
    r = _of(found, "cost")
    rows = [
        [
            _clip(c),
            f"{c.cpu.shown(2)} s",
            f"{c.per_face_second.shown(0, 1000)} ms",
            c.rate.shown(),
            f"{c.rate.median / r['cores']:.2f}",
        ]
        for c in cost(r)
    ]
    return [
        f"Under load, on {r['cores']} cores, all processes of the service together. A second of a face costs "
        "less in a longer clip, since the plan looks at as many frames of it.",
        table(["Clip", "CPU a clip", "CPU a face-second", "Clips/s", "Clips/s a core"], rows),
        basis(found["cost"]),
    ]


def _planned(found: dict[str, Json], headroom: float) -> tuple[list[ClipCost], Replica]:
    r = _of(found, "cost")
    return cost(r), replica(cost(r)[0], int(r["cores"]), headroom, _of(found, "growth"))


def _replicas(found: dict[str, Json], headroom: float) -> list[str]:
    clips, one = _planned(found, headroom)
    balancer_s = balancer_seconds(_of(found, "replicas"))
    plans = [one.plan(rate, clips[0], balancer_s) for rate in RATES]
    rows = [
        [
            f"{p.rate:,.0f}",
            f"{p.rate:,.0f} / ({one.rate:.2f} x {one.headroom:g}) = {p.exact:,.2f}",
            f"{p.replicas:,}",
            f"{p.cores:,}",
            f"{number(p.memory, binary=True)}iB",
            f"{number(8 * p.ingress)}bit/s",
            f"{p.balancer_cores:.2f}",
        ]
        for p in plans
    ]
    others = [
        [_clip(c), *(f"{one.of(c).plan(rate, c, balancer_s).replicas:,}" for rate in RATES)] for c in clips
    ]
    return [
        f"A replica has {one.cores} cores, as the Deployment in `k8s/base` asks for, and gives at most "
        f"{one.rate:.2f} clips/s of the first kind; {one.headroom:.0%} of that is planned with, so that the "
        "others bear one that is lost or started anew. Replicas are clips/s divided by both, rounded up.",
        table(
            ["Clips/s", "Arithmetic", "Replicas", "Cores", "Memory", "Into them", "Balancer's cores"],
            rows,
        ),
        "Replicas for the other kinds of clips, by clips/s:",
        table(["Clip", *(f"{rate:,.0f}" for rate in RATES)], others),
        f"Memory is the peak of one replica ({number(one.memory, binary=True)}iB) times their number; limits "
        "must allow for more ([deployment.md](deployment.md)). The balancer's cores are its CPU time of one "
        "request by their rate. Where there is but one replica nothing bears its loss: run two.",
    ]


def _saturation(found: dict[str, Json]) -> list[str]:
    f, clips = limit(_of(found, "limit")), cost(_of(found, "cost"))
    balancer_s = balancer_seconds(_of(found, "replicas"))
    whole = f.cpu_per_request.median
    spent = {name: f.stages[name].cpu.median for name in STAGES[:-1]} | {SHARED: f.shared.cpu.median}
    spent["everything else"] = whole - sum(spent.values())
    shares = [[name, f"{s * 1000:.0f} ms", f"{s / whole:.0%}"] for name, s in spent.items()]
    clip = clips[0]
    ends = [
        ["cores of one replica", f"{clip.busy.median:.0%} busy at the rate", f"{clip.rate.median:.2f}"],
        [
            "one core of the balancer",
            f"1 s / {balancer_s * 1000:.2f} ms",
            f"{1 / balancer_s:,.0f}" if balancer_s else "-",
        ],
        [
            f"a link of {number(LINK_BITS)}bit/s",
            f"{number(LINK_BITS)} / (8 x {number(clip.bytes)}B)",
            f"{LINK_BITS / 8 / clip.bytes:,.0f}",
        ],
    ]
    return [
        "The cores of the replicas, long before anything else. Memory is bounded: at most "
        "`DETECTOR_MAX_IN_FLIGHT` clips lie on disk, and what waits for the encoder is limited, too. Of the "
        "CPU time of a clip of ten seconds with one face, measured in the service and stage by stage:",
        table(["Stage", "CPU", "Share"], shares),
        f"Clips/s at which each would be full, for clips of {number(clip.bytes)}B:",
        table(["What", "Arithmetic", "Clips/s"], ends),
        basis(found["limit"]),
    ]


def _gpu(found: dict[str, Json], price_ratios: tuple[float, ...]) -> list[str]:
    r = _of(found, "limit")
    s, samples = split(limit(r)), r["clip"]["samples"]
    rows = [
        [
            f"{ratio:g}",
            f"{ratio:g} / {s.graphs:.3f} = {s.break_even(ratio):.1f}",
            f"{s.break_even(ratio) * samples:,.0f}",
            f"{s.host_cores(s.break_even(ratio)):.1f}",
        ]
        for ratio in price_ratios
    ]
    return [
        _card(found, samples),
        "What a card has to serve to pay off follows from the CPU's side alone. A clip takes "
        f"{s.total:.3f} s of CPU, of which a card takes over "
        f"{s.graphs:.3f} s (both graphs); decoding, finding faces, cutting and answering, {s.host:.3f} s, "
        "stay with the host. At X clips/s, with a card that costs as much as R cores:",
        f"    CPU alone       X x {s.total:.3f} cores\n"
        f"    with a card     X x {s.host:.3f} cores + R\n"
        f"    card pays off   X x {s.graphs:.3f} > R, and the card serves X clips/s",
        table(
            ["R", "X: R / CPU of the graphs", f"Samples/s of the encoder, {samples} a clip", "Host cores"],
            rows,
        ),
        f"However fast the card, {s.host / s.total:.0%} of the cores stay, so that it saves at most "
        f"{s.graphs / s.total:.0%} of them; where the host has fewer cores than the last column, decoding is "
        "the limit and the card idles. A cheaper encoder moves the break-even up, a dearer one down.",
        basis(found["limit"]),
    ]


def _card(found: dict[str, Json], samples: int) -> str:
    """What a card does with the graphs alone, in batches as the service makes them unless told otherwise."""
    if "cuda" not in found:
        raise Missing(SOURCES["cuda"][1])
    card = found["cuda"]
    curve = card["curves"]["ONNX Runtime CUDA, fp32"]
    own = next(p for p in curve if p["batch"] >= BEST_BATCH[CUDA])
    best = max(curve, key=lambda p: float(p["median"]))
    rate, one_clip_ms = float(own["median"]), 1000 * float(card["clip"]["CUDA"]["median"])
    host = (
        "What the service as a whole serves on a card was not measured; its host has to decode all that the "
        "card is to judge."
    )
    return (
        f"One {card['machine']['device']} encodes {rate:,.0f} samples/s in the service's batches of "
        f"{own['batch']}, that is {rate / samples:,.0f} clips of {samples} samples a second "
        f"({float(best['median']):,.0f} samples/s in batches of {best['batch']}), and takes "
        f"{one_clip_ms:.1f} ms for both graphs of one clip when it is idle ([cuda.md](cuda.md)). "
        + ("" if card["service"] else host)
    ).strip()


def _balancer(found: dict[str, Json]) -> list[str]:
    r = _of(found, "replicas")
    if "skipped" in r:
        return [f"Skipped: {r['skipped']}."]
    names = list(r["rounds"][0])
    rates = {n: sorted(one[n]["requests_per_s"] for one in r["rounds"])[len(r["rounds"]) // 2] for n in names}
    lost = [
        f"{k['failed_at_first']} of {k['clips']} clips failed where the balancer {k['balancer']}, "
        f"{k['failed_in_the_end']} when clients sent them again"
        for k in r["kills"]
    ]
    told = ", ".join(f"{name} {rate:.2f}/s" for name, rate in rates.items())
    return [
        f"On the same {r['cores']} cores: {told} (medians). With {r['kills'][0]['kills']} replicas killed "
        f"under load, {'; '.join(lost)}. The tables stand in "
        "[reliability.md](reliability.md#replicas-behind-a-balancer).",
    ]


def _load(found: dict[str, Json]) -> list[str]:
    runs = _of(found, "load")["runs"]
    return [
        "`make load` with the service's defaults; the clients share its cores.",
        summary(runs),
        thresholds(runs),
        basis(found["load"]),
    ]


if __name__ == "__main__":
    typer.run(main)
