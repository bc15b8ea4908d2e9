"""Everything of ours that asks Prometheus: rules, the dashboard, and what scales the pods."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from scripts.monitoring_docs import ROOT, RULES


def read(path: Path) -> dict[str, Any]:
    """One YAML document."""
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


K8S = ROOT / "k8s"
GROUPS = read(RULES)["groups"]
RECORDS = [rule for group in GROUPS for rule in group["rules"] if "record" in rule]
ALERTS = [rule for group in GROUPS for rule in group["rules"] if "alert" in rule]
DASHBOARD = json.loads((ROOT / "monitoring" / "dashboard.json").read_text(encoding="utf-8"))
TRIGGERS = read(K8S / "components" / "keda" / "scaledobject.yaml")["spec"]["triggers"]
AUTOSCALER = read(K8S / "components" / "custom-metrics" / "hpa.yaml")["spec"]["metrics"]
ADAPTER = yaml.safe_load(
    read(K8S / "examples" / "prometheus-adapter" / "configmap.yaml")["data"]["config.yaml"]
)["rules"]
SELECTOR = re.compile(
    r"\b((?:detector|process|job)[a-z_]*(?::[a-z0-9_:]+)?|up)\b(?![\"(=!~])(?:\{([^}]*)\})?"
)
GROUPED = re.compile(r"\b(?:by|on)\s*\(([^)]*)\)")


def selectors(query: str) -> list[tuple[str, dict[str, tuple[str, str]]]]:
    """The series that a query selects; of each label the operator and the value."""
    bare = GROUPED.sub("", query)
    return [
        (
            found[1],
            {
                name: (op, value)
                for name, op, value in re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', found[2] or "")
            },
        )
        for found in SELECTOR.finditer(bare)
    ]


def panels() -> Iterator[tuple[str, str]]:
    """Where a query of the dashboard stands, and the query."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']}", target["expr"]


def scalers() -> Iterator[tuple[str, str]]:
    """What KEDA asks, and what prometheus-adapter asks for the autoscaler."""
    for trigger in TRIGGERS:
        yield "keda", trigger["metadata"]["query"]
    for metric in AUTOSCALER:
        name = metric["pods"]["metric"]["name"]
        (rule,) = (rule for rule in ADAPTER if re.search(rf"\b{name}\b", rule["seriesQuery"]))
        given = {"Series": name, "LabelMatchers": 'namespace="default",pod=~".+"', "GroupBy": "pod"}
        yield (
            "adapter",
            re.sub(r"<<\.(\w+)>>", lambda found, given=given: given[found[1]], rule["metricsQuery"]),
        )
