"""A clip is encoded while it is looked at, and answered by its deadline from what was seen until then."""

import asyncio
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.answer import Provenance
from pipeline.bundle import open_bundle
from pipeline.credentials import Credentials
from pipeline.prepared import Coverage, MediaFacts, Outline, Quality, TrackOutline
from service import encoding, judge
from service.batcher import Expired
from service.job import Looked
from service.judge import Judge, Question, Times
from service.metrics import Metrics
from service.models import load
from service.problems import DeadlineExceeded
from service.settings import Settings
from service.upload import Upload
from tests.bundles import expected_scores, tiny_bundle

MEDIA = MediaFacts("0" * 64, 1, "mp4", "h264", 64, 64, 4.0, 25.0, 100, 8)
QUALITY = Quality(64.0, 100.0, 0.5, 0.1, 0.9)
SAMPLES = np.random.default_rng(0).integers(0, 256, (8, 1, 2, 1, 32, 32, 3), dtype=np.uint8)
"""Of each of eight looks those of its one face."""
PLANNED = 4


def outline(looks, *, whole=False, face=True):
    """What was seen after so many looks."""
    count = 2 * looks
    track = TrackOutline(
        track=0,
        start_s=np.arange(count, dtype=np.float32),
        end_s=np.arange(count, dtype=np.float32),
        boxes=np.array([[0, 1, 1, 50, 50]], np.float32),
        quality=QUALITY,
        bursts=looks,
        frames_used=count,
        cuts=tuple((k, 0) for k in range(looks)),
    )
    why = None if whole else f"the deadline came when {looks} of {PLANNED} bursts had been looked at"
    coverage = Coverage(0.08 * looks, 0.02 * looks, looks, not whole, why, not whole)
    return Outline(MEDIA, coverage, [track] if face else [], 1 if face else 0, {"decode": 1.0})


