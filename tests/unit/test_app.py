"""The application in one process: what it answers, when it refuses, and what it leaves behind."""

import asyncio
import base64
import hashlib
import json
import re
import socket
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bundle import open_bundle
from pipeline.detect.registry import open_detector
from pipeline.errors import BundleCorrupt, BundleMissing
from pipeline.media import Limits
from pipeline.prepare import prepare
from pipeline.runtime import CPU
from service import lag, state
from service.detect import preferred_wait
from service.events import wants_events
from service.models import open_bundles
from service.server import listen
from service.settings import Settings
from tests.bundles import expected_scores, tiny_bundle
from tests.media import face_clip
from tests.running import Running

ROOT = Path(__file__).resolve().parents[2]
OPENAPI = ROOT / "docs" / "openapi.json"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    tiny_bundle(path / "tiny")
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return face_clip(tmp_path_factory.mktemp("media") / "face.mp4").read_bytes()


@pytest.fixture(scope="module")
def running(models, tmp_path_factory):
    one = Running(models, tmp_path_factory.mktemp("scratch"), max_faces=4)
    one.runner.run(one.start())
    yield one
    one.runner.run(one.stop())
    one.runner.close()


@pytest.fixture
def unloaded(models, tmp_path):
    """A service that was never started."""
    one = Running(models, tmp_path)
    yield one
    one.runner.close()


def problem(response, status, name):
    assert (response.status_code, response.json()["type"]) == (status, f"/problems/{name}")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["request_id"] == response.headers["x-request-id"]
    return response.json()["detail"]


def test_answer_is_what_the_pipeline_and_the_formula_say(running, clip, tmp_path):
    """The same samples through the service and through the pipeline alone give the same scores."""
    response = running.ask("POST", "/v1/detect", files={"file": ("c.mp4", clip, "video/mp4")})
    assert response.status_code == 200, response.text
    answer = response.json()
    path = tmp_path / "c.mp4"
    path.write_bytes(clip)
    manifest = open_bundle(running.settings.models_dir / "tiny").manifest
    alone = prepare(
        path,
        crop=manifest.crop,
        sampling=manifest.sampling,
        detector=open_detector("yunet", None, accept_license=False, threads=1),
        limits=Limits(),
        max_faces=4,
    )
    (track,) = alone.tracks
    _, pooled = expected_scores(track.samples)
    assert answer["faces"][0]["probabilities"]["fake"] == pytest.approx(pooled[1], abs=1e-5)
    assert answer["media"]["sha256"] == hashlib.sha256(clip).hexdigest()
    expected = base64.b64encode(hashlib.sha256(clip).digest()).decode()
    assert response.headers["content-digest"] == f"sha-256=:{expected}:"
    assert list(running.scratch.iterdir()) == []


def events(response):
    """Names and contents of the events of a stream."""
    assert response.headers["content-type"].startswith("text/event-stream")
    parts = [part.split("\n", 1) for part in response.text.split("\n\n") if part]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in parts]


def test_an_answer_comes_last_in_a_stream_of_events(running, clip):
    given = {"content": clip, "headers": {"content-type": "video/mp4"}}
    plain = running.ask("POST", "/v1/detect", **given).json()
    given["headers"]["accept"] = "application/json;q=0.5, text/event-stream"
    response = running.ask("POST", "/v1/detect", **given)
    assert response.headers["content-digest"].startswith("sha-256=")
    *before, (last, answer) = events(response)
    assert last == "answer"
    assert answer | {"timing_ms": None} == plain | {"timing_ms": None}
    progress = [content for name, content in before if name == "progress"]
    assert progress[0]["planned"] == 4
    assert [p["bursts"] for p in progress] == sorted({p["bursts"] for p in progress})
    assert {name for name, _ in before} <= {"progress", "running"}
    verdicts = {"authentic", "manipulated", "uncertain", "not_applicable"}
    assert {r["verdict"] for name, r in before if name == "running"} <= verdicts
    assert running.service.in_flight == 0
    assert list(running.scratch.iterdir()) == []


