"""Keys, their rates and the headers of every answer: who is let in, how often, and what nobody is told."""

import asyncio
import base64
import hashlib
import logging
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response

from service import keys
from service.access import AccessMiddleware, Bucket
from service.keys import KeysError, Rate, line_for, read_keys
from service.logs import JsonFormatter
from service.metrics import Metrics
from service.settings import SettingsError, load_settings
from tests.bundles import tiny_bundle
from tests.unit.test_app import Running, problem

WEB, OLD, OTHER = ("web-Key_0123456789abcdefghijklmnopqrstuvwxy", "old-key", "other-key")
UNKNOWN = "nobody-has-this-key"


def write(file, *lines):
    """Replace the file at once, as an operator should."""
    new = file.with_name("new")
    new.write_text("".join(line + "\n" for line in lines))
    new.replace(file)
    return file


class Gate:
    """The middleware alone, around an application that answers 204, with a clock that stands still."""

    def __init__(self, file):
        self.now, self.metrics = 1000.1, Metrics()
        self.middleware = AccessMiddleware(self._app, file, self.metrics, clock=lambda: self.now)

    async def _app(self, scope, receive, send):
        await Response(status_code=204)(scope, receive, send)

    def answer(self, key):
        """Status and headers."""
        sent = []

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/v1/models", "state": {"request_id": "r"}}
        scope["headers"] = [(b"x-api-key", key.encode())]
        asyncio.run(self.middleware(scope, None, send))
        return sent[0]["status"], dict(sent[0]["headers"])

    def ask(self, key):
        return self.answer(key)[0]

    def retry_after(self, key):
        """Seconds to wait, None when the request was let in."""
        status, headers = self.answer(key)
        assert status in (204, 429)
        return int(headers[b"retry-after"]) if status == 429 else None


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "keys", line_for("web", WEB))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    tiny_bundle(path / "tiny")
    return path


@pytest.fixture
def unloaded(models, tmp_path, file):
    """A service with keys that was never started."""
    one = Running(models, tmp_path, api_keys_file=file)
    yield one
    one.runner.close()


@pytest.fixture
def opened(models, tmp_path):
    """A service without keys that was never started."""
    one = Running(models, tmp_path)
    yield one
    one.runner.close()


# The file


def test_a_line_says_whose_key_it_is_and_how_often_it_may_be_used(tmp_path):
    file = write(
        tmp_path / "keys",
        "# keys of the web page",
        "",
        line_for("web", WEB) + "  # until June",
        f"  mail  sha256:{hashlib.sha256(OLD.encode()).hexdigest().upper()} rate=30/min",
        line_for("jobs.2", OTHER) + "\trate=5/s burst=20",
    )
    web, mail, jobs = read_keys(file)
    assert (web.name, web.digest, web.rate) == ("web", hashlib.sha256(WEB.encode()).digest(), None)
    assert (mail.digest, mail.rate) == (hashlib.sha256(OLD.encode()).digest(), Rate(2.0, 30))
    assert (jobs.name, jobs.rate) == ("jobs.2", Rate(0.2, 20))


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["# one", WEB], "line 2 is not NAME"),
        ([f"web {WEB}"], "line 1 is not NAME"),
        ([f"web sha256:{WEB}"], "line 1 is not NAME"),
        ([line_for("web", WEB)[:-1]], "line 1 is not NAME"),
        ([line_for("two words", WEB)], "line 1 is not NAME"),
        ([line_for("n" * 65, WEB)], "line 1 is not NAME"),
        ([line_for("web", WEB) + " rate=0/s"], "line 1 is not NAME"),
        ([line_for("web", WEB) + " rate=5/h"], "line 1 is not NAME"),
        ([line_for("web", WEB) + " burst=5"], "line 1 is not NAME"),
        ([line_for("web", WEB) + " rate=5/s burst=0"], "line 1 is not NAME"),
        ([line_for("web", WEB) + " " + OLD], "line 1 is not NAME"),
        ([line_for("web", WEB), line_for("mail", WEB)], "line 2 has the hash of line 1"),
        ([line_for("web", WEB), line_for("web", OLD) + " rate=1/s"], "line 2 has another rate"),
        ([line_for(f"n{n}", f"key {n}") for n in range(1001)], "has 1001 keys; there may be 1000"),
    ],
)
def test_a_malformed_file_is_told_by_line_and_never_quoted(tmp_path, lines, says):
    with pytest.raises(KeysError, match=f"^{says}") as caught:
        read_keys(write(tmp_path / "keys", *lines))
    assert all(k not in str(caught.value) for k in (WEB, OLD, hashlib.sha256(WEB.encode()).hexdigest()))


