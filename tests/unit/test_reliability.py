"""What the service bears: cases, judging, the client, the document. Nothing here is timed."""

import asyncio
import json
import os
import random
import re
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import h11
import pytest

from benchmarks.bench import FULL as BENCH_FULL
from benchmarks.bench import Bench, BenchError, open_model
from benchmarks.clips import Clips
from benchmarks.load import Call
from benchmarks.servers import free_port, running
from pipeline.decode import open_clip
from pipeline.media import NAMES, Limits, sniff
from reliability import formats, tree
from reliability.__main__ import TRIALS, Part, keep
from reliability.balancer import GIVES_UP, TRIES_AGAIN, balanced, configuration, installed
from reliability.cases import BYTES, MULTIPART, Cases
from reliability.forms import FORMS, form
from reliability.judging import ALLOWED_BYTES, Record, fault, grown, problem_in, retry_after
from reliability.lab import FULL, QUICK, Lab, Log, read_log, settled
from reliability.parts import fuzz, overload, replicas, schema, soak
from reliability.report import SECTIONS, read, render, write
from reliability.seeds import PICTURES, make
from reliability.tree import Node
from reliability.wire import Connection, Manner, Reply
from tests.bundles import tiny_bundle

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make(tmp_path_factory.mktemp("seeds"))


@pytest.fixture
def lab(tmp_path):
    bundle = open_model(str(tiny_bundle(tmp_path / "tiny")))
    bench = Bench(bundle, Clips(tmp_path), tmp_path, BENCH_FULL, quick=True)
    return Lab(bench, replace(QUICK, cases=60, pause_s=0.0))


# Seeds and their trees


def test_each_seed_is_decoded_to_its_last_picture(clips, tmp_path):
    for clip in clips:
        path = tmp_path / clip.name
        path.write_bytes(clip.data)
        with open_clip(path, Limits()) as opened:
            wanted = {"gif": 4, "webp-animated": 4, "apng": 4}.get(clip.name, PICTURES)
            wanted = 1 if clip.name in {"webp", "png", "jpeg", "bmp"} else wanted
            assert len(opened.times_s) == wanted, clip.name
            assert opened.damage is None, clip.name


def test_seeds_are_of_every_kind_that_is_accepted(clips):
    assert {sniff(clip.data) for clip in clips} == set(NAMES)


def test_the_same_seeds_are_made_again(clips, tmp_path):
    assert [c.data for c in make(tmp_path)] == [c.data for c in clips]


def test_a_tree_that_nothing_was_done_to_is_the_file(clips):
    taken_apart = [c for c in clips if c.form is not None]
    assert len(taken_apart) == 15
    for clip in taken_apart:
        nodes = clip.form.read(clip.data)
        assert clip.form.write(nodes) == clip.data, clip.name
        assert sum(bool(s[k].kind) for s, k in tree.walk(nodes)) > 1, clip.name


@pytest.mark.parametrize("clip", ["mp4-h264", "mp4-fragmented", "webm-vp9", "avi-mjpeg", "webp-animated"])
def test_what_holds_others_is_taken_apart(clips, clip):
    found = next(c for c in clips if c.name == clip)
    kinds = {s[k].kind for s, k in tree.walk(found.form.read(found.data))}
    inner = {
        "mp4-h264": {b"stts", b"stsz", b"stco", b"stsc", b"ctts", b"elst", b"tkhd", b"mdhd", b"avcC"},
        "mp4-fragmented": {b"trun", b"tfhd"},
        "webm-vp9": {b"\x86", b"\xb0", b"\xa3"},
        "avi-mjpeg": {b"strh", b"strf", b"avih"},
        "webp-animated": {b"ANMF", b"VP8 "},
    }
    assert inner[clip] <= kinds


@pytest.mark.parametrize("claimed", [0, 6, 2**31, 2**32 - 1, 2**32, 2**64 - 1])
@pytest.mark.parametrize("form", ["MP4", "MATROSKA", "RIFF", "PNG", "GIF", "JPEG"])
def test_any_length_can_be_claimed(form, claimed):
    kind = b"\xa3" if form == "MATROSKA" else b"\xff\xd8" if form == "JPEG" else b"abcd"
    written = getattr(formats, form).write([Node(kind, b"content", claimed=claimed)])
    assert b"ontent" in written
    assert written != getattr(formats, form).write([Node(kind, b"content")])