def test_a_stream_tells_of_a_problem_in_its_last_event(running):
    headers = {"content-type": "video/mp4", "accept": "text/event-stream"}
    response = running.ask("POST", "/v1/detect", content=b"\0\0\0\x18ftypisom" + b"\0" * 300, headers=headers)
    assert response.status_code == 200
    ((name, told),) = events(response)
    assert name == "problem"
    assert (told["status"], told["request_id"]) == (422, response.headers["x-request-id"])
    assert running.service.in_flight == 0
    assert list(running.scratch.iterdir()) == []


def test_a_client_that_leaves_a_stream_takes_all_of_its_work_along(running, clip, monkeypatch):
    """Whatever is being waited for at that moment: the next event, or that the last one is sent. What it
    leaves behind would never end by itself, since the device does not answer until it is let go."""
    encoder = running.service.models["tiny"].encoder
    held, run = threading.Event(), encoder._run
    monkeypatch.setattr(encoder, "_run", lambda items: held.wait(60) and run(items))

    async def leave(after, *, sending):
        served = running.service.models["tiny"]
        gone, sent = asyncio.Event(), []
        parts = [{"type": "http.request", "body": clip, "more_body": False}]

        async def receive():
            if parts:
                return parts.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)
            if len(sent) > after:
                gone.set()
                if sending:
                    await asyncio.sleep(30)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "method": "POST",
            "path": "/v1/detect",
            "raw_path": b"/v1/detect",
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "http_version": "1.1",
            "headers": [
                (b"content-type", b"video/mp4"),
                (b"content-length", str(len(clip)).encode()),
                (b"accept", b"text/event-stream"),
            ],
        }
        before = asyncio.all_tasks()
        async with asyncio.timeout(20):
            await running.app(scope, receive, send)
        assert sent[0]["status"] == 200
        assert served.encoder.queued == 0
        assert {t.get_name() for t in asyncio.all_tasks() - before} <= {t.get_name() for t in before}

    try:
        for after, sending in ((0, True), (1, False), (1, True)):
            running.runner.run(leave(after, sending=sending))
            assert running.service.in_flight == 0
            assert list(running.scratch.iterdir()) == []
    finally:
        held.set()


def test_what_is_wrong_with_a_request_itself_is_no_event(running):
    headers = {"content-type": "text/html", "accept": "text/event-stream"}
    problem(running.ask("POST", "/v1/detect", content=b"x", headers=headers), 415, "unsupported-media-type")


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("text/event-stream", True),
        ("*/*;q=0.2, Text/Event-Stream ;q=0.1", True),
        ("text/event-stream; q=0.0", False),
        ("application/json, text/event-stream;q=0.1", False),
        ("application/json, text/event-stream", True),
        ("*/*", False),
        ("", False),
    ],
)
def test_events_are_sent_to_those_alone_who_ask_for_them(accept, wanted):
    assert wants_events([accept]) == wanted


def test_a_deadline_in_milliseconds_counts_as_a_preference_does(running, clip):
    def ask(ms, **headers):
        given = {"content-type": "video/mp4"} | headers
        return running.ask("POST", f"/v1/detect?deadline_ms={ms}", content=clip, headers=given)

    assert ask(50_000).json()["coverage"]["why"] is None
    problem(ask(1), 504, "deadline-exceeded")
    problem(ask(0), 400, "invalid-parameter")
    assert "preference-applied" not in ask(40_000, prefer="wait=50").headers
    assert ask(60_000, prefer="wait=50").headers["preference-applied"] == "wait=50"


def test_query_shapes_the_answer(running, clip):
    def ask(**params):
        headers = {"content-type": "video/mp4"}
        return running.ask("POST", "/v1/detect", params=params, content=clip, headers=headers).json()

    assert ask()["faces"][0]["timeline"]
    assert ask(timeline="false")["faces"][0]["timeline"] == []
    assert ask(model="tiny", explain="true", max_faces=1)["model"]["id"] == "tiny"


