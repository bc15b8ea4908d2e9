"""The section of the document that tells of replicas behind a balancer."""

from typing import Any

from benchmarks.figures import number
from benchmarks.summary import Spread, percentile
from reliability.words import counts, met
from training.report import table

Json = dict[str, Any]


def replicas(r: Json) -> list[str]:
    """Of the results of `replicas`."""
    if "skipped" in r:
        return [f"Skipped: {r['skipped']}."]
    a = r["answers"]
    apart = "-" if a["apart"] is None else f"{a['apart']:.1e}"
    several = list(r["rounds"][0])[-1].partition(",")[0]
    return [
        f"Clips of {r['clip']['seconds']} s at {r['clip']['height']}p, {r['clients']} clients in a closed "
        f"loop, on the same {r['cores']} cores: one replica with {r['cores']} threads and decoders beside "
        f"{several} with {r['threads_each']} each, behind HAProxy {r['version']} (`balance "
        f"{r['balance']}`). Ratios are taken within a round. Memory is that of all replicas together.",
        _throughput(r),
        f"No client sticks to a replica: of {a['requests']} requests, one at a time, over {a['connections']} "
        f"connections ({counts(a['by_replica'])}), {a['moved']} of {a['followed']} that followed another one "
        f"on their connection came from another replica; probabilities of the clip were {apart} apart.",
        f"Then at {r['rate']:.1f} clips/s ({r['share']:.0%} of the closed loop's rate) at random times one "
        f"replica after the other, {r['kills'][0]['kills']} in all, is ended by SIGKILL and started anew. A "
        "clip that was being worked on is lost with its replica, since the balancer keeps no body of that "
        f"size; a client can send it again, here up to {r['tries']} times in all.",
        _kills(r["kills"]),
    ]


def _throughput(r: Json) -> str:
    rounds: list[Json] = r["rounds"]
    alone = next(iter(rounds[0]))

    def over(name: str, key: str) -> Spread:
        return Spread.of([one[name][key] for one in rounds])

    rows = []
    for name in rounds[0]:
        times = [t for one in rounds for t in one[name]["latency_s"]]
        ratio = Spread.of([o[name]["requests_per_s"] / o[alone]["requests_per_s"] for o in rounds])
        rows.append(
            [
                name,
                over(name, "requests_per_s").shown(),
                ratio.shown(),
                f"{percentile(times, 0.5):.2f} s, {percentile(times, 0.95):.2f} s",
                f"{over(name, 'cpu_s_per_request').shown(0, 1000)} ms",
                f"{over(name, 'balancer_cpu_s_per_request').shown(1, 1000)} ms",
                f"{number(r['memory_bytes'][name], binary=True)}iB",
            ]
        )
    head = ["How", "Requests/s", "Of one replica", "p50, p95", "CPU a request", "Of the balancer", "Memory"]
    return table(head, rows)


def _kills(runs: list[Json]) -> str:
    rows = [
        [
            run["balancer"],
            str(run["clips"]),
            f"{run['failed_at_first']} ({run['failed_at_first'] / run['clips']:.1%})",
            f"{run['failed_in_the_end']} {met(not run['failed_in_the_end'], 'none')}",
            counts(run["failures"]),
            str(run["left_processes"]),
        ]
        for run in runs
    ]
    head = ["The balancer", "Clips", "Failed at first", "Failed though sent again", "How", "Processes left"]
    return table(head, rows)
