"""Decoder processes: what a hostile clip does to one of them costs only its own request."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.bundle import open_bundle
from pipeline.credentials import NOT_ASKED, Credentials, Trust
from pipeline.errors import FaceModelError, NoVideoStream, UndecodableMedia, UnsupportedMedia
from pipeline.media import Limits
from service import workers
from service.batcher import Expired
from service.child import Child, DecoderConfig
from service.job import Job
from service.sandbox import NotConfined
from service.workers import COMMAND, DecoderPool
from tests.bundles import tiny_bundle

ROOT = Path(__file__).resolve().parents[2]
NONSENSE = (
    *("shape", "crowd", "long", "twice", "endless", "other", "fewer", "rows", "empty", "unasked", "words"),
)
"""What no decoder should send: samples of another shape, of more faces or more of them than asked for; a look
twice, more looks than planned; an outline of cuts that were not sent, or of another number of samples; more
boxes than detections, or none; an outline that nobody asked for; words for numbers."""

MISBEHAVING = '''
"""The real decoder process around clips that say what they do to it."""
import ctypes, inspect, os, sys, time
from dataclasses import replace
from pathlib import Path
import numpy as np
from pipeline.credentials import Credentials
from pipeline.errors import NoVideoStream
from pipeline.prepared import Coverage, MediaFacts, Outline, Quality, TrackOutline
import service.decoder as decoder

def outline(steps, cuts=((0, 0),)):
    facts = MediaFacts("0" * 64, 1, "mp4", "h264", 64, 64, 1.0, 25.0, 4, 4)
    coverage = {n: 1 for n in inspect.signature(Coverage).parameters} | {
        "truncated": False, "why": None, "expired": False, "spans": ()}
    track = {n: 1 for n in inspect.signature(TrackOutline).parameters} | {
        "start_s": np.zeros(steps, np.float32), "cuts": cuts,
        "end_s": np.ones(steps, np.float32), "boxes": np.ones((1, 5), np.float32),
        "quality": Quality(64.0, 100.0, 120.0, 0.0, 0.9)}
    return Outline(facts, Coverage(**coverage), [TrackOutline(**track)], 1, {})

def look_at(job, detector, limits, answers):
    global ANSWERS
    ANSWERS = answers
    path = Path(job["path"])
    def look(number, side=32, faces=1, count=2):
        samples = np.full((faces, count, 1, side, side, 3), 7 + number, np.uint8)
        decoder._send(answers, decoder.LOOKED, decoder.LOOK.pack(number, *samples.shape), samples)
    word = path.read_text()
    if word == "crash": os.kill(os.getpid(), 11)
    if word == "segfault": look(0); ctypes.string_at(0)
    if word == "kill": look(0); os.kill(os.getpid(), 9)
    if word == "spin":
        look(0)
        while True: pass
    if word == "glut":
        hoard = []
        while True: hoard.append(bytearray(1 << 26))
    if word == "hang":
        while True: pass
    if word == "bloat": bytearray(3 << 30)
    if word == "fail": raise RuntimeError("a defect")
    if word == "sound": raise NoVideoStream("no video stream")
    if word == "write": path.with_suffix(".out").write_bytes(b"x" * 10)
    if word == "core": import resource; raise NoVideoStream(str(resource.getrlimit(resource.RLIMIT_CORE)))
    if word == "environment": raise NoVideoStream(" ".join(sorted(os.environ)))
    if word == "privileges": raise NoVideoStream(str(ctypes.CDLL(None).prctl(39, 0, 0, 0, 0)))
    if word == "pid": raise NoVideoStream(str(os.getpid()))
    if word == "print": print("P" * 100, flush=True)
    if word == "shape": look(0, side=8)
    if word == "crowd": look(0, faces=5)
    if word == "long": look(0, count=4000)
    if word == "twice": look(0); look(0)
    if word == "endless":
        for k in range(1000): look(k)
    look(0)
    if word == "silent": time.sleep(30)
    if word == "other": return outline(2, cuts=((1, 0),))
    if word == "fewer": return outline(3)
    if word == "rows":
        made = outline(2)
        return replace(made, tracks=[replace(made.tracks[0], boxes=np.ones((1000, 5), np.float32))])
    if word == "empty":
        made = outline(2)
        return replace(made, tracks=[replace(made.tracks[0], boxes=np.ones((0, 5), np.float32))])
    if word == "unasked":
        decoder._send(answers, decoder.OUTLINED, outline(2).to_bytes())
    if word == "words":
        return replace(outline(2), timing_ms={"decode": "x"})
    if word.startswith("manifest"):
        made = outline(2)
        return replace(made, media=replace(made.media, c2pa="present"))
    if word == "told":
        decoder._send(answers, decoder.OUTLINED, outline(2).to_bytes())
        look(1)
        return outline(4, cuts=((0, 0), (1, 0)))
    return outline(2)

def credentials_of(path, container, trust):
    word = path.read_text().removeprefix("manifest ")
    if word == "crash": os.abort()
    if word == "spin":
        while True: pass
    if word == "hang": time.sleep(100)
    if word == "no library": return Credentials(unchecked="no_library")
    if word == "nonsense": decoder._send(ANSWERS, b"C", b'{"valid": true, "signer": "a\\nb"}')
    if word == "long": decoder._send(ANSWERS, b"C", b'{"valid": true}' + b" " * (1 << 20))
    if word == "other": decoder._send(ANSWERS, b"P", b'{"valid": true}')
    return Credentials(valid=True, signer=f"{container} {trust.signers}")

decoder.look_at, decoder.credentials_of, decoder.CHECK_CPU_S = look_at, credentials_of, 1.0
sys.exit(decoder.main())
'''


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return open_bundle(tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")).manifest


def config(**changes):
    values = {
        "face_detector": "yunet",
        "face_model": None,
        "accept_license": False,
        "memory_bytes": 1 << 30,
        "limits": Limits(),
        "scratch": "/",
    }
    return DecoderConfig(**(values | changes))


def run(tmp_path, body, *, misbehaving=True, size=1, clips=100, decode_timeout_s=20.0, **changes):
    """Run `body(pool)` with a running pool; returns the reasons of restarts. No process is left behind."""
    before = offspring()
    script = tmp_path / "misbehaving.py"
    script.write_text(MISBEHAVING, encoding="utf-8")
    restarts = []

    async def main():
        pool = DecoderPool(
            config(scratch=str(tmp_path), **changes),
            size=size,
            clips=clips,
            decode_timeout_s=decode_timeout_s,
            on_restart=restarts.append,
            **({"command": (sys.executable, str(script))} if misbehaving else {}),
        )
        await pool.start()
        try:
            async with asyncio.timeout(60):
                await body(pool)
        finally:
            await pool.stop()
            assert pool.alive == 0

    asyncio.run(main())
    assert offspring() <= before
    return restarts


def offspring():
    """Processes that this one has started and that are not gone, as far as the system tells."""
    lists = Path("/proc/self/task").glob("*/children")
    return {int(pid) for children in lists for pid in children.read_text().split()}


@pytest.fixture
def ask(tmp_path, manifest):
    """Give a pool a clip that consists of one word."""
    numbers = iter(range(1000))

    async def give(pool, word, seconds=50.0, outlines=False):
        path = tmp_path / f"clip-{next(numbers)}"
        path.write_text(word, encoding="utf-8")
        deadline = asyncio.get_running_loop().time() + seconds
        heard = []

        async def listener(told):
            heard.append(told)

        job = Job(path, manifest, 4, "0" * 64, outlines=outlines)
        outline, waited = await pool.prepare(job, listener, deadline=deadline)
        assert waited >= 0
        return outline, heard

    return give


async def said(pool, ask, word):
    with pytest.raises(NoVideoStream) as caught:
        await ask(pool, word)
    return str(caught.value)


def test_hostile_clips_cost_only_themselves(tmp_path, ask):
    """One pool, one misfortune after the other, and a good clip after each."""

    async def body(pool):
        for word, error, says in [
            ("crash", UndecodableMedia, "crashed"),
            ("segfault", UndecodableMedia, "crashed"),
            ("kill", UndecodableMedia, "crashed"),
            ("bloat", UndecodableMedia, "memory"),
            ("glut", UndecodableMedia, "memory"),
            ("fail", UndecodableMedia, "fails"),
            ("sound", NoVideoStream, "no video stream"),
            *((nonsense, UndecodableMedia, "crashed") for nonsense in NONSENSE),
            ("write", UndecodableMedia, "fails"),
        ]:
            with pytest.raises(error, match=says):
                await ask(pool, word)
            outline, [looked] = await ask(pool, "good")
            assert pool.alive == 1
            assert outline.tracks[0].cuts == ((looked.number, 0),)
            np.testing.assert_array_equal(looked.samples, np.full((1, 2, 1, 32, 32, 3), 7))
        assert (await ask(pool, "print"))[0].faces_seen == 1

    restarts = run(tmp_path, body)
    assert restarts == [*["crash"] * 3, "failure", *["protocol"] * len(NONSENSE), "failure"]
    assert not [p for p in tmp_path.glob("*.out") if p.stat().st_size]


def test_a_manifest_that_breaks_its_reader_costs_no_verdict(tmp_path, ask, monkeypatch):
    monkeypatch.setattr(workers, "CHECK_S", 20.0)

    async def body(pool):
        for word, why in [
            ("crash", "failed"),
            ("spin", "timeout"),
            ("nonsense", "failed"),
            ("long", "failed"),
            ("other", "failed"),
        ]:
            outline, [looked] = await ask(pool, f"manifest {word}")
            assert outline.tracks[0].cuts == ((looked.number, 0),), word
            assert outline.credentials == Credentials(unchecked=why), word
            outline, _ = await ask(pool, "manifest")
            assert outline.credentials == Credentials(valid=True, signer="mp4 anchors"), word
        assert (await ask(pool, "good"))[0].credentials == NOT_ASKED

    restarts = run(tmp_path, body, trust=Trust(signers="anchors"))
    assert restarts == ["crash", "cpu", "protocol", "protocol", "protocol"]


def test_a_manifest_that_takes_too_long_costs_no_verdict(tmp_path, ask, monkeypatch, caplog):
    async def body(pool):
        monkeypatch.setattr(workers, "CHECK_S", 0.2)
        outline, _ = await ask(pool, "manifest hang")
        assert outline.credentials == Credentials(unchecked="timeout")
        monkeypatch.setattr(workers, "CHECK_S", 1000.0)
        outline, _ = await ask(pool, "manifest hang", seconds=4.0)
        assert outline.credentials == Credentials(unchecked="timeout")
        assert (await ask(pool, "manifest"))[0].credentials.valid

    assert run(tmp_path, body, decode_timeout_s=1000.0) == ["timeout", "timeout"]
    assert [r.limit_s for r in caplog.records if r.message == "a manifest took too long"] == [
        0.2,
        pytest.approx(2.0, abs=1.0),
    ]


def test_a_library_that_does_not_load_is_logged_once(tmp_path, ask, caplog):
    async def body(pool):
        for _ in range(2):
            found = (await ask(pool, "manifest no library"))[0].credentials
            assert found == Credentials(unchecked="no_library")

    assert run(tmp_path, body) == []
    assert sum("does not load" in r.message for r in caplog.records) == 1


def test_a_client_that_leaves_while_a_manifest_is_read_frees_the_decoder(tmp_path, ask, monkeypatch):
    begun, credentials = asyncio.Event(), Child.credentials

    async def waiting(child):
        begun.set()
        return await credentials(child)

    monkeypatch.setattr(Child, "credentials", waiting)

    async def body(pool):
        asking = asyncio.create_task(ask(pool, "manifest hang"))
        await begun.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert (await ask(pool, "manifest"))[0].credentials.valid

    assert run(tmp_path, body) == ["cancelled"]


def test_what_was_cut_is_told_before_the_clip_has_ended(tmp_path, ask):
    async def body(pool):
        outline, heard = await ask(pool, "told", outlines=True)
        assert [type(told).__name__ for told in heard] == ["Looked", "Outline", "Looked"]
        assert [heard[0].number, heard[2].number] == [0, 1]
        assert heard[1].tracks[0].cuts == ((0, 0),)
        assert outline.tracks[0].cuts == ((0, 0), (1, 0))

    run(tmp_path, body)


def test_a_clip_waits_until_a_child_takes_it(tmp_path, manifest):
    path = tmp_path / "clip"
    path.write_text("good", encoding="utf-8")

    async def body(pool):
        now = asyncio.get_running_loop().time() + 100
        ages, taken = [], []

        def take(number):
            taken.append(number)
            ages.append(pool.oldest_s(now))

        async def listener(_told):
            ages.append(pool.oldest_s(now))

        job = Job(path, manifest, 4, "0" * 64)
        asked = [
            pool.prepare(job, listener, deadline=now, taken=lambda n=n: take(n)) for n in ("first", "second")
        ]
        assert pool.oldest_s(now) == 0
        await asyncio.gather(*asked)
        assert taken == ["first", "second"]
        assert [age > 0 for age in ages] == [False, True, False, False], (
            "one waits while the first is looked at"
        )

    run(tmp_path, body)


def test_a_decoder_is_not_blamed_for_the_time_that_it_is_kept_waiting(tmp_path, manifest):
    path = tmp_path / "clip"
    path.write_text("told", encoding="utf-8")

    async def slow(_told):
        await asyncio.sleep(0.7)

    async def body(pool):
        deadline = asyncio.get_running_loop().time() + 50
        outline, _ = await pool.prepare(
            Job(path, manifest, 4, "0" * 64, outlines=True), slow, deadline=deadline
        )
        assert outline.faces_seen == 1

    run(tmp_path, body, decode_timeout_s=0.5)


def test_a_listener_that_fails_ends_the_decoder_with_its_own_error(tmp_path, ask, manifest):
    path = tmp_path / "clip"
    path.write_text("silent", encoding="utf-8")

    async def failing(_told):
        raise LookupError("nobody listens")

    async def body(pool):
        deadline = asyncio.get_running_loop().time() + 50
        with pytest.raises(LookupError, match="nobody listens"):
            await pool.prepare(Job(path, manifest, 4, "0" * 64), failing, deadline=deadline)
        assert (await ask(pool, "good"))[0].faces_seen == 1

    assert run(tmp_path, body)[:1] == ["cancelled"]


def test_hanging_clip_is_killed_and_the_place_filled(tmp_path, ask):
    async def body(pool):
        with pytest.raises(Expired, match=r"longer than 0\.5 s"):
            await ask(pool, "hang")
        assert (await ask(pool, "good"))[0].faces_seen == 1
        with pytest.raises(Expired, match="deadline passed"):
            await ask(pool, "hang", seconds=0.2)

    assert run(tmp_path, body, decode_timeout_s=0.5)[0] == "timeout"


def test_clip_that_computes_without_end_is_ended_while_nobody_watches_the_clock(tmp_path, ask, manifest):
    """While its listener is busy a decoder's time stands still, but not its CPU time."""
    path = tmp_path / "clip"
    path.write_text("spin", encoding="utf-8")

    async def body(pool):
        (child,) = pool._children

        async def busy(_told):
            await child.ended()

        deadline = asyncio.get_running_loop().time() + 50
        with pytest.raises(Expired, match="more than 1 s of CPU time"):
            await pool.prepare(Job(path, manifest, 4, "0" * 64), busy, deadline=deadline)
        assert (await ask(pool, "good"))[0].faces_seen == 1
        assert pool.alive == 1

    assert run(tmp_path, body, decode_timeout_s=1.0) == ["cpu"]


