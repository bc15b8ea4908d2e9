"""Load tests without locust: what is sent, judged, held against thresholds, and computed from it."""

import io
import json
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
from PIL import Image

from benchmarks.figures import ClipCost
from benchmarks.summary import Spread
from loadtests import arithmetic, record, results, scaling, streams, tables, uploads
from loadtests import thresholds as t
from loadtests.__main__ import report
from loadtests.judging import Judgement, Outcome, Wanted, judge
from loadtests.patience import ATTEMPTS, JITTER, pause_s
from loadtests.scenarios import SCENARIOS, users_at
from pipeline.media import sniff
from tests.unit.test_benchmarks import results as benchmark_results
from tests.unit.test_reliability import results as reliability_results

ROOT = Path(__file__).resolve().parents[2]
ANSWER = json.dumps({"verdict": "uncertain", "model": {"id": "m"}})
PROBLEM = {"Content-Type": "application/problem+json"}


def response(status, text="{}", headers=None):
    return SimpleNamespace(
        status_code=status, text=text, headers=headers or {}, json=lambda: json.loads(text), error=None
    )


@pytest.mark.parametrize(
    ("status", "wanted", "headers", "outcome"),
    [
        (200, Wanted.answer, {}, Outcome.answered),
        (200, Wanted.either, {}, Outcome.answered),
        (200, Wanted.refusal, {}, Outcome.failed),
        (422, Wanted.refusal, PROBLEM, Outcome.told),
        (422, Wanted.either, PROBLEM, Outcome.told),
        (408, Wanted.nothing, PROBLEM, Outcome.told),
        (422, Wanted.refusal, {}, Outcome.failed),
        (422, Wanted.answer, PROBLEM, Outcome.failed),
        (500, Wanted.refusal, PROBLEM, Outcome.failed),
        (504, Wanted.either, PROBLEM, Outcome.failed),
        (0, Wanted.nothing, {}, Outcome.left),
        (0, Wanted.refusal, {}, Outcome.failed),
        (503, Wanted.refusal, {"Retry-After": "3"}, Outcome.away),
        (429, Wanted.answer, {"Retry-After": "3"}, Outcome.away),
        (503, Wanted.answer, {}, Outcome.failed),
        (429, Wanted.answer, {"Retry-After": "soon"}, Outcome.failed),
    ],
)
def test_an_answer_is_judged_by_what_was_due(status, wanted, headers, outcome):
    assert judge(response(status, ANSWER, headers), wanted).outcome is outcome


def test_who_is_turned_away_hears_for_how_long():
    away = judge(response(503, headers={"Retry-After": "7"}), Wanted.answer)
    assert away == Judgement(Outcome.away, retry_after_s=7)
    assert "without Retry-After" in judge(response(503), Wanted.answer).why


def test_nobody_comes_back_sooner_than_asked_nor_all_at_once():
    draw = Random(0)
    pauses = [pause_s(4, draw) for _ in range(200)]
    assert 4 <= min(pauses) < max(pauses) <= 4 * (1 + JITTER)
    assert len(set(pauses)) == 200
    assert pause_s(0, draw) == 0


# What is sent


def read(stream):
    return b"".join(iter(lambda: stream.read(16_384), b""))


def test_a_slow_line_sends_everything_in_many_pieces(monkeypatch):
    slept = []
    monkeypatch.setattr(streams.time, "sleep", slept.append)
    body = bytes(range(256)) * 10
    assert read(streams.Stream(body, piece=100, pause_s=0.5)) == body
    assert slept == [0.5] * 26
    assert len(streams.Stream(body)) == 2560
    assert b"".join(streams.Stream(body, piece=7)) == body


def test_a_client_stalls_once_in_the_middle(monkeypatch):
    slept = []
    monkeypatch.setattr(streams.time, "sleep", slept.append)
    body = bytes(range(200)) * 200
    assert read(streams.Stalling(body, 9.0)) == body
    assert slept == [9.0]


