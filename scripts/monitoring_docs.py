"""Writes what is generated of monitoring: docs/metrics.md and the rules of k8s/components/monitoring."""

from pathlib import Path
from typing import Any, get_args

import yaml
from prometheus_client.metrics import MetricWrapperBase

from pipeline.credentials import Unchecked
from service.metrics import Metrics

ROOT = Path(__file__).resolve().parent.parent
METRICS = ROOT / "docs" / "metrics.md"
RULES = ROOT / "monitoring" / "rules.yml"
MANIFEST = ROOT / "k8s" / "components" / "monitoring" / "prometheusrule.yaml"
HEAD = """\
# Metrics

`GET /metrics` gives them in the format of Prometheus, or of OpenMetrics where `Accept` asks for it.
Durations are seconds, sizes are bytes; every label has a bounded number of values. A counter is shown as it
is queried, with `_total`; a histogram has `_bucket`, `_sum` and `_count` behind its name. `monitoring/` holds
rules and a dashboard, [deployment.md](deployment.md#monitoring) says how to use them. Written by `make docs`.

"""
UNITS = ("seconds", "bytes")
LABELS = {
    "cause": "`client` where it had gone, `deadline` where the answer, or the clip, would have come too late",
    "graph": "`encoder` or `temporal`; those of all bundles together",
    "id": "a bundle's id",
    "key": "the name of a client's key",
    "method": "the HTTP method, `other` where it is none of the usual ones",
    "model": "a bundle's id",
    "queue": "what was waited for: `decoder`, `encoder` or `temporal`",
    "reason": "of a problem its type ([errors.md](errors.md)); of a decoder why it ended: `cpu`, `crash`, "
    "`failure`, `timeout`, `cancelled`, `recycled`, `protocol` or `start`",
    "result": "of a self-test: `right`, `wrong`, `unanswered`, or `unknown` where the bundle knows no answer"
    "; of a manifest: `valid`, `invalid`, or why it was not looked into ([provenance.md](provenance.md)): "
    + ", ".join(f"`{why}`" for why in get_args(Unchecked)),
    "route": "the route's template, `unmatched` where there is none",
    "stage": "`upload`, `queue` (all waits; of what was given up the one for a decoder), `decode`, `detect`, "
    "`crop`, `encode`, `temporal`, `explain` or `total`",
    "status": "the HTTP status, or its class (`2xx`); 499 where the client had gone",
    "verdict": "`authentic`, `manipulated`, `uncertain` or `not_applicable`",
}


def registered() -> dict[str, MetricWrapperBase]:
    """The service's own metrics by the name that they are queried by, in the order of their declaration."""
    own = [metric for metric in vars(Metrics()).values() if isinstance(metric, MetricWrapperBase)]
    suffix = {"counter": "_total", "info": "_info"}
    described = ((next(iter(metric.describe())), metric) for metric in own)
    return {family.name + suffix.get(family.type, ""): metric for family, metric in described}


def labels_of(metric: MetricWrapperBase) -> tuple[str, ...]:
    """Names of a metric's labels, which no public part of prometheus_client tells."""
    names: tuple[str, ...] = metric._labelnames
    return names


def unit_of(name: str) -> str:
    """The base unit in a metric's name, empty where it counts things."""
    return next((unit for unit in UNITS if unit in name.split("_")[-2:]), "")


def metrics_page() -> str:
    """The whole of docs/metrics.md."""
    rows = ["| Metric | Type | Labels | Unit | Meaning |", "| --- | --- | --- | --- | --- |"]
    used: set[str] = set()
    for name, metric in registered().items():
        family, labels = next(iter(metric.describe())), labels_of(metric)
        used |= set(labels)
        names = ", ".join(f"`{label}`" for label in labels)
        rows.append(f"| `{name}` | {family.type} | {names} | {unit_of(name)} | {family.documentation} |")
    legend = [
        "| Label | Values |",
        "| --- | --- |",
        *(f"| `{name}` | {LABELS[name]} |" for name in sorted(used)),
    ]
    process = ["| Metric | Type | Unit | Meaning |", "| --- | --- | --- | --- |", *_process_rows()]
    parts = ["\n".join(rows), "\n".join(legend), "## Of the process\n\n" + "\n".join(process)]
    return HEAD + "\n\n".join(parts) + "\n"


def _process_rows() -> list[str]:
    """What prometheus_client tells of the server's process; its decoders are processes of their own."""
    rows = []
    for family in Metrics().registry.collect():
        if family.name.startswith("process_"):
            name = family.name + ("_total" if family.type == "counter" else "")
            rows.append(f"| `{name}` | {family.type} | {unit_of(name)} | {family.documentation} |")
    return rows


def manifest() -> str:
    """The PrometheusRule with the rules of monitoring/rules.yml."""
    groups: list[dict[str, Any]] = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    content = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "deepfake-detect", "labels": {"app.kubernetes.io/name": "deepfake-detect"}},
        "spec": {"groups": groups},
    }
    head = "# The rules of monitoring/rules.yml; written by `make docs`.\n"
    return head + yaml.safe_dump(content, sort_keys=False, width=110, allow_unicode=True)


def main() -> None:
    """Write both."""
    METRICS.write_text(metrics_page(), encoding="utf-8")
    MANIFEST.write_text(manifest(), encoding="utf-8")


if __name__ == "__main__":
    main()