@pytest.mark.parametrize(
    ("query", "status", "name", "says"),
    [
        ("explan=true", 400, "unknown-parameter", "did you mean 'explain'?"),
        ("a%ff=1", 400, "unknown-parameter", ""),
        ("max_faces=0", 400, "invalid-parameter", "max_faces"),
        ("max_faces=5", 400, "invalid-parameter", "at most 4"),
        ("max_faces=many", 400, "invalid-parameter", "max_faces"),
        ("max_faces=" + "9" * 5000, 400, "invalid-parameter", ""),
        ("explain=perhaps", 400, "invalid-parameter", "explain"),
        ("model=tiny&model=other", 400, "invalid-parameter", "more than once"),
        ("timeline=true&timeline=false", 400, "invalid-parameter", "more than once"),
        ("model=other", 404, "unknown-model", "tiny"),
        ("model=%ff%fe", 404, "unknown-model", ""),
        ("model=../../etc", 404, "unknown-model", ""),
    ],
)
def test_bad_query_is_refused_before_the_body_is_read(running, query, status, name, says):
    read = []

    async def body():
        read.append(1)
        yield b"x"

    response = running.ask(
        "POST", f"/v1/detect?{query}", content=body(), headers={"content-type": "video/mp4"}
    )
    assert says in problem(response, status, name)


def test_deadline_of_the_client_is_kept_and_said(running, clip):
    def ask(prefer):
        headers = {"content-type": "video/mp4", "prefer": prefer}
        return running.ask("POST", "/v1/detect", content=clip, headers=headers)

    assert ask("respond-async, wait=50").headers["preference-applied"] == "wait=50"
    assert "preference-applied" not in ask("wait=100000").headers
    late = ask("wait=0")
    problem(late, 504, "deadline-exceeded")
    assert late.headers["preference-applied"] == "wait=0"
    assert list(running.scratch.iterdir()) == []


@given(seconds=st.integers(0, 999_999), quoted=st.booleans())
def test_wait_is_found_among_other_preferences(seconds, quoted):
    value = f'"{seconds}"' if quoted else str(seconds)
    assert preferred_wait(["respond-async", f"handling=lenient, Wait = {value}; x=1, wait=7"]) == seconds


@given(st.text(max_size=30))
def test_odd_preferences_are_ignored(text):
    assert preferred_wait([text]) is None or re.search(r"wait", text, re.IGNORECASE)


def stalled(clip, release):
    async def body():
        yield clip[:100]
        await release.wait()
        yield clip[100:]

    return body()


def test_overload_is_refused_unread_with_a_time_to_come_back(models, clip, tmp_path):
    one = Running(models, tmp_path, max_in_flight=1)

    async def main():
        await one.start()
        release = asyncio.Event()
        read = []

        async def never():
            read.append(1)
            yield b"x"

        # Who asks first is not asked for more after the answer, either.
        headers = {"content-type": "video/mp4", "expect": "100-continue"}
        async with one.client() as client:
            first = asyncio.create_task(
                client.post("/v1/detect", content=stalled(clip, release), headers=headers)
            )
            while not one.service.in_flight:  # noqa: ASYNC110 - nothing there tells of it
                await asyncio.sleep(0)
            second = await client.post("/v1/detect", content=never(), headers=headers)
            release.set()
            ready = (await client.get("/readyz")).status_code
            served = await first
            encoder = one.service.models["tiny"].encoder
            encoder.queued = 6000
            one.service.pace.seconds = 12.0
            third = await client.post("/v1/detect", content=never(), headers=headers)
            encoder.queued = 0
            one.service.pace.working = 11
            fourth = await client.post("/v1/detect", content=never(), headers=headers)
            in_time = await client.post("/v1/detect", content=clip, headers=headers | {"prefer": "wait=20"})
            one.service.pace.working = 0
        await one.stop()
        return served, second, read, ready, third, fourth, in_time

    served, second, read, ready, third, fourth, in_time = one.runner.run(main())
    one.runner.close()
    assert (served.status_code, ready) == (200, 200)
    problem(second, 503, "overloaded")
    assert int(second.headers["retry-after"]) >= 1
    assert read == []
    assert "6000 samples" in problem(third, 503, "overloaded")
    assert 12 <= int(third.headers["retry-after"]) <= 13
    assert "longer than there is time" in problem(fourth, 503, "overloaded")
    assert 24 <= int(fourth.headers["retry-after"]) <= 25
    assert in_time.status_code == 200


