"""Requests that Schemathesis makes from the OpenAPI document, and whether the answers conform to it."""

import json
import re
import subprocess
import time
from collections import Counter, defaultdict
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

import httpx

from benchmarks.bench import ROOT, BenchError
from benchmarks.servers import clean, service
from reliability.judging import PROBLEM_TYPE
from reliability.lab import Lab, read_log

TOOL = ROOT / ".venv-schemathesis/bin/schemathesis"
CHECKS = (
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)
NOT_OFFERED = "what is not offered"
PATIENCE_S = 900
FOREIGN = "/v2/"
"""Routes of a protocol that has errors of its own."""
_TITLE = re.compile(r"^- (.+)$", re.MULTILINE)


def measure(lab: Lab) -> dict[str, Any]:
    """So many examples of each operation. Raises BenchError where the tool is not installed."""
    if not TOOL.is_file():
        raise BenchError(f"Schemathesis is not installed in {TOOL.parents[1].name}: make reliability")
    junit, har = lab.bench.folder / "junit.xml", lab.bench.folder / "requests.har"
    begun = time.perf_counter()
    with service(lab.bench) as server:
        paths = httpx.get(f"{server.url}/openapi.json", trust_env=False).raise_for_status().json()["paths"]
        command = [
            *(str(TOOL), "run", f"{server.url}/openapi.json", "--no-color", "--warnings", "off"),
            *("--max-examples", str(lab.counts.examples), "--seed", str(lab.seed)),
            *("--phases", "examples,coverage,fuzzing", "--continue-on-failure", "--request-timeout", "60"),
            *("--checks", ",".join(CHECKS), "--report", "junit,har"),
            *("--report-junit-path", str(junit), "--report-har-path", str(har)),
        ]
        done = subprocess.run(  # noqa: S603 - a fixed program
            command,
            cwd=lab.bench.folder,
            env=clean() | {"DO_NOT_TRACK": "1"},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    if not (junit.is_file() and har.is_file()):
        raise BenchError(f"Schemathesis gave no report: {' / '.join(done.stdout.splitlines()[-3:])}")
    entries = json.loads(har.read_text(encoding="utf-8"))["log"]["entries"]
    return {
        "seconds": time.perf_counter() - begun,
        "checks": list(CHECKS),
        **requested(entries, paths),
        "findings": findings(junit.read_text(encoding="utf-8")),
        "log_errors": read_log(server.log).errors,
    }


def requested(entries: list[dict[str, Any]], paths: dict[str, Any]) -> dict[str, Any]:
    """Of the requests of an HTTP archive: how many of each route came to what, and which errors were no
    problem documents. paths: those of the document."""
    routes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    wrong: Counter[str] = Counter()
    for entry in entries:
        path, status = urlsplit(entry["request"]["url"]).path, int(entry["response"]["status"])
        route = _route(entry["request"]["method"], path, paths)
        routes[route][str(status)] += 1
        kind = entry["response"]["content"]["mimeType"].partition(";")[0]
        if status >= 400 and not path.startswith(FOREIGN) and kind != PROBLEM_TYPE:
            wrong[f"{route}: {status} as {kind or 'nothing'}"] += 1
    return {
        "requests": len(entries),
        "routes": {name: dict(sorted(found.items())) for name, found in sorted(routes.items())},
        "errors_that_are_no_problems": dict(wrong),
    }


def _route(method: str, path: str, paths: dict[str, Any]) -> str:
    """The operation of the document that a request is meant for."""
    for known, operations in paths.items():
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]*", re.escape(known))
        if method.lower() in operations and re.fullmatch(pattern, path):
            return f"{method} {known}"
    return NOT_OFFERED


def findings(junit: str) -> dict[str, dict[str, int]]:
    """What did not conform, by operation, with how often it was told."""
    found: dict[str, dict[str, int]] = {}
    for case in ET.fromstring(junit).iter("testcase"):  # noqa: S314 - the tool's own report
        texts = [f"{f.get('message') or ''}\n{f.text or ''}" for f in case.findall("failure")]
        texts += [f"- error: {(e.get('message') or '')[:200]}" for e in case.findall("error")]
        titles = Counter(t for text in texts for t in _TITLE.findall(text))
        if titles:
            found[case.get("name") or ""] = dict(titles)
    return found