def test_a_box_of_more_than_32_bits_says_so_in_64():
    assert formats.write_boxes([Node(b"mdat", b"x", claimed=2**40)]) == (
        b"\0\0\0\1mdat" + (2**40).to_bytes(8, "big") + b"x"
    )


@pytest.mark.parametrize("name", list(tree.MUTATIONS))
def test_each_thing_that_is_done_to_a_tree_changes_the_file_and_ends(clips, name):
    for clip in clips:
        if clip.form is None or clip.name == "webp":  # of which there is but a single chunk
            continue
        changed = 0
        for number in range(10):
            nodes = clip.form.read(clip.data)
            tree.MUTATIONS[name](random.Random(number), nodes)
            written = clip.form.write(nodes)
            changed += written != clip.data
            assert len(written) < 3 * tree.MOST_GROWN
        assert changed > 0, clip.name


def test_a_tree_with_nothing_in_it_is_left_alone():
    for number in range(50):
        tree.mutate(random.Random(number), [])


def test_what_is_doubled_is_not_shared():
    nodes = [Node(b"moov", b"", [Node(b"mvhd", b"a")])]
    tree.MUTATIONS["duplicate"](random.Random(0), nodes)
    held = [id(s[k]) for s, k in tree.walk(nodes)]
    assert len(held) == len(set(held)) > 2


# Cases


def test_a_case_is_decided_by_seed_and_number(clips):
    one, again, other = Cases(1, clips), Cases(1, clips), Cases(2, clips)
    assert [one.case(n) for n in range(30)] == [again.case(n) for n in reversed(range(30))][::-1]
    assert [one.case(n).body for n in range(30)] != [other.case(n).body for n in range(30)]


def test_no_case_is_its_seed_and_each_can_be_sent(clips):
    by_name = {c.name: c.data for c in clips}
    seen = set()
    for number in range(400):
        case = Cases(1, clips).case(number)
        call = case.call("http://127.0.0.1:1/v1/detect")
        h11.Request(method="POST", target="/", headers=[("host", "x"), *call.headers.items()])
        assert call.headers["x-request-id"] == f"case-{number}"
        seen |= {case.kind, *case.done}
        if case.kind != MULTIPART:
            assert case.body != by_name[case.kind]
    assert seen >= {MULTIPART, *by_name, *FORMS, *BYTES, *tree.MUTATIONS}


def test_a_form_is_sound_before_it_is_not(clips):
    clip = clips[0].data
    kind, body = form(clip)
    assert kind.startswith(b"multipart/form-data; boundary=")
    for name, make_form in FORMS.items():
        assert any(make_form(random.Random(n), clip) != (kind, body) for n in range(5)), name


def test_a_case_is_saved_as_it_is_sent(clips, tmp_path):
    folder = tmp_path / "made"
    folder.mkdir()
    said = fuzz.save(1, 7, folder, tmp_path / "case")
    case = Cases(1, clips).case(7)
    assert (tmp_path / "case").read_bytes() == case.body
    assert case.kind in said
    assert case.content_type.decode("latin-1") in said


# What is a failure


def record(**given):
    sound = Record(1, "gif", ("flip",), 422, "undecodable-media", 0.1, None, None)
    return replace(sound, **given)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"status": 200, "problem": ""},
        {"status": 503, "problem": "overloaded", "retry_after": "1"},
        {"status": 504, "problem": "deadline-exceeded"},
        {"seconds": 25.0},
    ],
)
def test_what_a_server_may_answer(given):
    assert fault(record(**given), 25.0) is None


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"status": 500, "problem": "internal-error"}, "status 500"),
        ({"status": 503, "problem": "overloaded"}, "503 without Retry-After"),
        ({"status": 503, "problem": "overloaded", "retry_after": "0"}, "503 without Retry-After"),
        ({"status": 400, "problem": ""}, "status 400 without a problem"),
        ({"seconds": 25.1}, "answered after 25.1 s"),
        ({"status": 200, "lost": "EOFError: the connection was closed"}, "EOFError"),
        ({"status": 0, "problem": "", "lost": "no whole answer within 50 s"}, "no whole answer"),
    ],
)
def test_what_it_may_not(given, why):
    assert why in fault(record(**given), 25.0)


