"""A real Prometheus watches a real service at work: dashboard, rules and scalers are answered with data."""

import math
import re
import shutil
import signal
import socket
import subprocess
import time

import httpx
import pytest
import yaml

from pipeline.sampleclip import write_sample
from scripts.monitoring_docs import ROOT, RULES
from service.keys import line_for
from tests.monitoring import ALERTS, DASHBOARD, RECORDS, panels, scalers, selectors
from tests.server import Server

PROMETHEUS = shutil.which("prometheus")
pytestmark = pytest.mark.skipif(
    PROMETHEUS is None, reason="needs prometheus, of Debian's package of that name"
)
MODEL = "native-lstm-2"
KEY, RARE = "the-key-of-this-test", "a-key-that-is-used-too-often"
VARIABLES = {"$job": ".+", "$__rate_interval": "5m"}
NEVER = {
    (
        'detector_http_requests_total{route="/readyz",status="503"}'
    ): "a server that is ready has refused nobody"
}
"""What alerts select and a server that is well does not have, with the reason."""
PATIENCE_S = 30.0


class Prometheus:
    """A Prometheus that scrapes one server every second and evaluates our rules as often."""

    def __init__(self, folder, target):
        rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
        for group in rules["groups"]:
            group["interval"] = "1s"
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": [
                {
                    "job_name": "deepfake-detect",
                    "static_configs": [
                        {"targets": [target], "labels": {"namespace": "default", "pod": "deepfake-detect-0"}}
                    ],
                }
            ],
        }
        for name, content in (("rules.yml", rules), ("prometheus.yml", config)):
            (folder / name).write_text(yaml.safe_dump(content), encoding="utf-8")
        self.process = subprocess.Popen(
            [
                PROMETHEUS,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--web.listen-address=127.0.0.1:0",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        log = []
        for line in self.process.stderr:
            log.append(line)
            if found := re.search(r'"Listening on".*\baddress=(\S+)', line):
                break
        else:
            raise AssertionError("".join(log))
        self.client = httpx.Client(base_url=f"http://{found[1]}/api/v1", timeout=20)

    def ask(self, path, **params):
        answer = self.client.get(path, params=params)
        assert answer.status_code == 200, (path, params, answer.text)
        return answer.json()["data"]

    def has(self, query):
        """Whether a query is answered with a number."""
        found = self.ask("/query", query=query)["result"]
        return any(math.isfinite(float(one["value"][1])) for one in found)

    def stop(self):
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=60)


def until(true, what):
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, what()
        time.sleep(0.5)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    shutil.copytree(ROOT / "models" / MODEL, folder / "models" / MODEL)
    keys = [line_for("test", KEY), line_for("rare", RARE) + " rate=1/min"]
    (folder / "keys").write_text("\n".join(keys) + "\n", encoding="utf-8")
    one = Server(
        folder,
        folder / "models",
        api_keys_file=folder / "keys",
        canary_every_s=2,
        decoder_clips=2,
        max_in_flight=2,
        threads=1,
    )
    yield one
    assert one.stop() == 0


@pytest.fixture(scope="module")
def prometheus(server, tmp_path_factory):
    """One that has seen the server before, while and after it was at work."""
    one = Prometheus(tmp_path_factory.mktemp("prometheus"), server.url.removeprefix("http://"))
    try:
        until(lambda: one.has("detector_verdicts_total"), lambda: "nothing is scraped")
        clips = work(server, tmp_path_factory.mktemp("media"))
        seen = f"sum(detector_verdicts_total) == {clips}"
        until(lambda: one.has(seen), lambda: "the clips are not counted")
        yield one
    finally:
        one.stop()


def work(server, folder):
    """Have the server answer some clips, refuse and break off others. Returns how many it has answered."""
    clips = [
        write_sample(folder / f"{faces}.mp4", seconds=2, size=496, faces=faces).read_bytes()
        for faces in (1, 2)
    ]

    def ask(content, key=KEY, **params):
        headers = {"content-type": "video/mp4"} | ({"x-api-key": key} if key else {})
        return server.client.post("/v1/detect", content=content, headers=headers, params=params).status_code

    assert [ask(clip) for clip in 2 * clips] == [200] * 4
    assert ask(b"no clip") == 415
    assert ask(clips[0], deadline_ms=1) == 504
    assert ask(clips[0], key=None) == 401
    assert [ask(b"no clip", key=RARE) for _ in range(2)] == [415, 429]
    host, port = server.url.removeprefix("http://").split(":")
    head = f"POST /v1/detect HTTP/1.1\r\nHost: test\r\nX-API-Key: {KEY}\r\nContent-Type: video/mp4\r\n"
    places = [socket.create_connection((host, int(port))) for _ in range(2)]
    for place in places:
        place.sendall(f"{head}Content-Length: 1000\r\n\r\nx".encode())
    until(
        lambda: "detector_requests_in_flight 2.0" in server.client.get("/metrics").text, lambda: "no places"
    )
    assert ask(clips[0]) == 503
    for place in places:
        place.close()
    return 4


def filled(query):
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    return query


def check_all(prometheus, queries):
    """Each is answered with data, those of a rule or two behind it a few evaluations later."""
    missing = list(queries)

    def none_missing():
        missing[:] = [(where, query) for where, query in missing if not prometheus.has(filled(query))]
        return not missing

    assert missing
    until(none_missing, lambda: missing)


def test_every_panel_shows_data(prometheus):
    check_all(prometheus, panels())


def test_every_variable_of_the_dashboard_has_values(prometheus):
    asked = [v["query"]["query"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]
    (metric, label) = re.fullmatch(r"label_values\((\w+), (\w+)\)", *asked).groups()
    assert prometheus.ask(f"/label/{label}/values", **{"match[]": metric}) == ["deepfake-detect"]


def test_every_record_is_recorded(prometheus):
    check_all(
        prometheus, [(rule["record"], query) for rule in RECORDS for query in (rule["record"], rule["expr"])]
    )


def test_every_scaler_is_answered(prometheus):
    check_all(prometheus, scalers())


def test_every_alert_is_evaluated_on_series_that_exist(prometheus):
    groups = prometheus.ask("/rules", type="alert")["groups"]
    rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert {name: rule["lastError"] for name, rule in rules.items() if rule["health"] != "ok"} == {}
    assert set(rules) == {alert["alert"] for alert in ALERTS}
    selected = {
        (alert["alert"], name + "{" + ",".join(f'{k}{op}"{v}"' for k, (op, v) in matchers.items()) + "}")
        for alert in ALERTS
        for name, matchers in selectors(alert["expr"])
    }
    check_all(prometheus, [(alert, query) for alert, query in sorted(selected) if query not in NEVER])
    assert set(NEVER) <= {query for _, query in selected}
