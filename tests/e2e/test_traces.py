"""A real server that sends its traces to a collector: what arrives there, byte by byte."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from service.keys import line_for
from tests.bundles import tiny_bundle
from tests.media import face_clip
from tests.server import Server, refused

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
KEY = "a-key-that-nobody-may-see"
FILE = "somebodys-name.mp4"


@contextmanager
def collector():
    """Address of a receiver of OTLP, and the bodies that it was sent."""
    bodies: list[tuple[str, bytes]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", bodies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_collector_is_told_of_a_request_and_nothing_of_what_it_was_about(tmp_path, monkeypatch):
    tiny_bundle(tmp_path / "models" / "tiny")
    keys = tmp_path / "keys"
    keys.write_text(line_for("web", KEY) + "\n")
    clip = face_clip(tmp_path / "face.mp4").read_bytes()
    with collector() as (address, bodies):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=tests")
        monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")  # which would tell of queries and errors
        server = Server(tmp_path, tmp_path / "models", traces="true", api_keys_file=keys)
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}
        given = {"files": {"file": (FILE, clip)}, "headers": {"authorization": f"Bearer {KEY}", **headers}}
        answer = httpx.post(f"{server.url}/v1/detect", timeout=60, **given)
        assert server.stop() == 0
    assert answer.status_code == 200
    assert {path for path, _ in bodies} == {"/v1/traces"}
    told = b"".join(body for _, body in bodies)
    for unwanted in (KEY, FILE, answer.json()["media"]["sha256"], "Bearer", "python-httpx"):
        assert unwanted.encode() not in told

    resources, spans = {}, []
    for _, body in bodies:
        for part in ExportTraceServiceRequest.FromString(body).resource_spans:
            resources |= {a.key: a.value.string_value for a in part.resource.attributes}
            assert {scope.scope.name for scope in part.scope_spans} == {"service"}
            spans += [span for scope in part.scope_spans for span in scope.spans]
    assert resources["service.name"] == "deepfake-detect"
    assert resources["deployment.environment.name"] == "tests"
    (request,) = (s for s in spans if s.kind == Span.SPAN_KIND_SERVER)
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    assert (request.name, request.trace_state) == ("POST /v1/detect", "vendor=1")
    parts = {s.name: s for s in spans if s.parent_span_id == request.span_id}
    assert set(parts) == {"upload", "queue", "look", "encode", "temporal", "verdict"}
    assert {s.trace_id.hex() for s in parts.values()} == {TRACE}
    runs = {s.span_id: s for s in spans if not s.parent_span_id}
    assert {run.name for run in runs.values()} == {"encoder tiny", "temporal tiny"}
    assert {link.span_id for run in runs.values() for link in run.links} == {request.span_id}
    assert {link.span_id for part in parts.values() for link in part.links} == set(runs)
    assert len(spans) == 1 + len(parts) + len(runs)
    (line,) = (line for line in server.lines() if line["message"] == "request")
    assert (line["trace_id"], line["span_id"]) == (TRACE, request.span_id.hex())


def test_a_server_whose_collector_is_gone_answers_and_ends(tmp_path, monkeypatch):
    tiny_bundle(tmp_path / "models" / "tiny")
    with collector() as (address, _):
        pass
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    server = Server(tmp_path, tmp_path / "models", traces="true")
    assert server.client.get("/v1/models").status_code == 200
    assert server.stop() == 0


def test_another_protocol_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    code, told = refused(tmp_path, traces="true")
    assert (code, len(told.splitlines())) == (2, 1)
    assert "DETECTOR_TRACES=true" in told
