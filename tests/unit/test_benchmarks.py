"""The benchmark: statistics, /proc, load, stages, comparison and the document. Nothing here is timed."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from benchmarks import stages as stages_module
from benchmarks.__main__ import Part, keep
from benchmarks.bench import FULL, QUICK, Bench, BenchError, open_model, prepared
from benchmarks.clips import Clips, _film, _repeat
from benchmarks.figures import cost, growth, limit, number, peers, sparse
from benchmarks.load import Call, Load, LoadFailed, Sent, closed_loop, multipart, raw
from benchmarks.parts import ancestor as ancestor_part
from benchmarks.parts import cost as cost_part
from benchmarks.parts import peers as peers_part
from benchmarks.parts import sparse as sparse_part
from benchmarks.parts.sparse import Found, compared, found, matched
from benchmarks.peers.common import BUNDLE, Preparer, Scorer, packed, unpacked
from benchmarks.processes import (
    _proportional,
    cpu_seconds,
    memory_bytes,
    parse_memory,
    parse_stat,
    peak_memory,
    tree,
)
from benchmarks.report import read, render, write
from benchmarks.servers import free_port, running
from benchmarks.stages import SHARED, STAGES, Cost, Stages, least, median
from benchmarks.summary import Spread, percentile, rounded
from pipeline.answer import Answer
from pipeline.bundle import open_bundle
from pipeline.decode import open_clip
from pipeline.detect.registry import open_detector
from pipeline.engine import Engine, score
from pipeline.sampleclip import write_sample
from pipeline.verdict import decide
from tests.bundles import tiny_bundle
from tests.media import still

ROOT = Path(__file__).resolve().parents[2]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("clip") / "face.mp4", seconds=1.0)


@pytest.fixture
def bench(tmp_path):
    bundle = open_bundle(tiny_bundle(tmp_path / "tiny"))
    nowhere = tmp_path / "nowhere"
    return Bench(bundle, Clips(tmp_path), tmp_path, QUICK, peers_python=nowhere, dlib=nowhere)


# Statistics


def test_a_spread_has_median_least_and_greatest():
    spread = Spread.of([3.0, 1.0, 2.0, 10.0])
    assert spread == Spread(2.5, 1.0, 10.0, 4)
    assert spread.shown() == "2.50 (1.00 to 10.00)"
    assert spread.shown(0, 1000) == "2500 (1000 to 10000)"
    assert Spread.of([1.5]).shown(1) == "1.5"


def test_percentiles_are_linear_between_neighbours():
    assert percentile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.5
    assert percentile([1.0, 2.0], 0.95) == pytest.approx(1.95)
    assert percentile([7.0], 0.99) == 7.0


@pytest.mark.parametrize("statistic", [Spread.of, lambda values: percentile(values, 0.5)])
def test_nothing_measured_has_no_statistic(statistic):
    with pytest.raises(ValueError, match="no measurement"):
        statistic([])


def test_floats_are_kept_to_six_digits_and_nothing_else_changes():
    given = {"a": [0.123456789, 1234567.89, 3], "b": "0.123456789", "c": None, "d": True}
    assert rounded(given) == {"a": [0.123457, 1234570.0, 3], "b": "0.123456789", "c": None, "d": True}


def test_costs_are_taken_apart():
    costs = [Cost(1.0, 5.0), Cost(2.0, 4.0), Cost(9.0, 9.0)]
    assert least(costs) == Cost(1.0, 4.0)
    assert median(costs) == Cost(2.0, 5.0)


@pytest.mark.parametrize(
    ("value", "binary", "shown"),
    [(0, False, "0 "), (999, False, "999 "), (1_630_000, False, "1.63 M"), (3 * 2**20, True, "3 M")],
)
def test_numbers_have_prefixes(value, binary, shown):
    assert number(value, binary=binary) == shown


# Processes


def test_a_stat_line_gives_parent_and_cpu_time_whatever_the_name():
    rest = " ".join(["S", "7", *["0"] * 9, "100", "50", "30", "20", "20", "0", "1"])
    process = parse_stat(f"42 (a ) b (c)) {rest}", ticks=100)
    assert (process.pid, process.parent, process.cpu_s, process.ended) == (42, 7, 2.0, False)
    assert parse_stat(f"42 (x) Z{rest[1:]}", ticks=100).ended


@pytest.mark.parametrize("text", ["", "42 (cut) S 7 0", "not a number (x) " + "S " * 20])
def test_what_is_no_stat_line_is_an_error(text):
    with pytest.raises(ValueError, match=r"stat|invalid literal"):
        parse_stat(text, ticks=100)


def test_memory_is_read_by_its_name_in_bytes():
    text = (
        "55d0-7ffe ---p 00000000 00:00 0    [rollup]\nRss:    2048 kB\nPss:     100 kB\nPss_Anon:   60 kB\n"
    )
    assert parse_memory(text, "Pss") == 100 * 1024
    with pytest.raises(KeyError):
        parse_memory(text, "Swap")


def test_memory_of_a_process_that_may_not_be_looked_into_is_its_resident_size(tmp_path, monkeypatch):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "smaps_rollup").write_text("Pss: 10 kB\n")
    (tmp_path / "7" / "status").write_text("Name: python\nVmRSS: 30 kB\n")
    assert _proportional(7, tmp_path) == 10 * 1024
    read = Path.read_text

    def guarded(path, **given):
        if path.name == "smaps_rollup":
            raise PermissionError
        return read(path, **given)

    monkeypatch.setattr(Path, "read_text", guarded)
    assert _proportional(7, tmp_path) == 30 * 1024
    assert _proportional(8, tmp_path) == 0


def stat(folder: Path, pid: int, parent: int, ticks: int, state: str = "S") -> None:
    (folder / str(pid)).mkdir()
    text = f"{pid} (x) {state} {parent} {'0 ' * 9}{ticks} 0 0 0 0"
    (folder / str(pid) / "stat").write_text(text)


def test_a_tree_holds_descendants_and_nobody_else(tmp_path):
    for pid, parent in ((10, 1), (11, 10), (12, 11), (20, 1), (21, 20)):
        stat(tmp_path, pid, parent, 5)
    (tmp_path / "30").mkdir()  # ended while it was looked at
    stat(tmp_path, 13, 10, 5, "Z")
    assert [p.pid for p in tree(10, tmp_path)] == [10, 11, 12]
    assert tree(99, tmp_path) == []


@LINUX
def test_a_real_child_is_found_with_its_memory_until_it_ends():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert child.pid in {p.pid for p in tree(os.getpid())}
        with peak_memory(child.pid, every_s=0.001) as peak:
            for _ in range(10_000):  # until it was seen
                if peak.bytes:
                    break
                time.sleep(0.001)
            child.communicate(b"\n")
        assert peak.looks > 0
        assert peak.bytes > 0
    finally:
        child.kill()
        child.wait()
    assert memory_bytes(child.pid) == 0
    assert cpu_seconds(child.pid) == 0


# Load


class Counting(ThreadingHTTPServer):
    """Answers each request, counts it, and how many were there at once."""

    daemon_threads = True

    def __init__(self, statuses=()):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.bodies, self.now, self.most = [], 0, 0
        self.statuses = dict(statuses)
        self.url = f"http://127.0.0.1:{self.server_port}/detect"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        server = self.server
        with server.lock:
            server.now += 1
            server.most = max(server.most, server.now)
        body = self.rfile.read(int(self.headers["content-length"]))
        time.sleep(0.005)
        with server.lock:
            server.bodies.append(body)
            number = len(server.bodies)
            server.now -= 1
        self.send_response(server.statuses.get(number, 200))
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def counting():
    servers = []

    def start(**given):
        servers.append(Counting(**given))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("clients", "requests"), [(1, 3), (4, 30), (8, 8), (5, 2)])
def test_every_request_is_answered_once_and_never_more_at_a_time_than_clients(counting, clients, requests):
    server = counting()
    load = closed_loop(raw(server.url, b"clip"), clients=clients, requests=requests)
    assert server.bodies == [b"clip"] * requests
    assert len(load.sent) == requests
    assert server.most <= clients
    assert load.check("load") is load
    in_order = sorted(load.sent, key=lambda s: s.start_s)
    assert all(s.end_s > s.start_s for s in in_order)
    at_once = [sum(o.start_s <= s.start_s < o.end_s for o in in_order) for s in in_order]
    assert max(at_once) <= clients


def test_the_clients_are_at_work_side_by_side(counting):
    server = counting()
    closed_loop(raw(server.url, b""), clients=4, requests=40)
    assert server.most > 1


def test_no_request_is_begun_after_the_time_is_over(counting):
    server = counting()
    assert closed_loop(raw(server.url, b""), clients=2, requests=9, seconds=0.0).sent == []
    assert server.bodies == []


def test_failures_are_counted_and_are_no_measurement(counting):
    server = counting(statuses={2: 503})
    load = closed_loop(raw(server.url, b""), clients=1, requests=3)
    assert [s.status for s in load.sent] == [200, 503, 200]
    with pytest.raises(LoadFailed, match="1 of 3 requests failed"):
        load.check("load")


def test_a_server_that_is_not_there_is_a_failure():
    load = closed_loop(raw(f"http://127.0.0.1:{free_port()}/", b""), clients=1, requests=1)
    assert load.failures == 1


def test_the_rate_is_that_of_the_answers_while_all_clients_wait():
    # Two clients, two answers at once every second; the first two come late, the last two even later.
    ends = [7.0, 7.0, *(8.0 + k // 2 for k in range(40)), 90.0, 90.0]
    load = Load(2, [Sent(end - 1.0, end, 200) for end in ends])
    assert load.rate == pytest.approx(2.0, rel=0.01)


def test_too_few_answers_have_no_rate():
    with pytest.raises(LoadFailed, match="11 answers are too few for 2 clients"):
        _ = Load(2, [Sent(k, k + 1.0, 200) for k in range(11)]).rate


def test_latencies_are_those_between_the_first_of_each_client_and_the_last_request():
    times = [(0, 1), (0, 2), (1, 3), (2, 4), (3, 9), (4, 10)]
    load = Load(2, [Sent(float(a), float(b), 200) for a, b in times])
    assert load.latencies == [2.0, 2.0]
    assert load.first_latencies == [1.0, 2.0]
    assert Load(9, load.sent).latencies == []


def test_a_form_holds_the_clip(counting):
    call = multipart("http://127.0.0.1:1/detect", b"\0clip\xff")
    boundary = re.fullmatch(r"multipart/form-data; boundary=(\S+)", call.headers["content-type"])[1]
    assert call.body.startswith(f"--{boundary}".encode())
    assert b'name="file"' in call.body
    assert b"\0clip\xff" in call.body


# Servers


def test_a_server_lives_as_long_as_its_block(tmp_path):
    port = free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    with running(command, os.environ, port=port, ready="/", folder=tmp_path) as server:
        assert tree(server.pid)
        assert server.url == f"http://127.0.0.1:{port}"
    assert tree(server.pid) == []


def test_a_server_that_does_not_start_says_why(tmp_path):
    command = [sys.executable, "-c", "raise SystemExit('no such model')"]
    with (
        pytest.raises(BenchError, match="no such model"),
        running(command, os.environ, port=free_port(), ready="/", folder=tmp_path),
    ):
        pass


def test_what_a_server_leaves_behind_is_ended_too(tmp_path):
    port = free_port()
    program = (
        "import subprocess, sys; from http.server import *;"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True);"
        f"HTTPServer(('127.0.0.1', {port}), SimpleHTTPRequestHandler).serve_forever()"
    )
    command = [sys.executable, "-c", program]
    with running(command, os.environ, port=port, ready="/", folder=tmp_path) as server:
        family = [p.pid for p in tree(server.pid)]
        assert len(family) == 2
    assert not any(tree(pid) for pid in family)


# Clips


def test_films_are_cut_scaled_and_repeated(tmp_path):
    master = write_sample(tmp_path / "master.mp4", seconds=2.0, size=1280)
    _film(master, tmp_path / "small.mp4", seconds=1, height=360)
    _repeat(tmp_path / "small.mp4", tmp_path / "long.mp4", 3)
    with open_clip(tmp_path / "long.mp4") as clip:
        assert (clip.width, clip.height) == (640, 360)
    _film(master, tmp_path / "odd.mp4", seconds=1, height=480)
    with open_clip(tmp_path / "odd.mp4") as clip:
        assert (clip.width, clip.height) == (852, 480)
    with open_clip(tmp_path / "long.mp4") as clip:
        assert clip.times_s == pytest.approx([k / 25 for k in range(75)])
        assert sum(len(b) for b in clip.bursts([range(75)])) == 75
        assert clip.damage is None


def test_a_clip_is_made_once(tmp_path, monkeypatch):
    made = []

    def make(path, **given):
        made.append(path)
        path.touch()
        return path

    monkeypatch.setattr("benchmarks.clips.write_sample", make)
    monkeypatch.setattr("benchmarks.clips._film", lambda source, target, *rest: make(target))
    clips = Clips(tmp_path)
    assert clips.clip(5, 720) == clips.clip(5, 720)
    clips.clip(10, 360)
    assert [path.name for path in made] == ["master.mp4", "720p-5s.mp4", "360p-10s.mp4"]


# Stages


def test_the_stages_are_those_of_the_clip_and_their_work_is_counted(bench, clip, monkeypatch):
    monkeypatch.setattr(stages_module, "SWEEP_S", 0.0)
    monkeypatch.setattr(stages_module, "BATCHES", (1, 4))
    stages = Stages(bench, clip)
    facts = stages.facts()
    # Four bursts of two frames, faces detected on each of them, one face, one sample a frame.
    assert (facts["detections"], facts["tracks"], facts["samples"]) == (8, 1, 8)
    assert {(r["threads"], r["batch"]) for r in stages.sweep()} >= {(1, 1), (1, 4)}
    floor = stages.floor(2)
    assert list(floor) == [*STAGES, "whole", SHARED]
    assert all(cost["wall_s"] > 0 for cost in floor.values())


def test_peers_answer_each_clip_of_a_batch_as_the_pipeline_does(bench, clip, tmp_path, monkeypatch):
    monkeypatch.setenv(BUNDLE, str(bench.bundle.path))
    files = [clip, write_sample(tmp_path / "two.mp4", seconds=0.5, size=640, faces=2)]
    ready = [unpacked(packed(Preparer().prepare(file.read_bytes()))) for file in files]
    assert [len(c.tracks) for c in ready] == [1, 2]
    answers = [Answer.model_validate_json(a) for a in Scorer(threads=1).score(ready)]
    detector, engine = open_detector("yunet"), Engine(bench.bundle)
    own = [prepared(bench.bundle, file, detector) for file in files]
    assert answers == [decide(c, score(engine, c), bench.bundle) for c in own]


# Sparse against dense


def box(x: float, y: float = 0.0, side: float = 10.0) -> np.ndarray:
    return np.array([x, y, side, side], np.float32)


def test_tracks_are_matched_by_the_frames_on_which_they_overlap():
    sparse_tracks = {0: {k: box(0) for k in range(4)}, 1: {k: box(100) for k in range(4)}}
    dense_tracks = {
        5: {k: box(101) for k in range(4)},
        6: {k: box(1) for k in range(3)},
        7: {3: box(0)},
    }
    assert matched(sparse_tracks, dense_tracks) == {0: 6, 1: 5}


def test_a_comparison_counts_overlaps_and_what_has_no_partner():
    sparse_tracks = {0: {0: box(0), 1: box(0), 2: box(0)}}
    dense_tracks = {3: {0: box(0), 1: box(5)}, 4: {2: box(500)}}
    row = compared(Found(sparse_tracks, dense_tracks, {0: {0}}, (1, 3)))
    assert row["iou"] == pytest.approx([1.0, 50 / 150])
    assert row["iou_between"] == pytest.approx([50 / 150])
    assert row["frames_alone"] == 1
    assert (row["sparse_tracks"], row["dense_tracks"], row["same_tracks"]) == (1, 2, False)


def test_no_face_on_either_side_is_the_same_set():
    assert compared(Found({}, {}, {}, (1, 3)))["same_tracks"]


def test_sparse_boxes_equal_dense_ones_where_they_were_detected(bench, clip):
    result = found(bench, clip, open_detector("yunet"))
    ((track, boxes),) = result.sparse.items()
    assert result.key[track] == set(boxes)  # this bundle detects on every frame of a burst
    assert result.detections == (8, 25)
    row = compared(result)
    assert row["same_tracks"]
    assert row["iou"] == pytest.approx([1.0] * 8)
    assert row["frames_alone"] == 0


def test_clips_without_a_face_or_that_are_none_can_not_be_compared(bench, tmp_path):
    (tmp_path / "text.mp4").write_bytes(b"no clip")
    still(tmp_path / "grey.png", np.full((64, 64, 3), 128, np.uint8))
    (tmp_path / "clips.csv").write_text("file,label\ntext.mp4,real\ngrey.png,real\n")
    with pytest.raises(BenchError, match="no face was followed in 1 clips, 1 more can not be read"):
        sparse_part.measure(replace(bench, corpus=tmp_path / "clips.csv"))


def test_few_clips_of_a_table_are_spread_over_it(bench, tmp_path):
    table = tmp_path / "clips.csv"
    table.write_text("file\n" + "".join(f"{k}.mp4\n" for k in range(10)))
    chosen = sparse_part.chosen(replace(bench, corpus=table, counts=replace(QUICK, sparse_clips=3)))
    assert chosen == [tmp_path / f"{k}.mp4" for k in (0, 3, 6)]


# Cost


@pytest.fixture
def short(monkeypatch, bench, clip):
    """The clips of `cost`, but short, and few of them."""
    monkeypatch.setattr(Clips, "clip", lambda self, seconds: clip)
    for name, value in {"SHORT_S": 1, "LONG_S": 2, "CLIENTS": 1, "REQUESTS": 10}.items():
        monkeypatch.setattr(cost_part, name, value)
    return replace(bench, quick=True)


def test_a_clip_costs_cpu_time_by_its_faces_and_seconds(short):
    found = cost_part.measure(short)
    assert [(c["seconds"], c["faces"]) for c in found["clips"]] == [(1, 1), (2, 1), (1, 3)]
    assert (found["clips"][2]["width"], found["clips"][2]["height"]) == (960, 960)
    assert all(one["requests"] == cost_part.REQUESTS for c in found["clips"] for one in c["rounds"])
    assert all(c.cpu.median > 0 for c in cost(found))


def test_faces_that_are_not_found_can_not_be_paid_for(short, monkeypatch):
    monkeypatch.setattr(cost_part, "FACES", 2)
    monkeypatch.setattr(
        cost_part, "write_sample", lambda path, **given: write_sample(path, **given | {"faces": 1})
    )
    with pytest.raises(BenchError, match="1 of 2 faces were found"):
        cost_part.measure(short)


def test_a_face_second_is_a_part_of_a_clip():
    one, three = cost(results()["cost"])
    assert one.cpu.median == 0.9
    assert [c.per_face_second.median for c in (one, three)] == pytest.approx([0.09, 0.09])
    assert one.busy.median == pytest.approx(0.9)


# The document


def results() -> dict[str, dict]:
    floor = {s: {"wall_s": 0.1, "cpu_s": 0.2} for s in (*STAGES, SHARED, "whole")}
    load = {
        "requests": 20,
        "requests_per_s": 2.4,
        "latency_s": [0.5, 0.6, 2.0],
        "first_latency_s": [3.0],
        "cpu_s_per_request": 0.9,
    }
    one = {"floor": floor, "idle_s": [0.4, 0.44, 0.6], "load": load}
    row = {
        "width": 1280,
        "height": 720,
        "bytes": 1000,
        "latency_s": [0.5, 0.7],
        "idle_bytes": 100 * 2**20,
        "looks": 9,
        "frames": 750,
        "frames_decoded": 300,
        "frames_used": 24,
    }
    served = {
        "idle_bytes": 2**28,
        "peak_bytes": 2**29,
        "cpu_s_per_request": 1.0,
        "first_latency_s": [1.5, 1.2],
    }
    compared_row = {
        "iou": [1.0, 0.9, 0.8],
        "iou_between": [0.9, 0.8],
        "frames_alone": 1,
        "sparse_tracks": 1,
        "dense_tracks": 1,
        "same_tracks": True,
        "sparse_frames_detected": 8,
        "dense_frames_detected": 100,
    }
    return {
        "limit": {
            "clip": {
                "seconds": 10.0,
                "width": 1280,
                "height": 720,
                "bytes": 2_000_000,
                "frames_decoded": 250,
                "detections": 8,
                "tracks": 1,
                "samples": 72,
            },
            "clients": 8,
            "cores": 2,
            "sweep": [{"threads": 2, "batch": 16, "samples_per_s": 500.0, "cpu_s_per_sample": 0.002}],
            "rounds": [one, one],
        },
        "growth": {
            "lengths": [
                row | {"seconds": s, "peak_bytes": p * 2**20} for s, p in ((5, 90), (30, 100), (120, 115))
            ],
            "heights": [row | {"seconds": 10, "height": h, "peak_bytes": 2**27} for h in (360, 720)],
        },
        "peers": {
            "clients": 8,
            "probability": 0.5,
            "servers": [
                {
                    "name": name,
                    "version": version,
                    "how": "h",
                    "rounds": [served | {"requests": 9, "requests_per_s": rate, "latency_s": latency}] * 3,
                }
                for name, version, rate, latency in (
                    ("deepfake-detect", None, 3.0, [1.0, 2.0]),
                    ("slow", "1.2", 2.0, [1.0, 2.0]),
                    ("fast", "3", 4.0, [1.0, 2.0]),
                    ("prompt", "1", 2.0, [1.0, 1.1]),
                )
            ],
        },
        "cost": {
            "clients": 4,
            "cores": 2,
            "clips": [
                {
                    **{"seconds": 10, "faces": faces, "width": 1280, "height": 720, "bytes": 2_000_000},
                    **{"frames_decoded": 250, "frames_used": 24},
                    "rounds": [{"cpu_s_per_request": faces * 0.9, "requests_per_s": 2.0 / faces}] * 3,
                }
                for faces in (1, 3)
            ],
        },
        "ancestor": {
            "own_cpu_s": [0.5, 0.6, 0.7],
            "wanted_faces": 150,
            "ancestor": {
                "frames": 150,
                "faces": 149,
                "cpu_s": 90.0,
                "wall_s": 50.0,
                "decode_detect_cpu_s": 86.0,
                "network_cpu_s": 4.0,
                "threads": 2,
                "dlib": "20",
                "torch": "2",
            },
        },
        "sparse": {"clips": "made", "readable": 2, "unreadable": 1, "rows": [compared_row, compared_row]},
    }


def measured(part: str, *, quick: bool = False) -> dict:
    return {
        "part": part,
        "code": "abc",
        "bundle": {"id": "tiny", "digest": "sha256:0", "precision": "fp32", "trained": True},
        "machine": {
            "cpu": "A CPU",
            "cores": 2,
            "memory_gib": 8.0,
            "system": "Linux 6",
            "load_average_before": 0.1,
        },
        "versions": {"python": "3.11"},
        "quick": quick,
        "counts": asdict(QUICK),
        "results": results()[part],
    }


def test_figures_are_ratios_within_rounds_and_percentiles_over_them():
    f = limit(results()["limit"])
    assert f.floor.median == pytest.approx(0.4)
    assert f.latency_ratio.median == pytest.approx(0.44 / 0.4)
    assert f.capacity.median == pytest.approx(2 / 0.8)
    assert f.rate_ratio.median == pytest.approx(2.4 / 2.5)
    assert f.p50 == pytest.approx(0.6)
    assert growth(results()["growth"]).spread_from_30_s == pytest.approx(1.15)
    own, slow, fast, _ = peers(results()["peers"])
    assert (own.rate.median, slow.p95, fast.name) == (3.0, pytest.approx(2.0), "fast")
    s = sparse(results()["sparse"])
    assert (s.iou, s.iou_between, s.same, s.clips) == (pytest.approx(0.9), pytest.approx(0.85), 2, 2)
    assert s.alone == pytest.approx(2 / 8)


def test_a_server_is_ahead_only_when_it_was_in_every_round():
    own, slow, *_ = peers(results()["peers"])
    thrice = replace(own, rates=[3.0, 3.0, 3.0])
    assert thrice.ahead_of(replace(slow, rates=[2.0, 2.9, 2.9]))
    assert not thrice.ahead_of(replace(slow, rates=[1.0, 3.1, 1.0]))
    assert not replace(own, rates=[3.0, 3.0]).ahead_of(replace(slow, rates=[1.0, 1.0]))


def test_one_long_clip_shows_no_growth():
    lengths = results()["growth"]["lengths"][:2]
    assert growth({"lengths": lengths}).spread_from_30_s is None


def test_the_document_says_what_was_measured_and_whether_targets_are_met():
    text = render({part: measured(part) for part in results()})
    for said in (
        "| Samples in a batch | 16 |\n| --- | --- |\n| 2 threads | 500 |",
        "| latency / floor | 1.10 (1.10 to 1.10) | target at most 1.25: met |",
        "| throughput / capacity | 0.96 (0.96 to 0.96) | target at least 0.90: met |",
        "| p99 / p50 | 3.33 | target at most 3.00: missed |",
        "1.150 of the lowest (target at most 1.10: missed)",
        "in every round, at an equal or better p95, than: slow (of 3 configurations)",
        "150 times as many CPU seconds (target at least 100.00: met)",
        "| clips with the same set of tracks | 2 of 2 (100%) |",
        "A CPU, 2 cores, 8.0 GiB",
        "1 more could not be read",
    ):
        assert said in text
    assert "Not measured yet" not in text
    assert "quick run" not in text


def test_a_quick_run_and_what_was_not_measured_say_so():
    text = render({"limit": measured("limit", quick=True)})
    assert "**A quick run" in text
    assert "*quick run; bundle `tiny`" in text
    assert text.count("Not measured yet.") == 5


def test_an_ancestor_that_was_stopped_early_is_not_compared():
    part = measured("ancestor")
    part["results"]["wanted_faces"] = 10
    text = render({"ancestor": part})
    assert "stopped after 149 faces instead of 150" in text
    assert "times as many" not in text


def test_parts_are_kept_side_by_side_and_the_document_stays_whole(tmp_path, bench):
    for part in (Part.limit, Part.growth, Part.cost, Part.peers, Part.sparse, Part.ancestor):
        keep(part, bench, results()[part.value], tmp_path)
        write(tmp_path)
    folder = tmp_path / "benchmarks"
    assert {p.name for p in folder.glob("*.png")} == {
        f"{p}.png" for p in ("limit", "growth", "peers", "sparse")
    }
    assert (tmp_path / "benchmarks.md").read_text() == render(read(folder))
    kept = json.loads((folder / "sparse.json").read_text())
    assert kept["results"] == results()["sparse"]
    assert kept["counts"]["rounds"] == QUICK.rounds
    assert '"iou": [ 1.0, 0.9, 0.8 ]' in (folder / "sparse.json").read_text()


def test_the_published_document_is_what_its_results_say():
    docs = ROOT / "docs"
    assert (docs / "benchmarks.md").read_text(encoding="utf-8") == render(read(docs / "benchmarks"))


# What is measured with


def test_a_bundle_is_chosen_by_its_directory_or_its_name(bench):
    assert open_model(str(bench.bundle.path)).manifest.id == "tiny"
    name = open_model(None).manifest.id
    assert open_model(name).manifest.id == name


def test_what_is_not_installed_can_not_be_measured(bench):
    with pytest.raises(BenchError, match="make bench"):
        peers_part.measure(bench)
    with pytest.raises(BenchError, match="make bench"):
        ancestor_part.measure(bench)


def test_a_quick_run_counts_less():
    few, many = asdict(QUICK), asdict(FULL)
    for name in ("rounds", "peer_rounds", "repeats", "idle", "load", "ancestor_frames", "sparse_clips"):
        assert few[name] < many[name]
    for name in ("lengths_s", "heights"):
        assert set(few[name]) < set(many[name])


def test_peers_run_the_pipeline_with_the_libraries_of_the_service():
    def pins(path: str) -> dict[str, str]:
        text = (ROOT / path).read_text(encoding="utf-8")
        return dict(re.findall(r"^([a-z0-9-]+)==([^\s;\\]+)", text, re.MULTILINE))

    wanted = pins("benchmarks/peers/requirements.in")
    assert {"av", "numpy", "onnxruntime", "opencv-python-headless"} <= wanted.keys()
    locked = (ROOT / "requirements/cpu.lock").read_text(encoding="utf-8")
    for name, version in wanted.items():
        assert f"\n{name}=={version} " in "\n" + locked
        assert pins("benchmarks/peers/requirements.txt")[name] == version
    assert "torch" not in pins("benchmarks/peers/requirements.txt")


def test_each_peer_is_a_file_of_its_own():
    for peer in peers_part.PEERS:
        target = next(a for a in peer.arguments if a.startswith("benchmarks.peers"))
        assert (ROOT / (target.partition(":")[0].replace(".", "/") + ".py")).is_file()
        call = peer.body("http://127.0.0.1:1" + peer.route, b"clip")
        assert isinstance(call, Call)
