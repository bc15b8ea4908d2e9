"""Metrics are documented and named as Prometheus wants; rules and dashboard query only what exists."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any, Literal, get_args

import pytest
import yaml
from prometheus_client import generate_latest

from pipeline.answer import Verdict
from scripts.monitoring_docs import (
    LABELS,
    MANIFEST,
    METRICS,
    ROOT,
    RULES,
    UNITS,
    labels_of,
    manifest,
    metrics_page,
    registered,
)
from service.child import Reason
from service.metrics import Cause, Found, Metrics, Result, Stage
from service.problems import PROBLEMS
from tests.monitoring import (
    ALERTS,
    DASHBOARD,
    GROUPED,
    GROUPS,
    RECORDS,
    panels,
    scalers,
    selectors,
)

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs promtool, of Debian's package prometheus")
DEPLOYMENT_DOCS = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
TESTS = ("rules_test.yml", "drift_test.yml")
OF_THE_TARGET = {"job", "instance", "namespace", "pod"}
"""Labels that Prometheus adds to all that it scrapes from a pod."""


def series() -> dict[str, set[str]]:
    """All that can be queried, with its labels."""
    found: dict[str, set[str]] = {"up": set()}
    for name, metric in registered().items():
        (family,) = metric.describe()
        labels = set(labels_of(metric))
        if family.type == "histogram":
            found |= {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels, f"{name}_count": labels}
        elif family.type == "info":
            found[name] = labels | {"digest", "precision", "trained", "provider"}
        else:
            found[name] = labels
    for family in Metrics().registry.collect():
        if family.name.startswith("process_"):
            found |= {sample.name: set(sample.labels) for sample in family.samples}
    for rule in RECORDS:
        found[rule["record"]] = set(rule["record"].split(":")[0].split("_"))
    return found


SERIES = series()


def queries() -> Iterator[tuple[str, str]]:
    """Where a query stands, and the query."""
    for rule in (*RECORDS, *ALERTS):
        yield rule.get("record") or rule["alert"], rule["expr"]
    yield from panels()
    yield from scalers()


QUERIES = list(queries())


def grouped(query: str) -> set[str]:
    return {label.strip() for labels in GROUPED.findall(query) for label in labels.split(",")}


def test_page_is_what_the_code_registers() -> None:
    assert METRICS.read_text(encoding="utf-8") == metrics_page(), "run `make docs`"


@pytest.mark.parametrize("name", registered())
def test_metric_and_its_labels_are_documented(name: str) -> None:
    page, metric = METRICS.read_text(encoding="utf-8"), registered()[name]
    (family,) = metric.describe()
    assert f"| `{name}` | {family.type} |" in page
    assert family.documentation.endswith(".")
    assert set(labels_of(metric)) <= set(LABELS)


@pytest.mark.parametrize("name", registered())
def test_metric_is_named_as_prometheus_wants(name: str) -> None:
    """https://prometheus.io/docs/practices/naming/"""
    (family,) = registered()[name].describe()
    assert re.fullmatch(r"detector(_[a-z0-9]+)+", name)
    words = name.removesuffix("_total").split("_")
    assert (family.type == "counter") is name.endswith("_total")
    assert not {"ms", "milliseconds", "minutes", "mb", "mib", "kb", "percent"} & set(words), "base units"
    assert words[-1] not in ("sum", "count", "bucket")
    assert not set(UNITS) & set(words[:-1]), "the unit stands at the end"
    for label in labels_of(registered()[name]):
        assert re.fullmatch(r"[a-z][a-z_]*", label)
        assert label not in {"le", "quantile", *OF_THE_TARGET}


@needs_promtool
def test_promtool_finds_nothing_wrong_with_the_metrics() -> None:
    assert PROMTOOL is not None
    exposed = generate_latest(Metrics().registry)
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=exposed, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@needs_promtool
def test_promtool_takes_the_rules_and_each_alert_rises_when_it_should() -> None:
    assert PROMTOOL is not None
    for command in (("check", "rules", "rules.yml"), ("test", "rules", *TESTS)):
        done = subprocess.run(
            [PROMTOOL, *command], cwd=RULES.parent, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[where for where, _ in QUERIES])