@pytest.mark.parametrize(
    ("content", "says"), [(None, "can not be read: No such file"), (b"\xff\xfe", "is not text in UTF-8")]
)
def test_start_is_refused_in_one_line(tmp_path, monkeypatch, content, says):
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("DETECTOR_API_KEYS_FILE", str(file))
    with pytest.raises(SettingsError, match=rf"^DETECTOR_API_KEYS_FILE={file}: {says}[^\n]*$"):
        load_settings()


def test_a_new_key_is_seen_and_an_old_one_forgotten(file):
    gate = Gate(file)
    assert [gate.ask(k) for k in (WEB, OLD)] == [204, 403]
    write(file, line_for("web", WEB), line_for("web", OLD))
    assert gate.ask(OLD) == 403, "nobody has looked yet"
    gate.now += keys.LOOK_EVERY_S
    assert [gate.ask(k) for k in (WEB, OLD)] == [204, 204], "both are valid during a rotation"
    write(file, line_for("web", OLD))
    gate.now += keys.LOOK_EVERY_S
    assert [gate.ask(k) for k in (WEB, OLD)] == [403, 204]


def test_the_file_may_be_replaced_through_a_link_as_secrets_are(tmp_path):
    for name, key in (("one", WEB), ("two", OLD)):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "keys", line_for("web", key))
    (tmp_path / "data").symlink_to("one")
    gate = Gate(tmp_path / "data" / "keys")
    assert gate.ask(WEB) == 204
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(tmp_path / "data")
    gate.now += keys.LOOK_EVERY_S
    assert [gate.ask(k) for k in (WEB, OLD)] == [403, 204]


def test_the_file_is_looked_at_now_and_then_and_read_when_it_changed(file, monkeypatch):
    looks, reads = [], []
    look, read = keys._signature, keys.read_keys
    monkeypatch.setattr(keys, "_signature", lambda path: looks.append(1) or look(path))
    monkeypatch.setattr(keys, "read_keys", lambda path: reads.append(1) or read(path))
    gate = Gate(file)
    for _ in range(100):
        gate.ask(WEB)
    assert (len(looks), len(reads)) == (1, 1)
    gate.now += keys.LOOK_EVERY_S
    for _ in range(100):
        gate.ask(WEB)
    assert (len(looks), len(reads)) == (2, 1)


def test_a_file_that_breaks_keeps_its_keys_and_is_logged_once(file, caplog):
    gate = Gate(file)
    caplog.set_level(logging.INFO)

    def asked(*sent):
        caplog.clear()
        statuses = []
        for _ in range(3):
            gate.now += keys.LOOK_EVERY_S
            statuses = [gate.ask(k) for k in sent]
        return statuses, [(r.levelname, getattr(r, "reason", None)) for r in caplog.records]

    write(file, line_for("web", OLD), f"mail {OTHER}")
    statuses, logged = asked(WEB, OLD)
    assert statuses == [204, 403]
    assert [(level, why[:18]) for level, why in logged] == [("ERROR", "line 2 is not NAME")]
    file.unlink()
    statuses, logged = asked(WEB)
    assert statuses == [204]
    assert logged == [("ERROR", "can not be read: No such file or directory")]
    write(file, line_for("web", OLD))
    statuses, logged = asked(WEB, OLD)
    assert statuses == [403, 204]
    assert logged == [("INFO", None)]


def test_a_file_without_keys_lets_nobody_in(file, caplog):
    gate = Gate(write(file, "# none yet"))
    assert gate.ask(WEB) == 403
    assert [r.levelname for r in caplog.records] == ["WARNING"]


def test_a_file_that_is_gone_by_the_first_look_lets_nobody_in(tmp_path):
    assert Gate(tmp_path / "keys").ask(WEB) == 403


# Rates


def test_a_rate_is_kept_and_said_in_whole_seconds(file):
    write(file, line_for("web", WEB) + " rate=12/min burst=2", line_for("mail", OLD))
    gate = Gate(file)
    assert [gate.retry_after(WEB) for _ in range(4)] == [None, None, 5, 5]
    gate.now += 4.5
    assert gate.retry_after(WEB) == 1, "half a second is rounded up"
    gate.now += 0.5
    assert [gate.retry_after(WEB) for _ in range(2)] == [None, 5]
    gate.now += 3600
    assert [gate.retry_after(WEB) for _ in range(3)] == [None, None, 5], "more than the burst is not saved up"
    assert [gate.retry_after(OLD) for _ in range(100)] == [None] * 100