async def asked(running, messages, length, query=b""):
    """Status of a request whose client sends these messages, and then is gone or, with a query, is silent."""
    sent = []

    async def receive():
        if messages:
            return messages.pop(0)
        if query:
            await asyncio.sleep(30)
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/detect",
        "raw_path": b"/v1/detect",
        "query_string": query,
        "headers": [(b"content-type", b"video/mp4"), (b"content-length", str(length).encode())],
    }
    await running.app(scope, receive, send)
    return sent[0]["status"]


def test_client_that_leaves_frees_its_work(running, clip):
    """The client sends the whole clip and is gone; nobody waits for the answer."""
    given = [{"type": "http.request", "body": clip, "more_body": False}]
    assert running.runner.run(asked(running, given, len(clip))) == 499
    assert running.service.in_flight == 0
    assert list(running.scratch.iterdir()) == []
    again = running.ask("POST", "/v1/detect", content=clip, headers={"content-type": "video/mp4"})
    assert again.status_code == 200
    metrics = running.ask("GET", "/metrics").text
    assert re.search(r'detector_decoder_restarts_total{reason="cancelled"} [1-9]', metrics)


def test_defect_is_answered_without_its_details(running, clip, monkeypatch, caplog):
    async def broken(*_, **__):
        raise RuntimeError("secret.mp4")

    monkeypatch.setattr(running.service.pool, "prepare", broken)
    given = {"content-type": "video/mp4", "x-request-id": "my-id.1"}
    response = running.ask("POST", "/v1/detect", content=clip, headers=given)
    problem(response, 500, "internal-error")
    assert "secret" not in response.text
    assert response.headers["x-request-id"] == "my-id.1"
    assert "unexpected error" in caplog.text


@pytest.mark.parametrize("given", ["a b", "x" * 200, "a\tb", "é", ""])
def test_request_id_that_is_not_sane_is_replaced(running, given):
    response = running.ask("GET", "/livez", headers={"x-request-id": given.encode("latin-1")})
    assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"])


def test_models_and_their_cards(running):
    listed = running.ask("GET", "/v1/models").json()
    assert listed["default"] == "tiny"
    assert [(m["id"], m["provider"]) for m in listed["models"]] == [("tiny", CPU)]
    card = running.ask("GET", "/v1/models/tiny").json()
    assert card["card"].startswith("# tiny")
    assert card["provider"] == CPU
    assert card["manifest"]["classes"] == ["real", "fake"]
    problem(running.ask("GET", "/v1/models/other"), 404, "unknown-model")
    problem(running.ask("GET", "/v1/models?all=1"), 400, "unknown-parameter")


def test_health_in_both_dialects(running):
    assert running.ask("GET", "/livez").json() == {"live": True}
    assert running.ask("GET", "/readyz").json() == {"ready": True}
    assert running.ask("GET", "/v2/health/live").json() == {"live": True}
    assert running.ask("GET", "/v2/health/ready").json() == {"ready": True}
    assert running.ask("GET", "/v2/models/tiny/ready").json() == {"name": "tiny", "ready": True}
    unknown = running.ask("GET", "/v2/models/other/ready")
    assert (unknown.status_code, list(unknown.json())) == (404, ["error"])


def test_errors_of_every_route_are_in_the_document(running):
    paths = running.ask("GET", "/openapi.json").json()["paths"]
    asked = {
        "/v1/models": "/v1/models?all=1",
        "/v1/models/{name}": "/v1/models/tiny?all=1",
        "/v2/models/{name}/ready": "/v2/models/other/ready",
        "/problems/{name}": "/problems/other",
    }
    for path, target in asked.items():
        answer = running.ask("GET", target)
        assert answer.status_code >= 400
        documented = paths[path]["get"]["responses"][str(answer.status_code)]["content"]
        assert answer.headers["content-type"] in documented
    assert all("503" in paths[p]["get"]["responses"] for p in paths if p.startswith("/v2/"))