def test_cpu_time_is_counted_anew_for_each_clip_and_for_each_thread(tmp_path, ask, manifest):
    async def body(pool):
        (child,) = pool._children
        for threads, least in ((1, 20), (2, 60), (1, 20)):
            path = tmp_path / "clip"
            path.write_text("good", encoding="utf-8")

            async def listener(_told, least=least):
                soft, _ = resource.prlimit(child.pid, resource.RLIMIT_CPU)
                assert least <= soft < least + 20

            deadline = asyncio.get_running_loop().time() + 50
            await pool.prepare(Job(path, manifest, 4, "0" * 64, threads=threads), listener, deadline=deadline)

    assert run(tmp_path, body) == []


def test_limits_hold_without_the_filter(tmp_path, ask):
    async def body(pool):
        for word, says in (("write", "fails"), ("bloat", "memory"), ("segfault", "crashed")):
            with pytest.raises(UndecodableMedia, match=says):
                await ask(pool, word)
            assert (await ask(pool, "good"))[0].faces_seen == 1
        assert pool.confinement.had == ("no_new_privs",)
        assert set(pool.confinement.lacking.values()) == {"switched off"}

    assert run(tmp_path, body, sandbox="off") == ["failure", "crash"]
    assert not [p for p in tmp_path.glob("*.out") if p.stat().st_size]