def test_memory_may_grow_by_a_share_and_something():
    most = 110_000_000 + ALLOWED_BYTES
    assert grown(100_000_000, most) is None
    assert "memory grew from 100,000,000" in grown(100_000_000, most + 1)


@pytest.mark.parametrize(
    ("value", "good"), [("1", True), ("60", True), (None, False), ("0", False), ("soon", False)]
)
def test_when_to_come_back_is_seconds(value, good):
    assert retry_after(value) is good


def test_a_problem_is_read_from_its_document_alone():
    body = json.dumps({"type": "/problems/no-frames"}).encode()
    kind = {"content-type": "application/problem+json"}
    assert problem_in(Reply(422, kind, body)) == "no-frames"
    assert problem_in(Reply(422, {"content-type": "application/json"}, body)) == ""
    assert problem_in(Reply(422, kind, b"{")) == ""
    assert problem_in(Reply(422, kind, b"[]")) == ""


def house(**given):
    return {"memory_bytes": [10, 10], "decoders": 2, "children": 2, "left_files": 0} | given


def test_a_server_as_a_whole_can_fail():
    calm = Log({}, {"ValueError: x": ("case-3", 2)})
    found = fuzz.failures([record()], 25.0, house(), calm)
    assert found == {"failed": 0, "failures": [], "failures_of_the_server": []}
    bad = house(memory_bytes=[10, 10**9], children=1, left_files=3)
    found = fuzz.failures([record(status=500)], 25.0, bad, Log({"unexpected error": 2}, {}))
    assert found["failed"] == 1
    assert found["failures"] == [{"case": 1, "why": "status 500"}]
    assert [w.split()[0] for w in found["failures_of_the_server"]] == ["memory", "1", "3", "logged"]


def test_a_log_tells_of_errors_and_of_what_nobody_foresaw(tmp_path):
    lines = [
        "ready: http://127.0.0.1:8000  try: curl",
        json.dumps({"level": "warning", "message": "a decoder was lost"}),
        json.dumps({"level": "error", "message": "unexpected error"}),
        json.dumps({"level": "error", "message": "unexpected error"}),
        *(
            json.dumps(
                {
                    "level": "error",
                    "message": "the decoder failed on a clip",
                    "traceback": "Traceback\n  File\nKeyError: 1\n",
                    "request_id": f"case-{n}",
                }
            )
            for n in (5, 9)
        ),
        "Segmentation fault",
    ]
    (tmp_path / "log").write_text("\n".join(lines))
    log = read_log(tmp_path / "log")
    assert log.errors == {"unexpected error": 2, "Segmentation fault": 1}
    assert log.unforeseen == {"KeyError: 1": ("case-5", 2)}


def test_one_waits_for_what_settles_and_not_for_ever():
    seen = iter([3, 2, 1, 1])
    assert settled(lambda: next(seen), 1) == 1
    assert settled(lambda: 5, 1, within_s=0.0) == 5


# The client


async def answering(said, *, reads=True, times=1):
    """A server that says this to each request, after its body or at once; what it was sent."""
    got = []

    async def serve(reader, writer):
        for _ in range(times):
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(re.search(rb"content-length: (\d+)", head)[1])
            if b"100-continue" in head and reads:
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            got.append((head, await reader.readexactly(size) if reads else b""))
            writer.write(said)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/detect", got


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NO = b"HTTP/1.1 503 No\r\nRetry-After: 3\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def asked(said, *manners, reads=True, body=b"x" * 1000):
    async def ask():
        server, url, got = await answering(said, reads=reads, times=len(manners))
        async with server, Connection(url) as connection:
            call = Call(url, {"content-type": "video/mp4"}, body)
            return [await connection.ask(call, limit_s=20, manner=m) for m in manners], got

    return asyncio.run(ask())


def test_requests_follow_each_other_on_one_connection():
    replies, got = asked(OK, Manner(), Manner(chunk=10), Manner(expect=True))
    assert [(r.status, r.body, r.sent, r.lost) for r in replies] == [(200, b"ok", 1000, None)] * 3
    assert [body for _, body in got] == [b"x" * 1000] * 3
    assert got[0][0].startswith(b"POST /v1/detect HTTP/1.1\r\n")