def test_a_client_leaves_in_the_middle():
    stream = streams.Leaving(b"x" * 1000)
    with pytest.raises(streams.Left):
        read(stream)
    assert stream.sent == 500


def test_what_is_endless_looks_for_an_answer_some_time():
    stream = streams.Endless(b"x" * 10, claimed=10**9, most=50_000)
    assert len(stream) == 10**9
    with pytest.raises(streams.Enough):
        read(stream)
    assert 50_000 <= stream.sent < 50_000 + 16_384


def test_hostile_uploads_are_what_they_say(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    by_kind = {u.kind: u for u in uploads.refused()}
    assert {k for k, u in by_kind.items() if u.wanted is not Wanted.refusal} == {"stalling", "leaving"}
    with Image.open(io.BytesIO(by_kind["huge picture"].body)) as picture:
        assert picture.size == (16_000, 16_000)
    assert sniff(by_kind["truncated"].body) == sniff(by_kind["noise for frames"].body) == "mov"
    assert len(by_kind["too large"].body()) == 2**40
    assert len(by_kind["half a form"].body) < len(by_kind["two clips"].body)


def test_all_hostile_uploads_come_up_and_some_that_were_tampered_with():
    draw = Random(0)
    kinds = {uploads.hostile(draw).kind for _ in range(1500)}
    assert kinds == {u.kind for u in uploads.refused()} | {"tampered"}


def test_a_clip_of_ones_own_is_sent(tmp_path, monkeypatch):
    (tmp_path / "own.mp4").write_bytes(b"my clip")
    monkeypatch.setenv("DETECTOR_LOAD_CLIP", str(tmp_path / "own.mp4"))
    uploads.plain.cache_clear()
    try:
        assert b"my clip" in uploads.plain().body
    finally:
        uploads.plain.cache_clear()


# Thresholds


def sample(**given):
    sound = record.Sample(1.0, 0.5, 4, "clip", Wanted.answer, Outcome.answered, 200, 1)
    return replace(sound, **given)


AWAY = {"outcome": Outcome.away, "status": 503}
FAILED = {"outcome": Outcome.failed, "status": 500, "why": "status 500: x"}


def run(*samples, stages=((30.0, 4),), alone=0.5):
    return t.Run(samples, stages, {"clip": alone} if alone else {})


REFUSED = {"wanted": Wanted.refusal, "kind": "text"}


@pytest.mark.parametrize(
    ("threshold", "good", "bad"),
    [
        (t.no_failures, run(sample(), sample(**AWAY)), run(sample(), sample(**FAILED))),
        (t.some_answered, run(sample()), run(sample(**AWAY))),
        (
            t.retry_after,
            run(sample(**AWAY)),
            run(sample(outcome=Outcome.failed, status=503, why="status 503 without Retry-After")),
        ),
        (
            t.told_what_is_wrong,
            run(sample(**REFUSED, outcome=Outcome.told), sample(**REFUSED, outcome=Outcome.away)),
            run(sample(**REFUSED, outcome=Outcome.told), sample(**REFUSED, outcome=Outcome.failed)),
        ),
        (t.told_what_is_wrong, run(sample(**REFUSED, outcome=Outcome.told)), run(sample())),
        (t.turned_away(0.5), run(sample(), sample(**AWAY)), run(sample(**AWAY), sample(**AWAY), sample())),
        (
            t.given_up(0.5),
            run(*[sample(**AWAY)] * 9, sample(**AWAY, attempt=ATTEMPTS), sample()),
            run(*[sample(**AWAY, attempt=ATTEMPTS)] * 2, sample()),
        ),
        (t.latency(2.0), run(*[sample(seconds=4.0)] * 9), run(*[sample(seconds=4.1)] * 9)),
        (t.latency(2.0), run(sample()), run(sample(), alone=None)),
        (t.latency(2.0), run(sample()), run(sample(kind="slow", seconds=0.1))),
        (
            t.latency(2.0, at_once=2),
            run(sample(seconds=2.0)),
            run(sample(seconds=2.1)),
        ),
        (
            t.recovered(2.0, users=2),
            run(sample(seconds=9.0), sample(at_s=25.0, seconds=2.0)),
            run(sample(seconds=2.0), sample(at_s=25.0, seconds=2.1)),
        ),
        (t.recovered(2.0, users=2), run(sample(at_s=25.0)), run(sample())),
        (
            t.holds_its_rate(0.7),
            run(*[sample()] * 10, *[sample(at_s=11.0)] * 7, stages=((10, 1), (10, 2))),
            run(*[sample()] * 10, *[sample(at_s=11.0)] * 6, stages=((10, 1), (10, 2))),
        ),
    ],
)
def test_a_threshold_can_be_met_and_missed(threshold, good, bad):
    assert threshold(good).met
    assert not threshold(bad).met
    assert threshold(bad).name == threshold(good).name


def test_failures_are_told():
    check = t.no_failures(run(sample(**FAILED), sample(**FAILED), sample()))
    assert check.found == "2 of 3 (2 x clip: status 500: x)"


def test_only_times_are_marked_as_such():
    timed = {c.name for s in SCENARIOS.values() for c in (h(run(sample())) for h in s.thresholds) if c.timed}
    assert timed == {"p95 of the answers", "p95 in the last third", "rate in the last stage"}


def test_nothing_at_all_meets_no_scenario():
    for scenario in SCENARIOS.values():
        nothing = t.Run([], scenario.stages)
        assert not all(threshold(nothing).met for threshold in scenario.thresholds)


def test_stages_follow_each_other():
    assert [users_at(((2, 5), (3, 7)), at) for at in (0, 1.9, 2, 4.9, 5)] == [5, 5, 7, 7, None]
    assert SCENARIOS["ramp"].scaled(0.5)[0] == (5.0, 1)
    assert sum(s for scenario in SCENARIOS.values() for s, _ in scenario.stages) <= 290


# Results


def test_stages_have_rates_and_latencies_of_their_own():
    first, second, third = record.steps(
        [sample(), sample(at_s=9.8, seconds=1.0), sample(at_s=12.0, **AWAY)], ((10, 1), (10, 2), (10, 4))
    )
    assert (first.rate, first.answered, first.away) == (0.1, 2, 0)
    assert first.p50_s == pytest.approx(0.75)
    assert (second.rate, second.answered, second.away, second.p95_s) == (0.1, 0, 1, None)
    assert (third.users, third.rate, third.p50_s) == (4, 0.0, None)


def ramp():
    samples = [sample(at_s=float(k), users=1) for k in range(10)] + [sample(kind="x", **FAILED)]
    return results.results(SCENARIOS["ramp"], t.Run(samples, ((10, 1), (10, 2)), {"clip": 0.5}))


def test_results_tell_of_every_kind_and_of_every_threshold():
    found = ramp()
    assert (found["requests"], found["answered"], found["failed"], found["met"]) == (11, 10, 1, False)
    assert found["kinds"]["clip"]["outcomes"] == {"answered": 10}
    assert found["kinds"]["x"] == {"requests": 1, "outcomes": {"failed": 1}}
    assert found["p95_s"] == 0.5
    assert len(found["checks"]) == len(SCENARIOS["ramp"].thresholds)
    assert [c.name for c in tables.missed([found])] == ["failed requests", "rate in the last stage"]
    assert json.loads(json.dumps(found)) == found
    assert "| ramp | 2 | 11 | 10 | 0.50 | 0 | 1 | 0.50 s, 0.50 s |" in tables.summary([found])
    assert "| ramp | failed requests | 1 of 11 (1 x x: status 500: x) | none | **missed** |" in (
        tables.thresholds([found])
    )


def test_a_report_has_tables_and_a_picture_of_the_ramp(tmp_path, capsys):
    report([ramp()], tmp_path)
    assert (tmp_path / "ramp.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "report.md").read_text()
    assert "ramp.png" in text
    assert tables.summary([ramp()]) in text
    assert capsys.readouterr().out in text


# The document


def spread(value):
    return Spread.of([value])


def test_replicas_are_rounded_up_and_planned_with_headroom():
    clip = ClipCost(10, 1, 1280, 720, 2_000_000, 24, spread(1.6), spread(0.16), spread(1.25), spread(1.0))
    growth = {"heights": [{"height": 720, "seconds": 10, "peak_bytes": 1000}]}
    one = arithmetic.replica(clip, 2, 0.8, growth)
    plan = one.plan(100.0, clip, 0.002)
    assert (plan.exact, plan.replicas, plan.cores, plan.memory) == (100.0, 100, 200, 100_000)
    assert (plan.ingress, plan.balancer_cores) == (200_000_000, 0.2)
    assert one.plan(100.1, clip, 0.002).replicas == 101
    assert one.plan(0.01, clip, 0.002).replicas == 1
    assert one.of(replace(clip, rate=spread(0.5))).plan(100.0, clip, 0.0).replicas == 250


def test_the_balancer_costs_what_it_took_where_there_was_one():
    rounds = [
        {"a": {"balancer_cpu_s_per_request": 0.0}, "b": {"balancer_cpu_s_per_request": b}} for b in (1, 3)
    ]
    assert arithmetic.balancer_seconds({"rounds": rounds}) == 2.0
    assert arithmetic.balancer_seconds({"skipped": "none"}) == 0.0


def test_a_card_pays_off_by_what_it_takes_over():
    split = arithmetic.Split(total=1.6, graphs=0.8)
    x = split.break_even(20)
    assert x == pytest.approx(25.0)
    assert x * split.total == pytest.approx(split.host_cores(x) + 20)


def kept(found):
    facts = json.loads((ROOT / "docs/benchmarks/limit.json").read_text())
    return {name: facts | {"results": r} for name, r in found.items()}


def measured():
    b = benchmark_results()
    whole = {n: b[n] for n in ("cost", "limit")} | {"replicas": reliability_results()["replicas"]}
    growth = {"heights": [{"height": 720, "seconds": 10, "peak_bytes": 2**29}]}
    rates = {9: 90.0, 72: 3600.0, 144: 5000.0}
    cuda = {
        "machine": {"device": "a card"},
        "curves": {"ONNX Runtime CUDA, fp32": [{"batch": b, "median": r} for b, r in rates.items()]},
        "clip": {"CUDA": {"median": 0.0123}},
        "service": {},
    }
    return kept(whole | {"growth": growth, "load": {"runs": [ramp()]}}) | {"cuda": cuda}


def test_the_document_shows_its_arithmetic():
    text = scaling.render(measured(), 0.5, (10.0,))
    for words in (
        "| 100 | 100 / (2.00 x 0.5) = 100.00 | 100 | 200 | 50 GiB |",
        "| 10 | 10 / 0.400 = 25.0 | 1,800 | 12.5 |",
        "X x 0.400 > R",
        "One a card encodes 3,600 samples/s in the service's batches of 72, that is 50 clips of 72 samples",
        "(5,000 samples/s in batches of 144)",
        "12.3 ms for both graphs of one clip",
        "3 of 20 clips failed where the balancer tries again",
        "| ramp | 2 | 11 |",
    ):
        assert words in text
    assert "Not measured yet" not in text


@pytest.mark.parametrize("name", list(scaling.SOURCES))
def test_what_was_not_measured_says_so(name):
    found = measured()
    del found[name]
    assert f"Not measured yet: `{scaling.SOURCES[name][1]}`." in scaling.render(found)


def test_the_published_document_is_what_its_results_say():
    docs = ROOT / "docs"
    assert (docs / "scaling.md").read_text(encoding="utf-8") == scaling.render(scaling.read(docs))