def test_crash_leaves_the_other_clip_alone(tmp_path, ask):
    async def body(pool):
        results = await asyncio.gather(
            ask(pool, "good"),
            ask(pool, "crash"),
            ask(pool, "good"),
            ask(pool, "good"),
            return_exceptions=True,
        )
        assert [r[0].faces_seen if isinstance(r, tuple) else type(r) for r in results] == [
            1,
            UndecodableMedia,
            1,
            1,
        ]

    run(tmp_path, body, size=2)


def test_client_that_leaves_frees_its_decoder(tmp_path, ask):
    async def body(pool):
        task = asyncio.create_task(ask(pool, "hang"))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await ask(pool, "good"))[0].faces_seen == 1

    assert run(tmp_path, body) == ["cancelled"]


def test_waiting_for_a_decoder_has_a_deadline(tmp_path, ask):
    async def body(pool):
        busy = asyncio.create_task(ask(pool, "hang"))
        await asyncio.sleep(0.1)
        with pytest.raises(Expired, match="became free"):
            await ask(pool, "good", seconds=0.1)
        busy.cancel()
        await asyncio.gather(busy, return_exceptions=True)

    run(tmp_path, body)


def test_a_deadline_that_has_passed_costs_no_decoder(tmp_path, ask):
    async def body(pool):
        before = await said(pool, ask, "pid")
        with pytest.raises(Expired):
            await ask(pool, "good", seconds=-1.0)
        assert await said(pool, ask, "pid") == before

    assert run(tmp_path, body) == []