def test_query_uses_metrics_and_labels_that_exist(where: str, query: str) -> None:
    found = selectors(query)
    assert found, "every query selects something"
    for name, matchers in found:
        assert name in SERIES, name
        assert set(matchers) <= SERIES[name] | OF_THE_TARGET, name
    assert grouped(query) <= set().union(*(SERIES[name] for name, _ in found)) | OF_THE_TARGET


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[where for where, _ in QUERIES])
def test_query_asks_for_values_that_occur(where: str, query: str) -> None:
    paths = json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))["paths"]
    results = set(get_args(Result))
    known = {"route": set(paths), "result": results, "graph": {"encoder", "temporal"}, "stage": {"total"}}
    for name, matchers in selectors(query):
        reasons = set(get_args(Reason)) if name == "detector_decoder_restarts_total" else set(PROBLEMS)
        for label, values in (known | {"reason": reasons}).items():
            if label in matchers:
                assert set(matchers[label][1].split("|")) <= values


def test_queries_are_read_as_they_are_meant() -> None:
    query = 'sum by (job, le) (rate(detector_x_bucket{route="/a",status=~"5.."}[5m])) / on (job) job:x_y:sum'
    assert selectors(query) == [
        ("detector_x_bucket", {"route": ("=", "/a"), "status": ("=~", "5..")}),
        ("job:x_y:sum", {}),
    ]
    assert grouped(query) == {"job", "le"}


@pytest.mark.parametrize(
    ("label", "values"),
    [("cause", Cause), ("result", Literal[Result, Found]), ("stage", Stage), ("verdict", Verdict)],
)
def test_values_of_a_label_are_documented_and_their_series_begin_at_0(label: str, values: Any) -> None:
    assert set(get_args(values)) <= set(re.findall(r"`(\w+)`", LABELS[label]))
    metrics = Metrics()
    metrics.serve("m")
    begun = [s for family in metrics.registry.collect() for s in family.samples if label in s.labels]
    assert {sample.labels[label] for sample in begun} == set(get_args(values))
    assert {sample.value for sample in begun} == {0}


def test_reasons_begin_at_0() -> None:
    begun = [s for family in Metrics().registry.collect() for s in family.samples if "reason" in s.labels]
    assert {sample.labels["reason"] for sample in begun} == {*PROBLEMS, *get_args(Reason)}
    assert {sample.value for sample in begun} == {0}


def test_component_holds_the_same_rules() -> None:
    assert MANIFEST.read_text(encoding="utf-8") == manifest(), "run `make docs`"
    assert yaml.safe_load(manifest())["spec"]["groups"] == GROUPS


@pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: rule["alert"])
def test_alert_says_how_bad_it_is_and_where_its_remedy_stands(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert {"summary", "description", "runbook"} == set(alert["annotations"])
    assert alert["annotations"]["runbook"] == f"docs/deployment.md#{alert['alert'].lower()}"
    assert f"\n#### {alert['alert']}\n" in DEPLOYMENT_DOCS


def test_docs_name_no_other_alerts_and_each_is_tested() -> None:
    assert re.findall(r"^#### (Detector\w+)$", DEPLOYMENT_DOCS, re.MULTILINE) == [a["alert"] for a in ALERTS]
    files = [yaml.safe_load((RULES.parent / name).read_text(encoding="utf-8")) for name in TESTS]
    asked = [rule for file in files for test in file["tests"] for rule in test["alert_rule_test"]]
    for alert in ALERTS:
        raised = {bool(rule.get("exp_alerts")) for rule in asked if rule["alertname"] == alert["alert"]}
        assert raised == {True, False}, alert["alert"]


def test_panels_have_their_own_place_and_number() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
