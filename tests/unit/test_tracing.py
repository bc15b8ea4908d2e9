"""Traces: what is part of what, what is linked with what, and that nothing is told that was sent."""

import asyncio
import itertools
import json
import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

from service.batcher import Batcher
from service.keys import line_for
from service.logs import JsonFormatter
from service.otel import RecordingTracer
from service.settings import SettingsError, load_settings
from service.tracing import OFF, Span, request_span
from tests.bundles import tiny_bundle
from tests.media import face_clip
from tests.running import Running

ROOT = Path(__file__).resolve().parents[2]
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
KEY = "the-key-of-this-test"
SECRET = "an-identifying-word"
STAGES = ["upload", "queue", "look", "encode", "temporal", "verdict"]


def traceparent(flags="01"):
    return f"00-{TRACE}-{PARENT}-{flags}"


class Recorded(Running):
    """A service whose spans are kept here."""

    def __init__(self, models, scratch, **settings):
        self.exporter = InMemorySpanExporter()
        super().__init__(models, scratch, RecordingTracer(SimpleSpanProcessor(self.exporter)), **settings)

    def spans(self):
        """All spans since the last time, by their start."""
        found = sorted(self.exporter.get_finished_spans(), key=lambda s: s.start_time)
        self.exporter.clear()
        return found


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
    folder = tmp_path_factory.mktemp("scratch")
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(line_for("web", KEY) + "\n")
    one = Recorded(models, folder, api_keys_file=keys)
    one.runner.run(one.start())
    yield one
    one.runner.run(one.stop())
    one.runner.close()


def detect(running, clip, **headers):
    """The answer, its request's span, that one's parts and the runs of graphs."""
    running.exporter.clear()
    files = {"file": (f"{SECRET}.mp4", clip, "video/mp4")}
    response = running.ask("POST", "/v1/detect", files=files, headers={"x-api-key": KEY, **headers})
    spans = running.spans()
    (request,) = (s for s in spans if s.kind is SpanKind.SERVER)
    parts = {s.name: s for s in spans if s.parent and s.parent.span_id == request.context.span_id}
    return response, request, parts, [s for s in spans if s.parent is None and s is not request]


def test_a_request_goes_on_with_the_trace_that_it_names(running, clip):
    response, request, parts, _ = detect(running, clip, traceparent=traceparent(), tracestate="a=1,b=2")
    assert response.status_code == 200
    assert (format_trace_id(request.parent.trace_id), format_span_id(request.parent.span_id)) == (
        TRACE,
        PARENT,
    )
    assert request.parent.is_remote
    assert request.context.trace_state.to_header() == "a=1,b=2"
    assert {part.context.trace_id for part in parts.values()} == {request.context.trace_id}
    assert {part.context.trace_state.to_header() for part in parts.values()} == {"a=1,b=2"}


def test_a_request_has_a_part_for_each_stage(running, clip):
    response, request, parts, _ = detect(running, clip)
    assert request.parent is None
    assert request.name == "POST /v1/detect"
    assert dict(request.attributes) == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/v1/detect",
        "url.path": "/v1/detect",
        "url.scheme": "http",
    }
    assert sorted(parts) == sorted(STAGES)
    for earlier, later in itertools.pairwise(STAGES):
        assert parts[earlier].start_time <= parts[later].start_time
    for part in parts.values():
        assert request.start_time <= part.start_time <= part.end_time <= request.end_time
    assert parts["temporal"].start_time >= parts["encode"].end_time
    look = parts["look"].attributes
    assert set(look) == {f"detector.{name}" for name in ("bursts", "faces", "decode_s", "detect_s", "crop_s")}
    assert (look["detector.bursts"], look["detector.faces"]) == (4, 1)
    assert look["detector.decode_s"] == pytest.approx(response.json()["timing_ms"]["decode"] / 1000, abs=1e-4)
    assert set(parts["encode"].attributes) == {"detector.queue_wait_s", "detector.busy_s"}
    assert {s.status.status_code for s in (request, *parts.values())} == {StatusCode.UNSET}


def test_runs_have_traces_of_their_own_and_are_linked_with_requests_both_ways(running, clip):
    response, request, parts, runs = detect(running, clip)
    assert {run.name for run in runs} == {"encoder tiny", "temporal tiny"}
    assert len({s.context.trace_id for s in (request, *runs)}) == 1 + len(runs)
    frames = response.json()["media"]["frames_used"]
    for graph, stage, items in (("encoder tiny", "encode", frames), ("temporal tiny", "temporal", 1)):
        of_graph = [run for run in runs if run.name == graph]
        for run in of_graph:
            (link,) = run.links
            assert link.context == request.context
            assert link.attributes["detector.items"] == run.attributes["detector.items"]
        assert sum(run.attributes["detector.items"] for run in of_graph) == items
        assert [link.context for link in parts[stage].links] == [run.context for run in of_graph]
        assert sum(link.attributes["detector.items"] for link in parts[stage].links) == items


