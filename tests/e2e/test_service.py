"""A real server on a free port, with real clips, hostile clips and clients that misbehave."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from pipeline.bundle import default_models
from tests import media
from tests.bundles import tiny_bundle
from tests.server import COMMAND, LIMIT, ROOT, Server, refused


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    tiny_bundle(path / "tiny")
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    one = Server(tmp_path_factory.mktemp("server"), default_models())
    yield one
    assert one.stop() == 0
    assert list(one.scratch.iterdir()) == []


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return media.face_clip(tmp_path_factory.mktemp("media") / "face.mp4").read_bytes()


@pytest.fixture
def clean(server):
    """After each test nothing of any clip is left, and the service goes on."""
    yield
    deadline = time.monotonic() + 10
    while list(server.scratch.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(server.scratch.iterdir()) == []
    assert server.client.get("/readyz").status_code == 200


def ageless(response):
    """An answer without its timing."""
    assert response.status_code == 200, response.text
    answer = response.json()
    del answer["timing_ms"]
    return answer


def problem(response, status, name):
    assert response.headers["content-type"] == "application/problem+json", response.text
    assert (response.status_code, response.json()["type"]) == (status, f"/problems/{name}"), response.text
    assert response.json()["request_id"] == response.headers["x-request-id"]


def test_form_and_raw_body_give_the_same_answer_twice(server, clip, clean):
    answers = [
        ageless(server.client.post("/v1/detect", files={"file": ("my holiday.mp4", clip, "video/mp4")})),
        ageless(server.detect(clip, "video/mp4")),
        ageless(server.detect(clip)),
    ]
    assert answers[0] == answers[1] == answers[2]
    answer = answers[0]
    assert answer["verdict"] in {"authentic", "manipulated", "uncertain"}
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert len(answer["faces"]) == 1
    assert answer["media"]["sha256"] == hashlib.sha256(clip).hexdigest()
    assert answer["media"]["bytes"] == len(clip)
    assert answer["coverage"]["truncated"] is False


def test_answer_does_not_depend_on_what_else_is_in_flight(server, clip, tmp_path, clean):
    other = media.face_clip(tmp_path / "other.mp4", seconds=3.0, size=400, faces=2).read_bytes()
    alone = [ageless(server.detect(c)) for c in (clip, other)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda i: ageless(server.detect((clip, other)[i % 2])), range(8)))
    for i, answer in enumerate(together):
        expected = alone[i % 2]
        assert answer["verdict"] == expected["verdict"]
        assert len(answer["faces"]) == len(expected["faces"])
        for got, face in zip(answer["faces"], expected["faces"], strict=True):
            assert got["probabilities"]["fake"] == pytest.approx(face["probabilities"]["fake"], abs=1e-5)
            np.testing.assert_allclose(
                [m["fake"] for m in got["timeline"]], [m["fake"] for m in face["timeline"]], atol=1e-5
            )


BAD = {
    "text": (lambda p: media.TEXT, 415, "unsupported-media"),
    "html": (lambda p: b"<!DOCTYPE html><html><body>clip.mp4</body></html>", 415, "unsupported-media"),
    "zip": (lambda p: media.zip_archive(), 415, "unsupported-media"),
    "playlist": (lambda p: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", 415, "unsupported-media"),
    "concat script": (lambda p: b"ffconcat version 1.0\nfile /etc/passwd\n", 415, "unsupported-media"),
    "one byte": (lambda p: b"\0", 415, "unsupported-media"),
    "moov missing": (lambda p: media.moov_missing(p / "c.mp4"), 422, "undecodable-media"),
    "sound only": (lambda p: media.audio_only(p / "c.mp4"), 422, "no-video-stream"),
    "no frames": (lambda p: media.no_frames(p / "c.mp4"), 422, "no-frames"),
    "noise for frames": (lambda p: media.header_then_garbage(p / "c.mp4"), 422, "no-frames"),
    "one pixel": (
        lambda p: media.still(p / "c.png", np.zeros((1, 1, 3), np.uint8)),
        422,
        "picture-too-small",
    ),
    "16000 a side": (lambda p: media.huge_png(p / "c.png"), 422, "picture-too-large"),
    "16000 a side in a container": (lambda p: media.huge_mov(p / "c.mov"), 422, "picture-too-large"),
    "nothing": (lambda p: b"", 400, "empty-body"),
    "over the limit": (lambda p: bytes(LIMIT + 1), 413, "upload-too-large"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("form", [True, False], ids=["form", "raw"])
def test_bad_clip_has_its_own_problem(server, tmp_path, clean, name, form):
    make, status, kind = BAD[name]
    made = make(tmp_path)
    content = made.read_bytes() if isinstance(made, Path) else made
    if form:
        response = server.client.post("/v1/detect", files={"file": ("c.mp4", content, "video/mp4")})
    else:
        response = server.detect(content, "video/mp4")
    problem(response, status, kind)
    if status in (415, 422):
        assert response.headers["content-digest"].startswith("sha-256=:")


def test_clip_over_the_limit_of_unannounced_size_is_cut_off(server, clean):
    def pieces():
        for _ in range(200):
            yield bytes(65536)

    with contextlib.suppress(httpx.WriteError):  # the server may close while we still send
        problem(server.detect(pieces(), "video/mp4"), 413, "upload-too-large")


def test_one_who_goes_on_sending_after_a_refusal_hears_it_and_is_cut_off(server, clean):
    host, port = server.url.removeprefix("http://").split(":")
    head = (
        f"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Type: video/mp4\r\nContent-Length: {1 << 40}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=20) as s:
        s.sendall(head.encode() + bytes(LIMIT // 2))
        assert s.recv(65536).startswith(b"HTTP/1.1 413")
        # What the kernel holds between both ends comes on top of what is taken.
        with pytest.raises(ConnectionError):
            s.sendall(bytes(64 * LIMIT))


def test_clip_without_a_face_is_answered_and_not_judged(server, tmp_path, clean):
    answer = ageless(server.detect(media.write_clip(tmp_path / "c.mp4", media.pattern(30)).read_bytes()))
    assert answer["verdict"] == "not_applicable"
    assert answer["probabilities"] is None
    assert answer["reasons"][0].startswith("no_face")


def test_clip_with_one_usable_frame_is_answered(server, tmp_path, clip, clean):
    one = media.face_clip(tmp_path / "c.mp4", seconds=0.04).read_bytes()
    answer = ageless(server.detect(one))
    assert answer["media"]["frames_decoded"] == 1
    assert answer["verdict"] in {"not_applicable", "uncertain", "authentic", "manipulated"}
    if answer["verdict"] == "not_applicable":
        assert answer["reasons"][0].startswith("too_short")


def test_broken_off_clip_is_judged_by_what_there_is(server, tmp_path, clean):
    answer = ageless(server.detect(media.broken_off(tmp_path / "c.mp4").read_bytes()))
    assert answer["media"]["frames_decoded"] > 0


MULTIPART = "multipart/form-data; boundary=x"
FORM_HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'


@pytest.mark.parametrize(
    ("kind", "body", "name"),
    [
        (MULTIPART, FORM_HEAD + b"abc", "malformed-multipart"),
        (MULTIPART, b"nonsense", "malformed-multipart"),
        ("multipart/form-data", FORM_HEAD + b"abc\r\n--x--\r\n", "malformed-multipart"),
        ("multipart/form-data; boundary=", b"----\r\n", "malformed-multipart"),
        ("multipart/form-data; boundary=" + "y" * 300, b"----\r\n", "malformed-multipart"),
        ("multipart/form-data; boundary=\xff\xfe", b"--\xff\xfe\r\n", "malformed-multipart"),
        (MULTIPART, b"--x--\r\n", "wrong-field"),
        (
            "multipart/form-data; boundary=x",
            FORM_HEAD.replace(b"file", b"clip") + b"a\r\n--x--\r\n",
            "wrong-field",
        ),
        (
            "multipart/form-data; boundary=x",
            FORM_HEAD.replace(b"file", b"\xff\x00") + b"a\r\n--x--",
            "wrong-field",
        ),
        (MULTIPART, (FORM_HEAD + b"a\r\n") * 2 + b"--x--\r\n", "too-many-files"),
    ],
)
def test_malformed_form_is_a_malformed_request(server, clean, kind, body, name):
    response = server.client.post(
        "/v1/detect", content=body, headers={"content-type": kind.encode("latin-1")}
    )
    problem(response, 400, name)


def test_wrong_field_two_files_and_unknown_parameter(server, clip, clean):
    post = server.client.post
    problem(post("/v1/detect", files={"video": clip}), 400, "wrong-field")
    problem(post("/v1/detect", files=[("file", clip), ("file", clip)]), 400, "too-many-files")
    problem(post("/v1/detect", files={"file": clip}, data={"model": "x"}), 400, "wrong-field")
    problem(post("/v1/detect?threshold=0.5", files={"file": clip}), 400, "unknown-parameter")
    problem(
        post("/v1/detect", content=b"file=x", headers={"content-type": "text/plain"}),
        415,
        "unsupported-media-type",
    )


POST_VIDEO = b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Type: video/mp4\r\n"
ODD = [
    POST_VIDEO + b"Content-Length: -1\r\n\r\n",
    POST_VIDEO + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    POST_VIDEO + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    POST_VIDEO + b"Transfer-Encoding: gzip\r\n\r\n",
    b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Type: \xff\xfe\r\nContent-Length: 1\r\n\r\na",
    b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na",
    POST_VIDEO + b"Content-Length: 99999999999999999999\r\n\r\n",
    POST_VIDEO + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    b"POST /v1/detect?%ff%fe=%ff HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    b"POST /v1/detect?model=%00&explain=%ff HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    b"POST /v1/detect?max_faces=1&max_faces=2 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    b"POST /v1/detect?" + b"&" * 5000 + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    b'POST /v1/detect HTTP/1.1\r\nHost: x\r\nPrefer: wait=,;"wait\r\nContent-Length: 0\r\n\r\n',
    b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nX-Request-ID: \xff\x80\r\nContent-Length: 0\r\n\r\n",
    b"POST /v1/detect HTTP/1.1\r\nHost: x\r\n" + b"X-A: " + b"a" * 100_000 + b"\r\n\r\n",
    b"POST /v1/detect HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    b"PUT /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    b"TRACE /v1/detect HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1/detect HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    b"GET /v1/models/%2e%2e%2f%00%ff HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /problems/..%2f HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET //v1//models HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://example.org/v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /livez HTTP/9.9\r\nHost: x\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: \xff;;;q=x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\x00" * 1000,
    b"\r\n\r\n\r\n",
]


@pytest.mark.parametrize("sent", ODD, ids=lambda s: repr(s[:60]))
def test_odd_request_is_never_the_fault_of_the_server(server, sent, clean):
    answer = server.raw(sent, seconds=2)
    status = re.match(rb"HTTP/1\.1 (\d{3})", answer)
    assert status is None or int(status[1]) < 500, answer
    if b"problem+json" in answer:
        assert b'{"type":"/problems/' in answer


def test_client_that_leaves_half_way_leaves_nothing_behind(server, clip, clean):
    head = POST_VIDEO + f"Content-Length: {len(clip)}\r\n\r\n".encode()
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as s:
        s.sendall(head + clip[: len(clip) // 2])
    with socket.create_connection((host, int(port))) as s:
        s.sendall(head + clip)
    assert server.detect(clip).status_code == 200


def logged(server, request_id):
    """Lines of one request; the last is written when its answer is already on its way."""
    for _ in range(100):
        if found := [entry for entry in server.lines() if entry.get("request_id") == request_id]:
            return found
        time.sleep(0.05)
    return []


def stream(server, content):
    headers = {"content-type": "video/mp4", "accept": "text/event-stream"}
    return server.client.stream("POST", "/v1/detect", content=content, headers=headers)


def test_events_come_while_the_clip_is_read_and_the_answer_is_the_usual_one(server, clip, clean):
    usual = ageless(server.detect(clip, "video/mp4"))
    with stream(server, clip) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    names = [line.removeprefix("event: ") for line in lines[::2]]
    assert names[0] == "progress"
    assert names[-1] == "answer"
    assert names.count("answer") == 1
    answer = json.loads(lines[-1].removeprefix("data: "))
    del answer["timing_ms"]
    assert answer == usual


def test_client_that_leaves_a_stream_leaves_nothing_behind(server, tmp_path, clean):
    long = media.face_clip(tmp_path / "long.mp4", seconds=8, size=640).read_bytes()
    with stream(server, long[:LIMIT]) as response:
        assert next(response.iter_lines()) == "event: progress"
    deadline = time.monotonic() + 10
    while "detector_requests_in_flight 0.0" not in server.client.get("/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_log_has_an_id_for_each_request_and_no_file_names(server, clip, clean):
    response = server.client.post(
        "/v1/detect",
        files={"file": ("very-private-name.mp4", clip, "video/mp4")},
        headers={"x-request-id": "traced-42"},
    )
    assert response.headers["x-request-id"] == "traced-42"
    (line,) = logged(server, "traced-42")
    assert (line["method"], line["route"], line["status"]) == ("POST", "/v1/detect", 200)
    assert "very-private-name" not in server.log.read_text()


def test_nothing_so_far_was_an_unexpected_error(server):
    assert [line for line in server.lines() if line["level"] == "error"] == []
    assert 'status="500"' not in server.client.get("/metrics").text


def test_slow_upload_is_given_up(tmp_path, tiny, clip):
    one = Server(tmp_path, tiny, upload_timeout_s=0.3, decoders=1)
    answer = one.raw(POST_VIDEO + b"Content-Length: 5000\r\n\r\nabc")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"/problems/upload-too-slow" in answer
    assert list(one.scratch.iterdir()) == []
    assert one.stop() == 0


def test_requests_are_still_taken_until_a_balancer_has_seen_that_none_should_come(tmp_path, tiny, clip):
    one = Server(tmp_path, tiny, decoders=1, shutdown_delay_s=3600)
    one.process.send_signal(signal.SIGTERM)
    until(lambda: one.client.get("/readyz").status_code == 503)
    with httpx.Client(base_url=one.url, timeout=60) as another:
        assert (
            another.post("/v1/detect", content=clip, headers={"content-type": "video/mp4"}).status_code == 200
        )
    assert one.detect(clip).status_code == 200
    assert one.stop() == 0


def test_termination_answers_what_is_in_flight_and_takes_nothing_more(tmp_path, tiny, clip):
    one = Server(tmp_path, tiny, decoders=1)
    release = threading.Event()

    def slow():
        yield clip[:1000]
        release.wait(30)
        yield clip[1000:]

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(one.detect, slow(), "video/mp4")
        while not list(one.scratch.iterdir()):
            time.sleep(0.01)
        one.process.send_signal(signal.SIGTERM)
        host, port = one.url.removeprefix("http://").split(":")
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection((host, int(port)), timeout=1).close()
            except OSError:
                break
            time.sleep(0.02)
        else:
            pytest.fail("it still listens")
        release.set()
        assert answer.result(timeout=60).status_code == 200
    assert one.process.wait(timeout=60) == 0
    one.process.stdout.close()
    assert list(one.scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"prot": 1}, "DETECTOR_PROT is not a setting"), ({"port": "x"}, "DETECTOR_PORT=x")],
)
def test_unknown_or_bad_setting_is_one_line(tmp_path, settings, says):
    code, said = refused(tmp_path, **settings)
    assert (code, said.count("\n")) == (2, 1)
    assert says in said


def test_bundle_that_can_not_be_served_is_one_line(tmp_path, tiny):
    missing = tmp_path / "none"
    code, said = refused(tmp_path, models_dir=missing)
    assert (code, said.count("\n")) == (1, 1)
    assert "no bundle" in said

    for file in ("encoder.onnx", "temporal.onnx", "MODEL_CARD.md"):
        flipped = tmp_path / f"flipped-{file}"
        shutil.copytree(tiny, flipped)
        at = flipped / "tiny" / file
        data = bytearray(at.read_bytes())
        data[len(data) // 2] ^= 1
        at.write_bytes(data)
        code, said = refused(tmp_path, models_dir=flipped)
        assert (code, said.count("\n")) == (1, 1)
        assert "digest" in said

    untrained = tmp_path / "untrained"
    tiny_bundle(untrained / "tiny", trained=False)
    code, said = refused(tmp_path, models_dir=untrained)
    assert (code, said.count("\n")) == (1, 1)
    assert "untrained" in said


def test_detector_and_port_that_can_not_be_had_are_one_line(tmp_path, tiny):
    code, said = refused(tmp_path, models_dir=tiny, face_model=tmp_path / "none.onnx", decoders=2)
    assert (code, said.count("\n")) == (1, 1), said
    assert "none.onnx" in said
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, said = refused(tmp_path, models_dir=tiny, port=taken.getsockname()[1])
    assert (code, said.count("\n")) == (1, 1), said
    assert "can not listen" in said


def test_decoders_die_with_their_server(tmp_path, tiny):
    one = Server(tmp_path, tiny)
    pid = one.process.pid
    children = [c for c in children_of(pid) if "service.decoder" in command_of(c)]
    assert len(children) == 2
    one.process.kill()
    one.process.wait()
    one.process.stdout.close()
    one.client.close()
    deadline = time.monotonic() + 10
    while any(running(c) for c in children) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(running(c) for c in children)


@pytest.mark.parametrize("own", [False, True])
def test_nothing_of_a_clip_outlives_a_server_that_is_killed(tmp_path, tiny, clip, own):
    settings = {"TMPDIR": str(tmp_path)} if own else {"DETECTOR_SCRATCH_DIR": str(tmp_path)}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DETECTOR_")}
    process = subprocess.Popen(
        COMMAND,
        cwd=ROOT,
        env=environment | {"DETECTOR_MODELS_DIR": str(tiny), "DETECTOR_DECODERS": "1"} | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    host, port = process.stdout.readline().split()[1].removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        head = (
            f"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Type: video/mp4\r\nContent-Length: {len(clip)}"
        )
        client.sendall(head.encode() + b"\r\n\r\n" + clip[: len(clip) // 2])
        until(lambda: list(tmp_path.rglob("clip-*")))
        process.kill()
    process.wait()
    process.stdout.close()
    until(lambda: not list(tmp_path.rglob("clip-*")))
    until(lambda: own is False or not list(tmp_path.glob("deepfake-detect-*")))


def until(true):
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def children_of(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def command_of(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode()


def running(pid):
    """Whether a process runs; one that has died and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