def test_child_is_replaced_after_its_clips(tmp_path, ask):
    async def body(pool):
        pids = [await said(pool, ask, "pid") for _ in range(4)]
        assert pids[0] == pids[1] != pids[2] == pids[3]

    assert run(tmp_path, body, clips=2)[:1] == ["recycled"]


def test_child_that_died_while_idle_costs_no_clip(tmp_path, ask):
    async def body(pool):
        os.kill(int(await said(pool, ask, "pid")), signal.SIGKILL)
        assert (await ask(pool, "good"))[0].faces_seen == 1

    assert run(tmp_path, body) == ["crash"]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_child_has_given_up_what_it_does_not_need(tmp_path, ask, monkeypatch):
    monkeypatch.setenv("DETECTOR_SECRET", "1")

    async def body(pool):
        assert await said(pool, ask, "core") == "(0, 0)"
        assert await said(pool, ask, "privileges") == "1"
        assert "DETECTOR_SECRET" not in (await said(pool, ask, "environment")).split()

    run(tmp_path, body)


def test_real_decoder_refuses_what_is_no_media_and_goes_on(tmp_path, ask):
    async def body(pool):
        pid = {child.pid for child in pool._children}
        for _ in range(2):
            with pytest.raises(UnsupportedMedia):
                await ask(pool, "just text")
        assert {child.pid for child in pool._children} == pid

    assert run(tmp_path, body, misbehaving=False) == []


