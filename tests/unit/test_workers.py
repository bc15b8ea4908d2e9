"""Decoder processes: what a hostile clip does to one of them costs only its own request."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.bundle import open_bundle
from pipeline.errors import FaceModelError, NoVideoStream, UndecodableMedia, UnsupportedMedia
from pipeline.media import Limits
from service.batcher import Expired
from service.child import DecoderConfig, Job
from service.workers import DecoderPool
from tests.bundles import tiny_bundle

ROOT = Path(__file__).resolve().parents[2]

MISBEHAVING = '''
"""The real decoder process around clips that say what they do to it."""
import ctypes, os, sys, time
from dataclasses import asdict
import numpy as np
from pipeline.errors import NoVideoStream
from pipeline.prepared import Coverage, MediaFacts, PreparedClip, PreparedTrack, Quality
import inspect
import service.decoder as decoder

def clip(shape):
    steps = shape[0]
    facts = MediaFacts("0" * 64, 1, "mp4", "h264", 64, 64, 1.0, 25.0, 4, 4)
    coverage = {n: 1 for n in inspect.signature(Coverage).parameters} | {"truncated": False, "why": None}
    track = {n: 1 for n in inspect.signature(PreparedTrack).parameters} | {
        "samples": np.full(shape, 7, np.uint8), "start_s": np.zeros(steps, np.float32),
        "end_s": np.ones(steps, np.float32), "boxes": np.ones((1, 5), np.float32),
        "quality": Quality(64.0, 100.0, 120.0, 0.0, 0.9)}
    return PreparedClip(facts, Coverage(**coverage), [PreparedTrack(**track)], 1, {})

def prepare(path, **_):
    word = path.read_text()
    if word == "crash": os.kill(os.getpid(), 11)
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
    if word == "shape": return clip((4, 1, 8, 8, 3))
    if word == "long": return clip((4000, 1, 32, 32, 3))
    return clip((4, 1, 32, 32, 3))

decoder.prepare = prepare
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
    }
    return DecoderConfig(**(values | changes))


def run(tmp_path, body, *, misbehaving=True, size=1, clips=100, decode_timeout_s=20.0, **changes):
    """Run `body(pool, ask)` with a running pool; returns the reasons of restarts."""
    script = tmp_path / "misbehaving.py"
    script.write_text(MISBEHAVING, encoding="utf-8")
    restarts = []

    async def main():
        pool = DecoderPool(
            config(**changes),
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
    return restarts


@pytest.fixture
def ask(tmp_path, manifest):
    """Give a pool a clip that consists of one word."""
    numbers = iter(range(1000))

    async def give(pool, word, seconds=50.0):
        path = tmp_path / f"clip-{next(numbers)}"
        path.write_text(word, encoding="utf-8")
        deadline = asyncio.get_running_loop().time() + seconds
        clip, waited = await pool.prepare(Job(path, manifest, 4), deadline=deadline)
        assert waited >= 0
        return clip

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
            ("bloat", UndecodableMedia, "memory"),
            ("fail", UndecodableMedia, "fails"),
            ("sound", NoVideoStream, "no video stream"),
            ("shape", UndecodableMedia, "crashed"),
            ("long", UndecodableMedia, "crashed"),
            ("write", UndecodableMedia, "fails"),
        ]:
            with pytest.raises(error, match=says):
                await ask(pool, word)
            clip = await ask(pool, "good")
            np.testing.assert_array_equal(clip.tracks[0].samples, np.full((4, 1, 32, 32, 3), 7))
        assert (await ask(pool, "print")).faces_seen == 1

    restarts = run(tmp_path, body)
    assert restarts == ["crash", "failure", "protocol", "protocol", "failure"]
    assert not [p for p in tmp_path.glob("*.out") if p.stat().st_size]


def test_hanging_clip_is_killed_and_the_place_filled(tmp_path, ask):
    async def body(pool):
        with pytest.raises(Expired, match=r"longer than 0\.5 s"):
            await ask(pool, "hang")
        assert (await ask(pool, "good")).faces_seen == 1
        with pytest.raises(Expired, match="deadline passed"):
            await ask(pool, "hang", seconds=0.2)

    assert run(tmp_path, body, decode_timeout_s=0.5)[0] == "timeout"


def test_crash_leaves_the_other_clip_alone(tmp_path, ask):
    async def body(pool):
        results = await asyncio.gather(
            ask(pool, "good"),
            ask(pool, "crash"),
            ask(pool, "good"),
            ask(pool, "good"),
            return_exceptions=True,
        )
        assert [getattr(r, "faces_seen", type(r)) for r in results] == [1, UndecodableMedia, 1, 1]

    run(tmp_path, body, size=2)


def test_client_that_leaves_frees_its_decoder(tmp_path, ask):
    async def body(pool):
        task = asyncio.create_task(ask(pool, "hang"))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await ask(pool, "good")).faces_seen == 1

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


def test_child_is_replaced_after_its_clips(tmp_path, ask):
    async def body(pool):
        pids = [await said(pool, ask, "pid") for _ in range(4)]
        assert pids[0] == pids[1] != pids[2] == pids[3]

    assert run(tmp_path, body, clips=2)[:1] == ["recycled"]


def test_child_that_died_while_idle_costs_no_clip(tmp_path, ask):
    async def body(pool):
        os.kill(int(await said(pool, ask, "pid")), signal.SIGKILL)
        assert (await ask(pool, "good")).faces_seen == 1

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