def test_a_run_is_linked_with_every_request_in_it():
    exporter = InMemorySpanExporter()
    tracer = RecordingTracer(SimpleSpanProcessor(exporter))
    scope = {"type": "http", "method": "POST", "path": "/v1/detect", "scheme": "http", "headers": []}

    async def ask(batcher, items, span):
        request_span.set(span)
        with span:
            return await batcher.submit(items, deadline=asyncio.get_running_loop().time() + 30)

    async def main():
        batcher = Batcher(
            "graph", lambda items: items, lambda: None, max_batch=8, max_queued=8, stall_s=30, tracer=tracer
        )
        asked = [asyncio.create_task(ask(batcher, [n] * n, tracer.request(scope))) for n in (1, 2)]
        asked.append(asyncio.create_task(ask(batcher, [3], Span())))
        batcher.start()
        await asyncio.gather(*asked)
        await batcher.stop()

    asyncio.run(main())
    spans = exporter.get_finished_spans()
    (run,) = (s for s in spans if s.name == "graph")
    requests = {s.context.span_id: s for s in spans if s is not run}
    assert sorted(link.attributes["detector.items"] for link in run.links) == [1, 2]
    assert {link.context.span_id for link in run.links} == set(requests)
    assert [r.links[0].context for r in requests.values()] == [run.context] * 2
    assert run.attributes["detector.items"] == 3


def test_a_request_that_nobody_wants_recorded_leaves_nothing(running, clip):
    files = {"file": clip}
    headers = {"x-api-key": KEY, "traceparent": traceparent(flags="00")}
    running.exporter.clear()
    assert running.ask("POST", "/v1/detect", files=files, headers=headers).status_code == 200
    assert running.spans() == []


@pytest.mark.parametrize(
    "sent", [["nonsense"], [traceparent(), traceparent()], [f"00-{'0' * 32}-{PARENT}-01"]]
)
def test_a_parent_that_can_not_be_meant_is_none(running, sent):
    running.exporter.clear()
    headers = [("x-api-key", KEY), *(("traceparent", value) for value in sent)]
    assert running.ask("GET", "/v1/models", headers=headers).status_code == 200
    (request,) = running.spans()
    assert request.parent is None
    assert request.name == "GET /v1/models"


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"])
def test_probes_leave_no_traces(running, path):
    running.exporter.clear()
    assert running.ask("GET", path).status_code == 200
    assert running.spans() == []


def test_what_a_client_sends_is_in_no_span(running, clip):
    """Also not in what went wrong: problems quote what was sent."""
    running.exporter.clear()
    headers = {"x-api-key": KEY, "user-agent": SECRET, "x-request-id": SECRET}
    for method, url, given in (
        ("POST", "/v1/detect", {"files": {"file": (f"{SECRET}.mp4", clip, "video/mp4")}}),
        ("POST", f"/v1/detect?model={SECRET}", {"files": {"file": clip}}),
        ("POST", "/v1/detect", {"files": {SECRET: clip}}),
        ("POST", "/v1/detect", {"content": SECRET.encode(), "headers": {"content-type": "video/mp4"}}),
        ("GET", f"/v1/models?{SECRET}=1", {}),
        ("GET", f"/{SECRET}", {}),
        (SECRET.upper(), "/v1/models", {}),
    ):
        running.ask(method, url, **given | {"headers": headers | given.get("headers", {})})
    spans = running.spans()
    assert len([s for s in spans if s.kind is SpanKind.SERVER]) == 7
    told = "".join(s.to_json() for s in spans).lower()
    digest = running.ask("POST", "/v1/detect", files={"file": clip}, headers={"x-api-key": KEY}).json()
    for unwanted in (SECRET, KEY, "test-client", digest["media"]["sha256"], digest["id"], digest["verdict"]):
        assert unwanted not in told


def test_what_fails_is_told_by_its_class_and_status(running):
    running.exporter.clear()
    headers = {"x-api-key": KEY, "content-type": "video/mp4"}
    assert running.ask("POST", "/v1/detect", content=b"text", headers=headers).status_code == 415
    spans = {s.name: s for s in running.spans()}
    assert spans["look"].attributes["error.type"] == "UnsupportedMedia"
    assert spans["look"].status.status_code is StatusCode.ERROR
    request = spans["POST /v1/detect"]
    assert request.attributes["http.response.status_code"] == 415
    assert request.status.status_code is StatusCode.UNSET  # the client's mistake is none of the server's
    assert all(s.status.description is None and not s.events for s in spans.values())


def test_an_error_of_the_server_is_one_of_the_request(running, monkeypatch, clip):
    monkeypatch.setattr("service.judge.decide", lambda *_, **__: 1 / 0)
    response, request, parts, _ = detect(running, clip)
    assert response.status_code == 500
    assert parts["verdict"].attributes["error.type"] == "ZeroDivisionError"
    assert request.attributes["error.type"] == "500"
    assert request.status.status_code is StatusCode.ERROR