def test_not_ready_while_it_loads(unloaded):
    response = unloaded.ask("POST", "/v1/detect", content=b"x", headers={"content-type": "video/mp4"})
    assert "starting" in problem(response, 503, "not-ready")
    assert int(response.headers["retry-after"]) >= 1
    assert unloaded.ask("GET", "/livez").status_code == 200
    assert unloaded.ask("GET", "/v1/models").json()["models"][0]["provider"] is None
    assert unloaded.ask("GET", "/v2/health/ready").status_code == 503


def test_readiness_falls_when_a_batcher_dies_and_liveness_follows(models, tmp_path, monkeypatch):
    one = Running(models, tmp_path)

    async def main():
        await one.start()
        await one.service.models["tiny"].temporal.stop()
        async with one.client() as client:
            codes = [(await client.get(u)).status_code for u in ("/readyz", "/livez", "/v2/health/live")]
            monkeypatch.setattr(state, "LIVENESS_AFTER_S", 0.0)
            codes += [(await client.get(u)).status_code for u in ("/livez", "/v2/health/live")]
        await one.stop()
        return codes

    assert one.runner.run(main()) == [503, 200, 200, 503, 503]
    one.runner.close()


def test_draining_is_told_and_stays_alive(unloaded):
    unloaded.service.drain()
    assert "shutting down" in problem(unloaded.ask("GET", "/readyz"), 503, "not-ready")
    assert unloaded.ask("GET", "/livez").status_code == 200
    assert unloaded.ask("GET", "/v1/models").json()["models"][0]["provider"] is None


def test_problem_texts_are_served(running):
    response = running.ask("GET", "/problems/upload-too-large")
    assert response.text.startswith("## upload-too-large")
    problem(running.ask("GET", "/problems/other"), 404, "not-found")


def test_metrics_follow_the_conventions(running, clip):
    running.ask("POST", "/v1/detect", content=clip, headers={"content-type": "video/mp4"})
    for path in ("a", "b", "c"):
        running.ask("GET", f"/{path}")
    running.ask("BREW", "/v1/detect")
    text = running.ask("GET", "/metrics").text
    assert 'detector_http_requests_total{method="GET",route="unmatched",status="404"} 3.0' in text
    assert 'detector_http_requests_total{method="other",route="/v1/detect",status="405"} 1.0' in text
    assert re.search(r'detector_verdicts_total\{model="tiny",verdict="\w+"\} [1-9]', text)
    assert "detector_bundle_info{" in text
    names = set(re.findall(r"^(detector_\w+?)(?:_bucket|_sum|_count)?(?:\{| )", text, flags=re.MULTILINE))
    assert all(not re.search(r"_(ms|millis|kb|mb)(_|$)", n) for n in names)
    assert {"detector_requests_in_flight", "detector_queued_samples", "detector_batch_size"} <= names


def values(running, pattern):
    """Of each line of /metrics that begins as the pattern says the value."""
    text = running.ask("GET", "/metrics").text
    return {found[1]: float(found[2]) for found in re.finditer(rf"^({pattern}) (\S+)$", text, re.MULTILINE)}


def test_an_answered_clip_is_counted_by_what_it_was_answered_with(running, clip):
    known = r"detector_(?:verdicts_total\{.*|clip_faces_(?:count|sum)|clip_score_(?:count|sum)\{.*)"
    before = values(running, known)
    answer = running.ask("POST", "/v1/detect", content=clip, headers={"content-type": "video/mp4"}).json()
    running.ask("POST", "/v1/detect", content=b"no clip", headers={"content-type": "video/mp4"})
    after = values(running, known)
    assert {name: after[name] - before[name] for name in after if after[name] != before[name]} == {
        f'detector_verdicts_total{{model="tiny",verdict="{answer["verdict"]}"}}': 1,
        "detector_clip_faces_count": 1,
        "detector_clip_faces_sum": len(answer["faces"]),
        'detector_clip_score_count{model="tiny"}': 1,
        'detector_clip_score_sum{model="tiny"}': pytest.approx(answer["probabilities"]["fake"], abs=1e-6),
    }