def test_keys_of_one_name_share_its_rate_and_others_have_their_own(file):
    rate = " rate=1/min burst=2"
    write(file, line_for("web", WEB) + rate, line_for("web", OLD) + rate, line_for("mail", OTHER) + rate)
    gate = Gate(file)
    assert [gate.ask(k) for k in (WEB, OLD, WEB, OLD, OTHER, OTHER, OTHER)] == [
        204,
        204,
        429,
        429,
        204,
        204,
        429,
    ]


def test_a_new_rate_holds_at_once_and_a_name_that_is_gone_is_forgotten(file):
    gate = Gate(write(file, line_for("web", WEB) + " rate=1/min burst=5"))
    assert gate.ask(WEB) == 204
    write(file, line_for("web", WEB) + " rate=1/min burst=2")
    gate.now += keys.LOOK_EVERY_S
    assert [gate.ask(WEB) for _ in range(3)] == [204, 204, 429]
    write(file, line_for("mail", OLD))
    gate.now += keys.LOOK_EVERY_S
    gate.ask(OLD)
    assert gate.middleware._buckets == {}


rates = st.builds(
    lambda n, unit, burst: Rate(unit / n, burst),
    st.integers(1, 999_999),
    st.sampled_from([1.0, 60.0]),
    st.integers(1, 50),
)


@given(rates, st.lists(st.floats(0, 100), max_size=60), st.floats(0, 1e7))
def test_never_more_than_the_burst_and_what_came_in_since(rate, pauses, begin):
    bucket, now, taken = Bucket(rate.burst, begin), begin, 0
    for pause in pauses:
        now += pause
        taken += bucket.take(rate, now) == 0
    assert taken <= rate.burst + (now - begin) / rate.interval_s + 0.01


@given(rates, st.floats(0, 1e7))
def test_who_waits_as_told_is_let_in(rate, begin):
    bucket = Bucket(rate.burst, begin)
    now = begin
    for _ in range(rate.burst):
        assert bucket.take(rate, now) == 0
    for _ in range(20):
        wait = bucket.take(rate, now)
        if wait > 0:
            now += max(1, math.ceil(wait))
            assert bucket.take(rate, now) == 0


# The application


SENT = [{"authorization": f"Bearer {WEB}"}, {"authorization": f"bearer   {WEB} "}, {"x-api-key": WEB}]


@pytest.mark.parametrize(
    "headers", [*SENT, {"x-api-key": WEB, "authorization": "Basic dXNlcjpwYXNz"}, {"x-api-key": f" {WEB} "}]
)
def test_a_key_opens_what_lies_below_v1(unloaded, headers):
    assert unloaded.ask("GET", "/v1/models", headers=headers).status_code == 200
    posted = unloaded.ask("POST", "/v1/detect", content=b"x", headers=headers | {"content-type": "video/mp4"})
    assert posted.status_code == 503, "it is let in, and nothing is loaded"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Basic dXNlcjpwYXNz"},
        {"authorization": "Bearer"},
        {"authorization": ""},
        {"x-api-key": " "},
    ],
)
def test_without_a_key_nothing_below_v1_is_told(unloaded, headers):
    for method, url in (
        ("GET", "/v1/models"),
        ("POST", "/v1/detect"),
        ("GET", "/v1/nothing"),
        ("GET", "/v1"),
    ):
        response = unloaded.ask(method, url, headers=headers)
        assert "Authorization" in problem(response, 401, "missing-key")
        assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "sent", [UNKNOWN, WEB[:-1], WEB + "x", WEB.lower(), line_for("web", WEB).split(":")[1], "é"]
)
def test_another_key_is_refused(unloaded, sent):
    for name, value in (("x-api-key", sent), ("authorization", f"Bearer {sent}")):
        response = unloaded.ask("GET", "/v1/models", headers={name: value.encode("latin-1")})
        problem(response, 403, "unknown-key")
        assert sent not in response.text


def test_what_is_refused_is_not_read(unloaded, file):
    write(file, line_for("web", WEB) + " rate=1/min burst=1")
    read = []

    async def body():
        read.append(1)
        yield b"x"

    def ask(**headers):
        # Who asks first is not asked for more after the answer, either.
        given = {"content-type": "video/mp4", "expect": "100-continue"} | headers
        return unloaded.ask("POST", "/v1/detect", content=body(), headers=given)

    problem(ask(), 401, "missing-key")
    problem(ask(authorization=f"Bearer {UNKNOWN}"), 403, "unknown-key")
    problem(ask(authorization=f"Bearer {WEB}"), 503, "not-ready")
    limited = ask(authorization=f"Bearer {WEB}")
    problem(limited, 429, "rate-limited")
    assert 1 <= int(limited.headers["retry-after"]) <= 60
    assert read == []