def test_who_is_refused_at_the_door_is_seen(running):
    running.exporter.clear()
    assert running.ask("GET", "/v1/models").status_code == 401
    (request,) = running.spans()
    assert (request.name, request.attributes["http.response.status_code"]) == ("GET", 401)
    assert "url.path" not in request.attributes


def test_a_path_with_something_of_the_client_in_it_is_left_out(running):
    running.exporter.clear()
    assert running.ask("GET", "/v2/models/me@example.org/ready").status_code == 404
    (request,) = running.spans()
    assert request.attributes["http.route"] == "/v2/models/{name}/ready"
    assert "url.path" not in request.attributes


def test_lines_of_the_log_name_the_trace(running, clip, caplog):
    with caplog.at_level(logging.INFO, "service.access"):
        lines = []
        handler = logging.Handler()
        handler.emit = lambda record: lines.append(json.loads(JsonFormatter().format(record)))
        logging.getLogger("service.access").addHandler(handler)
        try:
            _, request, _, _ = detect(running, clip, traceparent=traceparent())
            running.ask("GET", "/livez")
        finally:
            logging.getLogger("service.access").removeHandler(handler)
    (line,) = (line for line in lines if line["message"] == "request")
    assert line["trace_id"] == TRACE
    assert line["span_id"] == format_span_id(request.context.span_id)


def test_events_are_traced_until_the_last_one(running, clip):
    _, request, parts, runs = detect(running, clip, accept="text/event-stream")
    assert set(STAGES) <= set(parts)
    assert max(p.end_time for p in parts.values()) <= request.end_time
    assert {link.context.span_id for run in runs for link in run.links} == {request.context.span_id}


def test_a_batch_that_fails_is_seen(running, clip, monkeypatch):
    encoder = running.service.models["tiny"].encoder
    run, failed = encoder._run, []

    def fails_once(items):
        if not failed:
            failed.append(len(items))
            raise RuntimeError(SECRET)
        return run(items)

    monkeypatch.setattr(encoder, "_run", fails_once)
    response, request, _, runs = detect(running, clip)
    assert response.status_code == 200
    first, *again = [r for r in runs if r.name == "encoder tiny"]
    assert first.attributes["error.type"] == "RuntimeError"
    assert [r.attributes["detector.items"] for r in again[: failed[0]]] == [1] * failed[0]
    assert {link.context.span_id for r in runs for link in r.links} == {request.context.span_id}


def test_without_the_setting_nothing_of_it_is_loaded_and_nothing_recorded(models, clip, tmp_path):
    """In a process of its own, since this one has loaded it."""
    (tmp_path / "clip.mp4").write_bytes(clip)
    (tmp_path / "scratch").mkdir()
    program = f"""
import sys
for name in ("sdk", "exporter", "proto"):  # as if they were not installed; FastAPI brings the rest itself
    sys.modules["opentelemetry." + name] = None
from pathlib import Path
import service.server, service.decoder
from service.tracing import OFF, tracer_of
from tests.running import Running
running = Running(Path({str(models)!r}), Path({str(tmp_path / "scratch")!r}))
assert tracer_of(running.settings) is OFF
running.runner.run(running.start())
given = {{"file": Path({str(tmp_path / "clip.mp4")!r}).read_bytes()}}
answer = running.ask("POST", "/v1/detect", files=given, headers={{"traceparent": {traceparent()!r}}})
running.runner.run(running.stop())
assert answer.status_code == 200, answer.text
loaded = [name for name, module in sys.modules.items() if module is not None]
assert not [name for name in loaded if name.startswith("opentelemetry.sdk") or name == "service.otel"]
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "trace_id" not in ended.stderr


def test_a_span_that_is_not_recorded_does_nothing():
    span = OFF.request({})
    with span.start("upload") as part:
        part.note(items=1)
        part.answered({}, None, 200)
    assert (dict(span.ids), request_span.get().ids) == ({}, {})
    OFF.close()


def test_the_setting_says_what_it_lacks(monkeypatch):
    monkeypatch.setenv("DETECTOR_TRACES", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(
        SettingsError, match=r"^DETECTOR_TRACES=true: traces are sent as http/protobuf, not as grpc$"
    ):
        load_settings()
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_PROTOCOL")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    wanted = r"^DETECTOR_TRACES=true: it needs opentelemetry\.exporter.*: install deepfake-detect\[otel\]$"
    with pytest.raises(SettingsError, match=wanted):
        load_settings()


def test_a_collector_that_does_not_answer_does_not_hold_up_the_end(monkeypatch):
    """What the last spans are waited for is bounded, whatever OpenTelemetry's own patience is."""
    never = threading.Event()
    monkeypatch.setattr("service.otel.CLOSE_S", 0.01)
    processor = SimpleSpanProcessor(InMemorySpanExporter())
    processor.shutdown = never.wait
    RecordingTracer(processor).close()
    never.set()