def test_each_run_of_a_graph_tells_how_full_it_was(running, clip):
    running.ask("POST", "/v1/detect", content=clip, headers={"content-type": "video/mp4"})
    for graph in ("encoder", "temporal"):
        of = rf'\{{graph="{graph}"\}}'
        (runs,) = values(running, f"detector_batch_size_count{of}").values()
        (fills,) = values(running, f"detector_batch_fill_ratio_count{of}").values()
        (full,) = values(running, f"detector_batch_fill_ratio_sum{of}").values()
        assert runs == fills > 0
        assert 0 < full <= fills


def test_metrics_tell_how_long_the_queues_have_waited(running, monkeypatch):
    assert set(values(running, "detector_queue_oldest_age_seconds.*").values()) == {0.0}
    (served,) = running.service.models.values()
    monkeypatch.setattr(running.service.pool, "oldest_s", lambda _: 3.0)
    monkeypatch.setattr(served.encoder, "oldest_s", lambda _: 2.0)
    assert values(running, "detector_queue_oldest_age_seconds.*") == {
        'detector_queue_oldest_age_seconds{queue="decoder"}': 3.0,
        'detector_queue_oldest_age_seconds{queue="encoder"}': 2.0,
        'detector_queue_oldest_age_seconds{queue="temporal"}': 0.0,
    }


def test_the_event_loop_is_watched(running):
    async def some_time():
        await asyncio.sleep(2 * lag.EVERY_S)

    running.runner.run(some_time())
    assert values(running, "detector_event_loop_lag_seconds_count").popitem()[1] > 0


@pytest.mark.parametrize(("query", "cause"), [(b"", "client"), (b"deadline_ms=1", "deadline")])
def test_an_upload_that_is_broken_off_is_counted(running, query, cause):
    name = f'detector_cancellations_total{{cause="{cause}",stage="upload"}}'
    given = [{"type": "http.request", "body": b"x", "more_body": True}]
    before = values(running, re.escape(name))[name]
    assert running.runner.run(asked(running, given, 100, query)) == (504 if query else 499)
    assert values(running, re.escape(name))[name] == before + 1


def test_committed_openapi_document_is_the_one_served(running):
    served = running.ask("GET", "/openapi.json").json()
    committed = json.loads(OPENAPI.read_text(encoding="utf-8"))
    served["info"].pop("version")
    committed["info"].pop("version")
    assert served == committed


def test_without_the_page_the_root_leads_to_the_documentation(models, tmp_path):
    one = Running(models, tmp_path, page=False)
    for method in ("GET", "HEAD"):
        assert one.ask(method, "/").headers["location"] == "/docs"
    assert one.ask("GET", "/docs").status_code == 200
    problem(one.ask("GET", "/page/app.js"), 404, "not-found")
    one.runner.close()


def test_several_bundles_need_a_default(tmp_path):
    for name in ("one", "two"):
        tiny_bundle(tmp_path / name, name=name)
    with pytest.raises(BundleMissing, match="several bundles"):
        open_bundles(Settings(models_dir=tmp_path))
    assert open_bundles(Settings(models_dir=tmp_path, model="two")).default == "two"
    (tmp_path / "DEFAULT").write_text("one\n")
    assert open_bundles(Settings(models_dir=tmp_path)).default == "one"
    with pytest.raises(BundleMissing, match="one, two"):
        open_bundles(Settings(models_dir=tmp_path, model="three"))


def test_bundle_under_another_name_is_refused(tmp_path):
    tiny_bundle(tmp_path / "one", name="two")
    with pytest.raises(BundleCorrupt, match="two"):
        open_bundles(Settings(models_dir=tmp_path))


def test_answers_are_sent_without_delay():
    """asyncio switches Nagle's algorithm off on a connection if the listening socket is of the right kind."""

    async def main(listening):
        loop = asyncio.get_running_loop()
        accepted = loop.create_future()

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport):
                accepted.set_result(transport.get_extra_info("socket"))

        async with await loop.create_server(Protocol, sock=listening):
            with socket.create_connection(listening.getsockname()):
                connection = await accepted
                return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    assert asyncio.run(main(listen("127.0.0.1", 0)))