OPEN = [
    "/v1/keys",
    "/livez",
    "/metrics",
    "/v2/health/live",
    "/problems/missing-key",
    "/docs",
    "/openapi.json",
    "/",
    "/page/app.js",
    "/page/about.json",
    "/nothing",
    "/v10",
]


def test_other_routes_need_no_key(unloaded, opened):
    for url in [*OPEN, "/readyz", "/v2/health/ready", "/v2/models/tiny/ready"]:
        status = opened.ask("GET", url).status_code
        assert status in (200, 404, 503)
        assert unloaded.ask("GET", url).status_code == status, url


def test_every_route_below_v1_is_guarded_and_documented(unloaded, opened):
    document = opened.ask("GET", "/openapi.json").json()
    schemes = document["components"]["securitySchemes"]
    assert {(s["type"], s.get("scheme"), s.get("name")) for s in schemes.values()} == {
        ("http", "bearer", None),
        ("apiKey", None, "X-API-Key"),
    }
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if path.startswith("/v1/") and path != "/v1/keys":
                assert operation["security"] == [*({name: []} for name in schemes), {}]
                assert {"401", "403", "429"} <= set(operation["responses"])
                assert unloaded.ask(method.upper(), path).status_code == 401
            else:
                assert "security" not in operation


def test_without_a_file_everybody_is_let_in(opened):
    assert opened.ask("GET", "/v1/models").status_code == 200
    assert opened.ask("GET", "/v1/models", headers={"x-api-key": UNKNOWN}).status_code == 200


# What is written down


def test_metrics_and_log_name_the_key(unloaded, caplog):
    caplog.set_level(logging.INFO, logger="service.access")
    unloaded.ask("GET", "/v1/models", headers={"x-api-key": WEB})
    unloaded.ask("GET", "/v1/nothing", headers={"x-api-key": WEB})
    unloaded.ask("GET", "/v1/models")
    text = unloaded.ask("GET", "/metrics").text
    assert 'detector_key_requests_total{key="web",status="2xx"} 1.0' in text
    assert 'detector_key_requests_total{key="web",status="4xx"} 1.0' in text
    assert 'detector_rejections_total{reason="missing-key"} 1.0' in text
    assert [getattr(r, "key", None) for r in caplog.records] == ["web", "web", None]


def test_metrics_know_no_more_names_than_the_file(unloaded, file, monkeypatch):
    monkeypatch.setattr(keys, "LOOK_EVERY_S", 0.0)
    for n in range(5):
        write(file, line_for(f"name{n}", f"key {n}"))
        assert unloaded.ask("GET", "/v1/models", headers={"x-api-key": f"key {n}"}).status_code == 200
    text = unloaded.ask("GET", "/metrics").text
    assert re.findall(r'detector_key_requests_total\{key="(\w+)"', text) == ["name4"]


def test_no_key_and_no_hash_is_ever_told(unloaded, file, caplog, monkeypatch):
    monkeypatch.setattr(keys, "LOOK_EVERY_S", 0.0)
    caplog.set_level(logging.DEBUG)
    write(file, line_for("web", WEB) + " rate=1/min burst=2", line_for("mail", OLD))
    given = [{"x-api-key": k} for k in (WEB, WEB, WEB, OLD, UNKNOWN)]
    given += [{"authorization": f"Bearer {k}"} for k in (WEB, OLD, UNKNOWN)]
    answers = [unloaded.ask("GET", "/v1/models", headers=h) for h in given]
    write(file, f"web {WEB}")
    answers += [unloaded.ask("GET", "/v1/models", headers=h) for h in given]

    def broken():
        raise RuntimeError("defect")

    monkeypatch.setattr(unloaded.service, "not_ready", broken)
    answers.append(unloaded.ask("GET", "/readyz", headers={"x-api-key": WEB}))
    answers += [unloaded.ask("GET", url, headers={"x-api-key": WEB}) for url in ("/metrics", "/openapi.json")]
    assert {a.status_code for a in answers} == {200, 403, 429, 500}
    told = "\n".join(JsonFormatter().format(r) for r in caplog.records)
    told += "\n".join(f"{a.headers.raw}\n{a.text}" for a in answers)
    assert "unexpected error" in told
    assert "line 1 is not NAME" in told
    for key in (WEB, OLD, UNKNOWN):
        assert key not in told
        assert hashlib.sha256(key.encode()).hexdigest() not in told