def test_who_asks_first_sends_nothing_when_refused():
    (reply,), _ = asked(NO, Manner(expect=True), reads=False)
    assert (reply.status, reply.sent, reply.lost) == (503, 0, None)
    assert reply.headers["retry-after"] == "3"
    assert 0 < reply.head_s <= reply.end_s


def test_an_answer_that_breaks_off_is_none():
    (reply,), _ = asked(OK[:-1], Manner())
    assert reply.status == 200
    assert reply.lost is not None


def test_who_leaves_has_no_answer():
    (reply,), got = asked(OK, Manner(chunk=100, leaves_after=200))
    assert (reply.status, reply.sent) == (0, 200)
    assert reply.lost is not None
    assert got == []


def test_a_server_that_is_not_there_is_told():
    async def ask():
        async with Connection(url := f"http://127.0.0.1:{free_port()}/") as connection:
            return await connection.ask(Call(url, {}, b"x"), limit_s=5)

    assert "refused" in asyncio.run(ask()).lost.lower()


# Overload and soak


def test_arrivals_are_as_many_as_they_should_be():
    times = overload.poisson(10.0, 1000.0, random.Random(0))
    assert times == sorted(times)
    assert 0 < times[0] < times[-1] < 1000.0
    assert len(times) == pytest.approx(10_000, rel=0.05)


def test_goodput_counts_what_came_while_requests_came():
    def arrival(end, status, head=0.01, sent=0, again=None):
        headers = {} if again is None else {"retry-after": again}
        return overload.Arrival(0.0, 0.0, Reply(status, headers, head_s=head, end_s=end, sent=sent))

    arrivals = [
        *(arrival(end, 200, sent=9) for end in (2.0, 4.0, 5.0, 10.0, 11.0)),
        arrival(0.1, 503, 0.02, again="1"),
        arrival(0.1, 503, 0.04, sent=9),
    ]
    found = overload.summed(arrivals, 10.0)
    assert found["goodput"] == 3 / 7
    assert found["statuses"] == {"200": 5, "503": 2}
    assert found["refused_s"]["worst"] == 0.04
    assert found["refused_without_retry_after"] == 1
    assert found["refused_before_the_body"] == 1
    assert found["answered_s"]["p50"] == 5.0
    assert overload.summed([arrival(1.0, 200)], 10.0)["refused_s"] == {}