def test_detector_that_can_not_be_opened_is_said_at_the_start(tmp_path):
    async def body(pool):
        raise AssertionError("started")

    with pytest.raises(FaceModelError, match="no-such-model"):
        run(tmp_path, body, misbehaving=False, face_model=str(tmp_path / "no-such-model.onnx"))


SAYING = '''
"""The real decoder process, which says of its confinement what it is told to."""
import sys
import service.decoder as decoder

class Said:
    def to_bytes(self): return sys.argv[1].encode()

decoder.restrict = lambda *_, **__: Said()
sys.exit(decoder.main())
'''
UNCONFINED = '{"had": ["no_new_privs"], "lacking": {"seccomp": "seccomp: Function not implemented"}}'


def start(tmp_path, said, **changes):
    """Start and stop a pool whose decoders say that of their confinement; what the pool makes of it."""
    script = tmp_path / "saying.py"
    script.write_text(SAYING, encoding="utf-8")
    command = (sys.executable, str(script), said)
    before = offspring()

    async def main():
        pool = DecoderPool(
            config(scratch=str(tmp_path), **changes), size=2, clips=9, decode_timeout_s=9.0, command=command
        )
        try:
            await pool.start()
            return pool.confinement
        finally:
            await pool.stop()

    try:
        return asyncio.run(main())
    finally:
        assert offspring() <= before


def test_what_is_lacking_is_logged_once(tmp_path, caplog):
    assert start(tmp_path, UNCONFINED).had == ("no_new_privs",)
    (record,) = [r for r in caplog.records if r.message == "decoders confined"]
    assert record.levelname == "WARNING"
    assert record.had == ("no_new_privs",)
    assert record.lacking == {"seccomp": "seccomp: Function not implemented"}


def test_what_is_required_and_lacking_prevents_the_start(tmp_path):
    with pytest.raises(
        NotConfined, match=r"can not be confined: seccomp: Function not implemented; DETECTOR"
    ):
        start(tmp_path, UNCONFINED, sandbox="require")


@pytest.mark.parametrize("said", ["", "nonsense", "[]", "{}", '{"had": [], "lacking": []}'])
def test_nonsense_about_the_confinement_prevents_the_start(tmp_path, said):
    with pytest.raises(FaceModelError, match="nonsense"):
        start(tmp_path, said)


def test_nothing_is_imported_from_where_the_server_was_started(tmp_path):
    (tmp_path / "av.py").write_text("import sys; sys.exit('planted')")
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ask = [*COMMAND[:-2], "-c", "import av; print(av.__file__)"]
    found = subprocess.run(ask, cwd=tmp_path, env=paths, capture_output=True, check=True)
    assert b"site-packages" in found.stdout
