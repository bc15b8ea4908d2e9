"""The self-test: when a service takes on work, and when no more."""

import asyncio
import itertools
import re

import pytest

from pipeline.bundle import open_bundle
from pipeline.detect.registry import open_detector
from pipeline.errors import BundleCorrupt
from pipeline.golden import TOLERANCE, recorded
from service import canary
from service.batcher import Expired, ItemFailed
from service.canary import Canary
from tests.bundles import tiny_bundle
from tests.running import Running


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """What the tiny bundle says of the golden clip."""
    bundle = open_bundle(tiny_bundle(tmp_path_factory.mktemp("known") / "tiny"))
    return recorded(bundle, open_detector("yunet", threads=1))["golden"]["fake"]


@pytest.fixture
def started(tmp_path):
    """Starts a service of a bundle that is to answer `golden`; ends it with the test."""
    running = []

    def start(golden, **settings):
        (tmp_path / "models").mkdir()
        tiny_bundle(tmp_path / "models" / "tiny", golden=golden)
        one = Running(tmp_path / "models", tmp_path, **settings)
        running.append(one)
        one.runner.run(one.start())
        return one

    yield start
    for one in running:
        one.runner.run(one.stop())
        one.runner.close()


def runs(one):
    """Self-tests by their result."""
    (metric,) = one.service.metrics.canary_runs.collect()
    return {s.labels["result"]: s.value for s in metric.samples if s.value}


def again(one):
    one.runner.run(Canary(one.service).again())


def test_ready_once_the_bundle_has_answered_what_it_knows(started, known):
    one = started(known)
    assert one.ask("GET", "/readyz").status_code == 200
    assert runs(one) == {"right": 1}
    text = one.ask("GET", "/metrics").text
    assert 'detector_canary_score{model="tiny"}' in text
    assert f'detector_canary_expected{{model="tiny"}} {known:.4g}' in text


def test_a_bundle_that_answers_something_else_is_not_served(started, known):
    with pytest.raises(BundleCorrupt, match=r"the golden clip is answered with .* instead of"):
        started(known + 2 * TOLERANCE)


def test_small_differences_are_those_of_machines(started, known):
    assert runs(started(known + TOLERANCE / 2)) == {"right": 1}


def test_a_golden_clip_that_is_not_answered_keeps_the_service_from_starting(started, known, monkeypatch):
    async def late(*_, **__):
        raise Expired("no decoder became free in time")

    monkeypatch.setattr("service.workers.DecoderPool.prepare", late)
    with pytest.raises(BundleCorrupt, match="the golden clip is not answered"):
        started(known)


def test_a_bundle_that_knows_nothing_only_has_to_answer(started):
    one = started(None)
    assert one.ask("GET", "/readyz").status_code == 200
    assert runs(one) == {"unknown": 1}


def test_without_self_tests_a_service_is_ready_at_once(started, known):
    one = started(known + 0.5, canary_every_s=0)
    assert one.ask("GET", "/readyz").status_code == 200
    assert runs(one) == {}


def test_readiness_follows_the_self_test(started, known, monkeypatch):
    one = started(known)
    monkeypatch.setattr(canary, "expected", lambda _: known + 0.1)
    again(one)
    response = one.ask("GET", "/readyz")
    assert (response.status_code, response.json()["type"]) == (503, "/problems/not-ready")
    assert "the self-test of tiny fails" in response.json()["detail"]
    assert one.ask("GET", "/livez").status_code == 200
    monkeypatch.setattr(canary, "expected", lambda _: known)
    again(one)
    assert one.ask("GET", "/readyz").status_code == 200
    assert runs(one) == {"right": 2, "wrong": 1}


def test_a_self_test_that_is_late_changes_nothing(started, known, monkeypatch):
    one = started(known)

    async def late(*_, **__):
        raise Expired("no decoder became free in time")

    monkeypatch.setattr(one.service.pool, "prepare", late)
    again(one)
    assert one.ask("GET", "/readyz").status_code == 200
    assert runs(one) == {"right": 1, "unanswered": 1}


def test_a_self_test_that_breaks_off_does_not_end_the_others(started, known, monkeypatch):
    one = started(known)

    async def broken(*_, **__):
        raise ItemFailed("the encoder fails on an item")

    monkeypatch.setattr(one.service.pool, "prepare", broken)
    again(one)
    again(one)
    assert one.ask("GET", "/readyz").status_code == 200
    assert runs(one) == {"right": 1, "unanswered": 2}


def test_limits_that_refuse_the_golden_clip_leave_the_service_to_start(started, known):
    one = started(known, max_pixels=400 * 300)
    assert one.ask("GET", "/readyz").status_code == 200
    assert runs(one) == {}


def test_another_face_detector_cuts_other_pixels(started, known, monkeypatch):
    one = started(known)
    monkeypatch.setattr(canary, "expected", lambda _: known + 0.5)
    monkeypatch.setattr(
        one.service, "settings", one.settings.model_copy(update={"face_detector": "insightface"})
    )
    again(one)
    assert one.ask("GET", "/readyz").status_code == 200
    assert runs(one) == {"right": 1, "unknown": 1}


def test_the_metrics_of_clips_are_those_of_clients_alone(started, known):
    one = started(known)
    text = one.ask("GET", "/metrics").text
    assert "detector_queue_wait_seconds_count" not in text
    assert 'detector_clip_score_count{model="tiny"} 0.0' in text
    assert "detector_clip_faces_count 0.0" in text
    assert set(re.findall(r"^detector_verdicts_total\{.*\} (.*)$", text, re.MULTILINE)) == {"0.0"}


def test_it_is_tested_again_and_again(started, known, monkeypatch):
    thrice, count = asyncio.Event(), itertools.count(1)

    async def counted(_):
        if next(count) == 3:
            thrice.set()

    monkeypatch.setattr(Canary, "again", counted)
    one = started(known, canary_every_s=0.01)
    one.runner.run(asyncio.wait_for(thrice.wait(), 30))