def test_growth_is_that_of_a_line():
    assert soak.growth([(float(t), 100.0 + t) for t in range(5, 16)]) == pytest.approx(10 / 105)
    assert soak.growth([(0.0, 7.0), (1.0, 7.0), (9.0, 7.0)]) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("busy", "status", "turned_away"), [(0, 200, 0), (2, 200, 2), (99, 503, soak.MOST_TURNS)]
)
def test_a_client_of_a_soak_comes_again_when_it_is_told_to(monkeypatch, busy, status, turned_away):
    waits, real = [], asyncio.sleep

    async def sleep(seconds):
        waits.append(seconds)
        await real(0)

    async def answer(reader, writer):
        nonlocal busy
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(4)
        head = b"503 Busy\r\nRetry-After: 7" if busy > 0 else b"200 OK"
        busy -= 1
        writer.write(b"HTTP/1.1 " + head + b"\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def ask():
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            call = Call(f"http://127.0.0.1:{port}/v1/detect", {}, b"clip")
            monkeypatch.setattr(soak.asyncio, "sleep", sleep)
            return await soak.patiently(call, soak.PLAIN)

    reply, turns = asyncio.run(ask())
    assert (reply.status, turns) == (status, turned_away)
    assert waits.count(7) == turned_away


def test_clients_of_a_soak_are_all_there_and_judged():
    assert sum(c.share for c in soak.CLIENTS_OF.values()) == pytest.approx(1.0)
    problem = Reply(422, {"content-type": "application/problem+json"}, b'{"type": "/problems/no-frames"}')
    replies = [
        ("good", Reply(200)),
        ("good", Reply(200, lost="EOFError: x")),
        ("events", Reply(200, body=b"event: answer\ndata: {}\n\n")),
        ("events", Reply(200, body=b"event: problem\ndata: {}\n\n")),
        ("slow", Reply(503)),
        ("bad", problem),
        ("bad", Reply(200)),
        ("leaving", Reply(lost="EOFError: x")),
    ]
    looks = [soak.Look(float(k), 100, 200, 10 + k, 2) for k in range(8)]
    found = soak.summed([soak.Asked(*r, turned_away=1) for r in replies], looks, Log({}, {}))
    assert found["clients"]["bad"]["turned_away"] == 2
    assert {k: c["failed"] for k, c in found["clients"].items()} == {
        "good": 1,
        "events": 1,
        "slow": 1,
        "bad": 1,
        "leaving": 0,
    }
    assert found["least_files"] == [12, 16]
    assert found["growth"]["own"] == pytest.approx(0.0)


# The document


JUNIT = """<testsuites><testsuite name="x">
<testcase name="GET /livez"><failure type="failure" message="1. Test Case ID: a

- Undocumented HTTP status code

    Received: 405

- Undocumented HTTP status code

- Missing header">- Missing header</failure></testcase>
<testcase name="GET /metrics"/>
<testcase name="GET /readyz"><error message="it broke"/></testcase>
</testsuite></testsuites>""".replace("\n", "&#10;")


def entry(method, url, status, kind):
    """A request as an HTTP archive tells of it."""
    return {
        "request": {"method": method, "url": url},
        "response": {"status": status, "content": {"mimeType": kind}},
    }


def test_requests_are_sorted_by_their_route():
    found = results()["schema"]
    assert found["routes"] == {
        "GET /v1/models/{name}": {"404": 1},
        "GET /v2/models/{name}/ready": {"404": 1},
        "POST /v1/detect": {"200": 1},
        "what is not offered": {"405": 1},
    }
    assert found["errors_that_are_no_problems"] == {"what is not offered: 405 as text/plain": 1}


def test_findings_are_sorted_by_their_operation():
    assert schema.findings(JUNIT) == {
        "GET /livez": {"Undocumented HTTP status code": 2, "Missing header": 2},
        "GET /readyz": {"error: it broke": 1},
    }


def served(name, fake=0.5):
    body = json.dumps({"probabilities": {"fake": fake}}).encode()
    return Reply(200, {"x-served-by": name}, body)


ASKED = replicas.Asked(Reply(502), Reply(200))


def test_replicas_that_answer_are_counted_and_held_against_each_other():
    found = replicas.answered([[served("r1"), served("r2", 0.6), served("r2")], [served("r1"), Reply(503)]])
    assert found["by_replica"] == {"": 1, "r1": 2, "r2": 2}
    assert (found["requests"], found["followed"], found["moved"], found["answered"]) == (5, 3, 2, 4)
    assert found["apart"] == pytest.approx(0.1)


def test_a_clip_that_is_sent_again_is_lost_only_at_first():
    found = replicas.lost(
        [ASKED, replicas.Asked(Reply(200), Reply(200)), replicas.Asked(Reply(503), Reply(0))]
    )
    assert (found["clips"], found["failed_at_first"], found["failed_in_the_end"]) == (3, 2, 1)
    assert found["failures"] == {"status 502": 1, "status 503": 1}


def test_a_balancer_knows_every_replica_and_what_to_do_without_one():
    text = configuration(1, [11, 12, 13], GIVES_UP, "leastconn")
    for words in (
        "bind 127.0.0.1:1\n",
        "server r3 127.0.0.1:13\n",
        "balance leastconn",
        "retries 0",
        "x-served-by %s",
    ):
        assert words in text
    assert "option redispatch 1" in configuration(1, [11], TRIES_AGAIN)


SERVER = """
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def say(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = json.dumps({"probabilities": {"fake": 0.5}}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_POST = say
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


class Answering:
    """A replica that answers without looking at anything."""

    def __init__(self, folder):
        self.port, self.starts = free_port(), 0
        self._folder, self._running = folder, ExitStack()

    def start(self):
        self.starts += 1
        command = [sys.executable, "-c", SERVER, str(self.port)]
        return self._running.enter_context(
            running(command, os.environ, port=self.port, ready="/readyz", folder=self._folder)
        )

    def stop(self):
        self._running.close()


@pytest.fixture
def behind_haproxy(tmp_path):
    """Two replicas behind a real balancer that tries again: it, the replicas and their servers."""
    program = installed()
    if program is None:
        pytest.skip("haproxy is not installed")
    ours = [Answering(tmp_path) for _ in range(2)]
    with ExitStack() as stack:
        for replica in ours:
            stack.callback(replica.stop)
        servers = [replica.start() for replica in ours]
        ports = [replica.port for replica in ours]
        yield stack.enter_context(balanced(program, tmp_path, ports, TRIES_AGAIN)), ours, servers


def test_a_real_balancer_ties_no_client_to_a_replica(behind_haproxy):
    front, _, _ = behind_haproxy
    found = asyncio.run(replicas.who_answers(Call(f"{front.url}/v1/detect", {}, b"x")))
    assert set(found["by_replica"]) == {"r1", "r2"}
    assert found["answered"] == found["requests"] == replicas.CONNECTIONS * replicas.IN_A_ROW
    assert found["moved"] > 0
    assert found["apart"] == 0.0


def test_a_replica_that_is_killed_is_started_anew_and_its_clips_are_sent_again(behind_haproxy, monkeypatch):
    monkeypatch.setattr(replicas, "CALM_S", 1.0)
    monkeypatch.setattr(replicas, "DOWN_S", 1.0)
    front, ours, servers = behind_haproxy
    first = servers[0].pid
    call = Call(f"{front.url}/v1/detect", {}, b"x" * 1000)
    draw = random.Random(1)
    asked, left = asyncio.run(replicas.under_load(call, ours, servers, rate=20.0, kills=1, draw=draw))
    assert [replica.starts for replica in ours] == [2, 1]
    assert servers[0].pid != first
    assert left == 0
    found = replicas.lost(asked)
    assert found["clips"] > 20
    assert found["failed_in_the_end"] == 0


def results():
    records = [record(number=n, kind=k) for n, k in enumerate(("gif", "png", "multipart"))]
    log = Log({}, {"ValueError: x": ("case-3", 2)})
    whole = house(restarts={"recycled": 2})
    answered = [overload.Arrival(4.0, 0.0, Reply(200, end_s=1.0))] * 8
    runs = [{"manner": name, "peak": 1.0, **overload.summed(answered, 10.0)} for name in overload.MANNERS]
    runs[0] |= {"refused_s": {"p50": 0.01, "p95": 0.02, "p99": 0.06, "worst": 0.07}}
    looks = [soak.Look(float(k), 100, 200, 10, 2) for k in range(8)]
    return {
        "fuzz": {
            "seconds": 2.0,
            "limit_s": 25.0,
            "connections": 4,
            **fuzz.summed(records),
            **whole,
            "log_errors": {},
            "unforeseen": {k: list(v) for k, v in log.unforeseen.items()},
            **fuzz.failures(records, 25.0, whole, log),
        },
        "overload": {
            "clip": {"seconds": 5, "height": 360, "bytes": 100},
            "in_flight": 32,
            "closed_loop": {"8": 1.0, "16": 0.9},
            "times": 3.0,
            "seconds": 10.0,
            "runs": runs,
        },
        "soak": {
            **{"peak": 2.0, "rate": 1.9, "share": 0.8, "seconds": 90.0, "decoders": 2},
            **{"children": 2, "left_files": 0, "restarts": {}},
            **soak.summed([soak.Asked("good", Reply(200, end_s=1.0))], looks, Log({}, {})),
        },
        "schema": {
            **schema.requested(
                [
                    entry("POST", "http://127.0.0.1:9/v1/detect?x=1", 200, "application/json"),
                    entry("GET", "http://127.0.0.1:9/v1/models/a%20b", 404, "application/problem+json"),
                    entry("GET", "http://127.0.0.1:9/v2/models/a/ready", 404, "application/json"),
                    entry("TRACE", "http://127.0.0.1:9/nowhere", 405, "text/plain; charset=utf-8"),
                ],
                {
                    "/v1/detect": {"post": {}},
                    "/v1/models/{name}": {"get": {}},
                    "/v2/models/{name}/ready": {"get": {}},
                },
            ),
            **{"seconds": 1.0, "checks": ["unsupported_method"], "log_errors": {}},
            "findings": schema.findings(JUNIT),
        },
        "rolling": {
            "rate": 6.0,
            "version": "3.0",
            "runs": [
                {
                    "balancer": "tries again",
                    **{"requests": 9, "failed": 1, "failures": {"status 503": 1}},
                    "stop_and_start_s": [[0.5, 3.0], [0.5, 3.0]],
                }
            ],
        },
        "replicas": {
            **{"version": "3.0", "balance": "leastconn", "clients": 8, "cores": 2, "threads_each": 1},
            "clip": {"seconds": 5, "height": 360, "bytes": 100},
            "rounds": [
                {
                    name: {
                        "requests_per_s": rate * round_,
                        "latency_s": [1.0, 2.0],
                        "cpu_s_per_request": 0.4,
                        "balancer_cpu_s_per_request": 0.002 * (name != "one replica"),
                    }
                    for name, rate in (("one replica", 4.0), ("2 replicas, balancer", 3.0))
                }
                for round_ in (1.0, 2.0)
            ],
            "memory_bytes": {"one replica": 2**29, "2 replicas, balancer": 2**30},
            "answers": replicas.answered([[served("r1"), served("r2", 0.6), served("r2")]]),
            **{"share": 0.6, "rate": 2.4, "tries": 3},
            "kills": [
                {
                    **{"balancer": "tries again", "kills": 3, "left_processes": 0},
                    **replicas.lost([ASKED] * 3 + [replicas.Asked(Reply(200), Reply(200))] * 17),
                }
            ],
        },
    }


def test_the_document_is_rendered_from_what_was_kept(lab, tmp_path):
    out = tmp_path / "docs"
    for name, found in results().items():
        keep(Part(name), lab, found, out)
    write(out)
    text = (out / "reliability.md").read_text()
    assert text == render(read(out / "reliability"))
    for words in (
        "3 of 3",
        "No failures.",
        "| `ValueError: x` | case-3 | 2 |",
        "p99 under 50 ms: missed",
        "target at least 90%: met",
        "quick run",
        "seed 1",
        "| tries again | 9 | 1 target none: missed | status 503 1 |",
        "1.5 minutes at 1.9 requests/s",
        "| 2 replicas, balancer | 4.50 (3.00 to 6.00) | 0.75 (0.75 to 0.75) |",
        "| tries again | 20 | 3 (15.0%) | 0 target none: met | status 502 3 | 0 |",
        "1 of 2 that followed another one",
    ):
        assert words in text
    assert "Not tried yet" not in text


def test_failures_are_shown_and_what_was_not_tried_is_told(lab, tmp_path):
    found = results()["fuzz"]
    found |= {"failures": [{"case": 9, "why": "status 500"}], "failures_of_the_server": ["memory grew"]}
    keep(Part.fuzz, lab, found, tmp_path)
    text = render(read(tmp_path / "reliability"))
    assert "- case 9: status 500\n- memory grew" in text
    assert text.count("Not tried yet.") == len(SECTIONS) - 1


@pytest.mark.parametrize("part", [Part.rolling, Part.replicas])
def test_what_is_not_installed_is_skipped(part, lab, monkeypatch, tmp_path):
    monkeypatch.setattr("shutil.which", lambda _: None)
    keep(part, lab, TRIALS[part](lab), tmp_path)
    assert "Skipped: haproxy is not installed." in render(read(tmp_path / "reliability"))


def test_what_is_not_installed_can_not_be_tried(lab, monkeypatch, tmp_path):
    monkeypatch.setattr(schema, "TOOL", tmp_path / ".venv-schemathesis/bin/schemathesis")
    with pytest.raises(BenchError, match=r"not installed in \.venv-schemathesis: make reliability"):
        schema.measure(lab)


def test_all_parts_are_tried_and_have_a_section():
    assert {p.value for p in TRIALS} == set(SECTIONS) == {p.value for p in Part} - {"all", "report"}
    assert QUICK.cases < 20_000 <= FULL.cases


def test_the_published_document_is_what_its_results_say():
    docs = ROOT / "docs"
    assert (docs / "reliability.md").read_text(encoding="utf-8") == render(read(docs / "reliability"))


# A real server


def test_a_real_server_bears_sixty_cases(lab):
    found = fuzz.measure(lab)
    assert found["cases"] == 60
    assert found["failures"] == []
    assert found["failures_of_the_server"] == []
    assert found["unforeseen"] == {}
    assert found["children"] == found["decoders"] == fuzz.DECODERS
    assert sum(n for kind in found["kinds"].values() for n in kind.values()) == 60