# Headers

SECURITY = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
PRIVATE = SECURITY | {"cache-control": "no-store"}


def having(response, wanted):
    """The headers of an answer that are wanted, each of which it may have once."""
    return {name: response.headers.get_list(name) for name in wanted} == {n: [v] for n, v in wanted.items()}


def test_every_answer_has_security_headers(unloaded, monkeypatch):
    def broken():
        raise RuntimeError("defect")

    key = {"x-api-key": WEB}
    assert having(unloaded.ask("GET", "/livez"), SECURITY)
    assert having(unloaded.ask("GET", "/metrics"), SECURITY)
    assert having(unloaded.ask("GET", "/problems/not-found"), SECURITY)
    assert having(unloaded.ask("GET", "/nothing"), SECURITY)
    assert having(unloaded.ask("GET", "/page/nothing"), SECURITY)
    for headers, url, status in (
        (key, "/v1/models", 200),
        ({}, "/v1/models", 401),
        (key, "/v1/nothing", 404),
        (key, "/v1/detect", 405),
    ):
        response = unloaded.ask("GET", url, headers=headers)
        assert response.status_code == status
        assert having(response, PRIVATE)
    monkeypatch.setattr(unloaded.service, "alive", broken)
    failed = unloaded.ask("GET", "/livez")
    assert failed.status_code == 500
    assert having(failed, SECURITY)


def test_answers_below_v1_alone_are_not_stored(opened):
    assert opened.ask("GET", "/v1/models").headers["cache-control"] == "no-store"
    assert "cache-control" not in opened.ask("GET", "/problems/not-found").headers


def test_a_route_has_its_way(opened):
    own = {"content-security-policy": "default-src 'self'", "cache-control": "private"}

    async def page(_request):
        return Response("x", headers=own)

    opened.app.add_route("/v1/page", page)
    assert having(opened.ask("GET", "/v1/page"), PRIVATE | own)


def test_the_documentation_loads_from_this_server_alone(opened):
    response = opened.ask("GET", "/docs")
    policy = dict(p.split(" ", 1) for p in response.headers["content-security-policy"].split("; "))
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", response.text, re.DOTALL)
    sources = [m[1] for attributes, _ in scripts if (m := re.search(r'src="(.+?)"', attributes))]
    styles = re.findall(r'rel="stylesheet" href="(.+?)"', response.text)
    assert (sources, styles) == (["/docs/swagger-ui-bundle.js"], ["/docs/swagger-ui.css"])
    for url, kind in zip(sources + styles, ("text/javascript", "text/css"), strict=True):
        file = opened.ask("GET", url)
        assert file.status_code == 200
        assert file.headers["content-type"].startswith(kind)
        told = {"if-none-match": file.headers["etag"]}
        assert opened.ask("GET", url, headers=told).status_code == 304
    problem(opened.ask("GET", "/docs/redoc.standalone.js"), 404, "not-found")
    (text,) = (text for _, text in scripts if text.strip())
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    assert policy["script-src"] == f"'self' 'sha256-{digest}'"
    assert policy["style-src"] == "'self' 'unsafe-inline'"
    assert re.findall(r"https?://", response.text) == []
    assert (policy["default-src"], policy["connect-src"]) == ("'none'", "'self'")
    assert policy["frame-ancestors"] == "'none'"
    assert "url: '/openapi.json'" in response.text


def test_documentation_can_be_switched_off(models, tmp_path):
    one = Running(models, tmp_path, docs=False, page=False)
    for url in ("/docs", "/openapi.json", "/docs/oauth2-redirect", "/redoc", "/"):
        problem(one.ask("GET", url), 404, "not-found")
    assert one.ask("GET", "/v1/models").status_code == 200
    one.runner.close()


def test_no_other_origin_is_let_in(unloaded, opened):
    asked = {
        "origin": "https://example.com",
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-api-key",
    }
    preflight = opened.ask("OPTIONS", "/v1/detect", headers=asked)
    problem(preflight, 405, "method-not-allowed")
    answers = [
        preflight,
        opened.ask("OPTIONS", "/v1/nothing", headers=asked),
        opened.ask("GET", "/v1/models", headers={"origin": "https://example.com"}),
        unloaded.ask("OPTIONS", "/v1/detect", headers=asked),
        unloaded.ask("GET", "/v1/models", headers={"origin": "https://example.com", "x-api-key": WEB}),
    ]
    assert [a.status_code for a in answers] == [405, 404, 200, 401, 200]
    assert not any(name.startswith("access-control") for a in answers for name in a.headers)