class Pool:
    """Stands for the decoders and says what a script wants: looks by number, outlines, `taken`, `hang`."""

    def __init__(self, *script):
        self.script = script
        self.told = []
        self.job = self.look_until = None

    async def prepare(self, job, listener, *, deadline, look_until=None, taken=None):
        self.job, self.look_until, self.deadline = job, look_until, deadline
        for step in self.script:
            if step == "hang":
                await asyncio.sleep(max(0.0, deadline - asyncio.get_running_loop().time()))
                raise Expired("the deadline passed while the clip was decoded")
            if step == "taken":
                taken()
                continue
            if callable(step):
                await step()
                continue
            if step is self.script[-1]:
                break
            await listener(Looked(step, SAMPLES[step]) if isinstance(step, int) else step)
            self.told.append(step)
        return self.script[-1], 0.0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return open_bundle(tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", bursts=PLANNED))


class Gate:
    """Between the batcher and the graph."""

    def __init__(self, served):
        self.open = threading.Event()
        self.open.set()
        self.batches = []
        self._run = served.encoder._run
        served.encoder._run = self.run

    def run(self, items):
        assert self.open.wait(30)
        self.batches.append(len(items))
        return self._run(items)


def judged(
    bundle,
    tmp_path,
    *script,
    patience=20.0,
    partial=False,
    counted=True,
    explain=False,
    metrics=None,
    before=None,
    **given,
):
    """The answer to a scripted clip, and the pool that played it."""

    async def main():
        served = load(bundle, Settings(provider="cpu", threads=1), Metrics())
        gate = Gate(served)
        served.encoder.start()
        served.temporal.start()
        pool = Pool(*[(lambda s=s: s(served, gate)) if callable(s) else s for s in script])
        service = SimpleNamespace(pool=pool, metrics=metrics or Metrics(), settings=Settings())
        now = asyncio.get_running_loop().time()
        question = Question(served, 4, explain, True, now, now + patience, partial=partial, counted=counted)
        upload = Upload(tmp_path / "clip", 1, b"\0" * 32)
        try:
            async with asyncio.timeout(30):
                return await Judge(service, upload, question, **given).answer(), pool
        finally:
            gate.open.set()
            assert served.encoder.queued == 0
            await served.encoder.stop()
            await served.temporal.stop()

    return asyncio.run(main())


async def until(condition):
    while not condition():  # noqa: ASYNC110 - what is waited for happens in another thread
        await asyncio.sleep(0.001)


def expected(looks):
    return expected_scores(SAMPLES[:looks].reshape(-1, 1, 32, 32, 3))[1][1]


def test_samples_are_encoded_before_the_clip_has_ended(bundle, tmp_path):
    async def encoded(served, gate):
        await until(lambda: sum(gate.batches) >= 2)

    answer, pool = judged(bundle, tmp_path, 0, encoded, 1, 2, 3, outline(4, whole=True))
    assert answer.probabilities.fake == pytest.approx(expected(4), abs=1e-5)
    assert (pool.look_until, pool.job.outlines) == (None, False)
    assert pool.job.sha256 == "00" * 32


def test_looks_may_come_in_any_order(bundle, tmp_path):
    answer, _ = judged(bundle, tmp_path, 0, 3, 1, 2, outline(4, whole=True))
    assert answer.probabilities.fake == pytest.approx(expected(4), abs=1e-5)


def test_a_deadline_is_answered_from_what_was_seen_until_then(bundle, tmp_path):
    answer, pool = judged(bundle, tmp_path, 0, 1, 2, outline(3), "hang", patience=0.6, partial=True)
    assert answer.probabilities.fake == pytest.approx(expected(3), abs=1e-5)
    assert (answer.coverage.truncated, "3 of 4" in answer.coverage.why) == (True, True)
    assert any(reason.startswith("partly_seen") for reason in answer.reasons)
    assert pool.job.outlines
    assert pool.look_until < pool.deadline


@pytest.mark.parametrize(
    ("steps", "told"),
    [((1, outline(2), "hang"), {"unchecked": "deadline"}), ((1, "end"), {"valid": True, "signer": "S"})],
)
def test_a_manifest_is_told_of_as_far_as_there_was_time(bundle, tmp_path, steps, told):
    carries = replace(MEDIA, c2pa="present")
    found = Credentials(valid=True, signer="S")
    end = replace(outline(2, whole=True), media=carries, credentials=found)
    script = [
        end if s == "end" else replace(s, media=carries) if isinstance(s, Outline) else s for s in steps
    ]
    answer, _ = judged(bundle, tmp_path, 0, *script, patience=0.6, partial=True)
    assert answer.media.provenance == Provenance(c2pa="present", **told)


@pytest.mark.parametrize(
    ("media", "found", "result"),
    [
        ("present", Credentials(valid=True), "valid"),
        ("present", Credentials(valid=False), "invalid"),
        ("present", Credentials(unchecked="timeout"), "timeout"),
        ("absent", Credentials(unchecked="not_asked"), None),
    ],
)
def test_manifests_are_counted_by_what_they_are(bundle, tmp_path, media, found, result):
    end = replace(outline(1, whole=True), media=replace(MEDIA, c2pa=media), credentials=found)
    metrics = Metrics()
    answer, _ = judged(bundle, tmp_path, 0, end)
    metrics.judged(answer)
    (family,) = metrics.manifests.collect()
    assert {s.labels["result"]: s.value for s in family.samples if s.value} == ({result: 1} if result else {})
    assert {"valid", "invalid", "failed", "timeout"} <= {s.labels["result"] for s in family.samples}


def test_a_manifest_of_a_clip_that_was_not_encoded_in_time_is_told_of(bundle, tmp_path):
    async def two_then_none(served, gate):
        await until(lambda: sum(gate.batches) >= 4)
        gate.open.clear()

    carries = {"media": replace(MEDIA, c2pa="present")}
    end = replace(outline(3, whole=True), **carries, credentials=Credentials(valid=False))
    script = (0, 1, replace(outline(2), **carries), two_then_none, 2, end)
    answer, _ = judged(bundle, tmp_path, *script, patience=0.6, partial=True)
    assert "2 of 4" in answer.coverage.why
    assert answer.media.provenance == Provenance(c2pa="present", valid=False)


def test_what_was_seen_but_not_encoded_in_time_is_left_out(bundle, tmp_path):
    async def two_then_none(served, gate):
        await until(lambda: sum(gate.batches) >= 4)
        gate.open.clear()

    script = (0, outline(1), 1, outline(2), two_then_none, 2, outline(3), 3, outline(4, whole=True))
    answer, _ = judged(bundle, tmp_path, *script, patience=0.6, partial=True)
    assert answer.probabilities.fake == pytest.approx(expected(2), abs=1e-5)
    assert "2 of 4" in answer.coverage.why


@pytest.mark.parametrize(
    ("script", "partial"),
    [
        ((0, outline(1), "hang"), True),
        ((0, 1, outline(2, face=False), "hang"), True),
        (("hang",), True),
        ((0, 1, 2, outline(3), "hang"), False),
    ],
    ids=["too little", "no face", "nothing", "not asked for"],
)
def test_a_deadline_before_enough_was_seen_is_a_deadline(bundle, tmp_path, script, partial):
    with pytest.raises(DeadlineExceeded):
        judged(bundle, tmp_path, *script, patience=0.3, partial=partial)


async def encoder_stands(served, gate):
    gate.open.clear()


async def temporal_stands(served, gate):
    await until(lambda: sum(gate.batches) >= 4)
    run = served.temporal._run
    served.temporal._run = lambda items: gate.open.wait(30) and run(items)
    gate.open.clear()


async def leave(served, gate):
    """As when the client has gone."""
    asyncio.current_task().cancel()
    await asyncio.sleep(0)


def given_up(metrics):
    (family,) = metrics.cancellations.collect()
    return {(s.labels["stage"], s.labels["cause"]): s.value for s in family.samples if s.value}


@pytest.mark.parametrize(
    ("stage", "script", "partial"),
    [
        ("queue", ("hang",), False),
        ("decode", ("taken", 0, "hang"), False),
        ("decode", ("taken", 0, outline(1), "hang"), True),
        ("decode", ("taken", 0, 1, outline(2, face=False), "hang"), True),
        ("encode", ("taken", encoder_stands, 0, 1, outline(2, whole=True)), False),
        ("temporal", ("taken", 0, 1, temporal_stands, outline(2, whole=True)), False),
    ],
    ids=["no decoder", "decoder", "too little", "no face", "encoder", "temporal"],
)
def test_what_is_late_is_counted_by_where_it_was(bundle, tmp_path, stage, script, partial):
    metrics = Metrics()
    with pytest.raises(DeadlineExceeded):
        judged(bundle, tmp_path, *script, patience=0.3, partial=partial, metrics=metrics)
    assert given_up(metrics) == {(stage, "deadline"): 1}


@pytest.mark.parametrize(
    ("stage", "script"),
    [("queue", (leave, outline(1))), ("decode", ("taken", 0, leave, outline(1)))],
    ids=["no decoder", "decoder"],
)
def test_who_leaves_is_counted_by_where_the_clip_was(bundle, tmp_path, stage, script):
    metrics = Metrics()
    with pytest.raises(asyncio.CancelledError):
        judged(bundle, tmp_path, *script, metrics=metrics)
    assert given_up(metrics) == {(stage, "client"): 1}


def test_what_no_client_asked_is_not_counted(bundle, tmp_path):
    metrics = Metrics()
    with pytest.raises(DeadlineExceeded):
        judged(bundle, tmp_path, "taken", "hang", patience=0.1, counted=False, metrics=metrics)
    assert given_up(metrics) == {}


def test_a_whole_clip_before_the_deadline_is_answered_whole(bundle, tmp_path):
    answer, _ = judged(bundle, tmp_path, 0, 1, 2, 3, outline(4, whole=True), partial=True)
    assert (answer.coverage.truncated, answer.coverage.why) == (False, None)


def test_a_decoder_waits_while_too_much_of_its_clip_waits_for_the_encoder(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "MOST_WAITING", 4)
    seen, told = [], []

    async def close(served, gate):
        gate.open.clear()

    async def watch(served, gate):
        async def later():
            await asyncio.sleep(0.2)
            seen.extend(told)
            gate.open.set()

        watch.task = asyncio.create_task(later())

    async def note(served, gate):
        told.append(len(told))

    noted = [step for k in range(4) for step in (k, note)]
    answer, _ = judged(bundle, tmp_path, close, watch, *noted, outline(4, whole=True))
    # Of three looks with two samples each the third is one too many.
    assert (seen, told) == ([0, 1], [0, 1, 2, 3])
    assert answer.probabilities.fake == pytest.approx(expected(4), abs=1e-5)


def test_who_watches_is_told_what_was_seen_and_what_it_would_mean(bundle, tmp_path):
    watched, answers = [], []

    async def until_answered(served, gate):
        await until(lambda: answers)

    script = (0, 1, outline(2), until_answered, 2, 3, outline(4, whole=True))
    answer, _ = judged(bundle, tmp_path, *script, watch=watched.append, judged=answers.append)
    assert [o.coverage.bursts for o in watched] == [2]
    assert answers[0].probabilities.fake == pytest.approx(expected(2), abs=1e-5)
    assert answer.probabilities.fake == pytest.approx(expected(4), abs=1e-5)


@pytest.fixture(scope="module")
def lenient(tmp_path_factory):
    """A bundle that takes no face for authentic."""
    path = tiny_bundle(tmp_path_factory.mktemp("lenient") / "tiny", bursts=PLANNED, thresholds=(0.0, 1.0))
    return open_bundle(path)


def explanations(answer):
    return [f.explanation for f in answer.faces]


def test_an_explanation_costs_time_that_is_told(lenient, tmp_path):
    looks = (0, 1, 2, 3, outline(4, whole=True))
    (explanation,) = explanations(judged(lenient, tmp_path, *looks, explain=True)[0])
    assert [len(f.box) for f in explanation.frames] == [4] * 3
    answer, _ = judged(lenient, tmp_path, *looks)
    assert (explanations(answer), answer.timing_ms.explain) == ([None], 0.0)
    answer, _ = judged(lenient, tmp_path, *looks, explain=True)
    assert answer.timing_ms.total >= answer.timing_ms.explain > 0
    assert explanations(answer) == [explanation]


@pytest.mark.parametrize("partial", [True, False], ids=["client's", "server's"])
def test_a_deadline_takes_the_explanation_and_not_the_answer(lenient, tmp_path, monkeypatch, partial):
    late = []

    async def explained(*_args, span, deadline):
        late.append(deadline < asyncio.get_running_loop().time())
        raise Expired("the deadline passed with 1 of 1 items not begun")

    monkeypatch.setattr(judge, "explained", explained)
    monkeypatch.setattr(judge, "EXPLAIN_MARGIN_S", 100.0)
    looks = (0, 1, 2, 3, outline(4, whole=True))
    answer, _ = judged(lenient, tmp_path, *looks, explain=True, partial=partial)
    assert answer.probabilities.fake == pytest.approx(expected(4), abs=1e-5)
    (explanation,) = explanations(answer)
    assert (explanation.withheld.split(":")[0], explanation.frames) == ("out_of_time", [])
    assert late == [True]  # time is kept for the answer


def times(bundle, *, patience=10.0, encoder=(0, 0.0), temporal=(0, 0.0), partial=True):
    """Seconds before the deadline, by queued items and items a second of both batchers."""
    batchers = [SimpleNamespace(queued=q, rate=r) for q, r in (encoder, temporal)]
    served = SimpleNamespace(bundle=bundle, encoder=batchers[0], temporal=batchers[1])
    question = Question(served, 4, False, True, 100.0, 100.0 + patience, partial=partial)
    made = Times.of(question, 100.0)
    return [
        None if t is None else question.deadline - t for t in (made.look_until, made.kill_at, made.score_at)
    ]


def test_the_time_that_is_kept_grows_with_what_is_queued(bundle):
    assert times(bundle) == pytest.approx([1.0, 0.625, 0.25])
    # Two samples a look behind 198 at 100 a second, and one sequence behind none at two a second.
    busy = times(bundle, encoder=(198, 100.0), temporal=(0, 2.0))
    assert busy == pytest.approx([1.0 + 2.0 + 0.75, 2.375, 0.25 + 0.75])
    flooded = times(bundle, encoder=(10**6, 1.0), temporal=(10**6, 1.0))
    assert flooded == pytest.approx([5.0, 3.75, 2.5])
    assert times(bundle, partial=False) == [None, 0.0, 0.0]
