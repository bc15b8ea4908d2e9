"""The verdict claims no more than was seen."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.answer import Provenance
from pipeline.bundle import Bundle, Calibration, Manifest, Thresholds
from pipeline.credentials import Credentials
from pipeline.prepared import Coverage, MediaFacts, PreparedClip, PreparedTrack, Quality
from pipeline.scores import TrackScores, calibrated
from pipeline.spec import CropSpec, SamplingSpec
from pipeline.verdict import WORDS, cut, decide, widened

probability = st.floats(0, 1)
good = Quality(size_px=200, sharpness=300, brightness=0.5, yaw=0.1, detection=0.9)
media = MediaFacts("ab" * 32, 1000, "mp4", "h264", 640, 360, 4.0, 25.0, 100, 16)
plain = Calibration(
    id="c-1", thresholds=Thresholds(authentic_below=0.3, manipulated_above=0.7), data="made up"
)


def bundle(calibration=plain, grid=2, trained=True) -> Bundle:
    crop = CropSpec(kind="native", side=64, frames=4, colour="yuv", grid=grid, margin=0.8)
    manifest = Manifest(
        id="made-up-1",
        trained=trained,
        architecture={},
        precision="fp32",
        opset=17,
        feature_size=3,
        crop=crop,
        sampling=SamplingSpec(bursts=4, burst_frames=4),
        calibration=calibration,
        files={},
        parity={},
        summary={},
    )
    return Bundle(Path("nowhere"), manifest, "sha256:00")


def track(number=0, bursts=3, quality=good, grid=2) -> PreparedTrack:
    n = bursts * grid * grid
    starts = np.repeat(np.arange(bursts, dtype=np.float32), grid * grid)
    boxes = np.array([[t, 10, 20, 200, 220] for t in range(bursts)], np.float32)
    samples = np.zeros((n, 4, 64, 64, 3), np.uint8)
    return PreparedTrack(
        track=number,
        samples=samples,
        start_s=starts,
        end_s=starts + 0.12,
        boxes=boxes,
        quality=quality,
        bursts=bursts,
        frames_used=bursts * 4,
    )


def clip(*tracks, truncated=False, bursts=3, seen=None) -> PreparedClip:
    coverage = Coverage(0.5, 0.1, bursts, truncated, "the file breaks off" if truncated else None)
    return PreparedClip(media, coverage, list(tracks), len(tracks) if seen is None else seen)


def scores(fake, n=12) -> TrackScores:
    steps = np.full((n, 2), (1 - fake, fake), np.float32)
    return TrackScores(steps, np.array([1 - fake, fake], np.float32))


@given(probability, probability)
def test_calibration_keeps_order_and_range(a, b):
    c = Calibration(id="x", scale=2.5, bias=-1.2, thresholds=plain.thresholds, data="")
    low, high = sorted((a, b))
    assert 0 <= calibrated(low, c) <= calibrated(high, c) <= 1


def test_calibration_is_platt_scaling():
    c = Calibration(id="x", scale=2.0, bias=0.5, thresholds=plain.thresholds, data="")
    logit = np.log(0.8 / 0.2) * 2.0 + 0.5
    assert calibrated(0.8, c) == pytest.approx(1 / (1 + np.exp(-logit)))
    assert calibrated(0.8, plain) == pytest.approx(0.8)


@given(probability, st.integers(0, 6))
def test_doubts_only_ever_widen_uncertain(fake, doubts):
    before, after = cut(fake, plain.thresholds), cut(fake, widened(plain.thresholds, doubts))
    assert after in {before, "uncertain"}
    if doubts == 0:
        assert after == before


@given(probability, st.integers(0, 6))
def test_thresholds_that_meet_can_be_widened(at, doubts):
    met = Thresholds(authentic_below=at, manipulated_above=at)
    found = widened(met, doubts)
    assert found.authentic_below <= at <= found.manipulated_above
    assert doubts or found == met


@pytest.mark.parametrize(
    ("fake", "verdict"), [(0.05, "authentic"), (0.3, "uncertain"), (0.5, "uncertain"), (0.71, "manipulated")]
)
def test_thresholds_cut_the_score(fake, verdict):
    answer = decide(clip(track()), [scores(fake)], bundle())
    assert answer.verdict == verdict
    assert answer.probabilities.fake == pytest.approx(fake, abs=1e-6)
    assert answer.probabilities.real + answer.probabilities.fake == pytest.approx(1)


def test_the_most_suspicious_usable_face_decides():
    blurred = replace(good, sharpness=0.5)
    answer = decide(
        clip(track(0), track(1), track(2, quality=blurred)),
        [scores(0.1), scores(0.9), scores(0.99)],
        bundle(),
    )
    assert answer.verdict == "manipulated"
    assert answer.probabilities.fake == pytest.approx(0.9, abs=1e-6)
    assert [f.usable for f in answer.faces] == [True, True, False]
    assert "too_blurred" in answer.faces[2].quality.remarks
    assert answer.reasons[0].startswith("over_threshold: the score 0.90 of face 1")


def test_a_doubtful_face_makes_a_near_threshold_score_uncertain():
    sideways = replace(good, yaw=1.0)
    sure = decide(clip(track()), [scores(0.75)], bundle())
    unsure = decide(clip(track(quality=sideways)), [scores(0.75)], bundle())
    assert (sure.verdict, unsure.verdict) == ("manipulated", "uncertain")
    assert any(r.startswith("profile: ") for r in unsure.reasons)
    assert "moved apart" in unsure.reasons[0]
    (plain_face,), (doubted,) = sure.faces, unsure.faces
    assert plain_face.thresholds == sure.model.thresholds
    assert doubted.thresholds.manipulated_above > 0.75 >= unsure.model.thresholds.manipulated_above
    assert (len(plain_face.segments), doubted.segments) == (1, [])


def test_a_heavily_compressed_face_widens_uncertain_and_says_so():
    coarse = replace(good, quantiser=36.04)
    answer = decide(clip(track(quality=coarse)), [scores(0.75)], bundle())
    (face,) = answer.faces
    assert (answer.verdict, face.usable, face.quality.quantiser) == ("uncertain", True, 36.0)
    assert face.quality.remarks == ["heavily_compressed"]
    assert "heavily_compressed: the face is heavily compressed" in answer.reasons


def test_a_codec_that_tells_no_quantiser_changes_no_answer():
    fine = replace(good, quantiser=20.0)
    unknown, known = (decide(clip(track(quality=q)), [scores(0.75)], bundle()) for q in (good, fine))
    assert (unknown.faces[0].quality.quantiser, known.faces[0].quality.quantiser) == (None, 20.0)
    faces = [a.faces[0].model_dump() for a in (unknown, known)]
    for face in faces:
        del face["quality"]["quantiser"]
    assert faces[0] == faces[1]
    assert (unknown.verdict, unknown.reasons, unknown.id) == (known.verdict, known.reasons, known.id)


@pytest.mark.parametrize("fake", [0.0, 0.02, 0.5, 0.98, 1.0])
def test_in_a_codec_that_was_not_calibrated_no_score_decides(fake):
    made = replace(clip(track()), media=replace(media, codec="hevc"))
    answer = decide(made, [scores(fake)], bundle())
    (face,) = answer.faces
    assert answer.verdict == "uncertain"
    assert answer.probabilities == face.probabilities
    assert (face.thresholds.authentic_below, face.thresholds.manipulated_above) == (0.0, 1.0)
    assert answer.reasons == [f"codec_not_calibrated: {WORDS['codec_not_calibrated']}"]
    assert "is no calibrated probability" in answer.summary


def test_a_calibration_may_know_other_codecs_and_without_one_nothing_is_held_back():
    made = replace(clip(track()), media=replace(media, codec="hevc"))
    knows = plain.model_copy(update={"codecs": ("h264", "hevc")})
    assert decide(made, [scores(0.98)], bundle(knows)).verdict == "manipulated"
    own = decide(made, [scores(0.98)], bundle(plain.model_copy(update={"id": None})))
    assert own.verdict == "manipulated"
    assert [r.split(":")[0] for r in own.reasons] == ["over_threshold", "uncalibrated"]


def test_a_doubtful_face_in_such_a_codec_is_told_both():
    made = replace(clip(track(quality=replace(good, yaw=1.0))), media=replace(media, codec="vp9"))
    answer = decide(made, [scores(0.98)], bundle())
    assert [r.split(":")[0] for r in answer.reasons] == ["codec_not_calibrated", "profile"]
    faceless = decide(replace(clip(), media=replace(media, codec="vp9")), [], bundle())
    assert faceless.verdict == "not_applicable"


def test_a_clip_seen_in_part_is_doubted():
    assert decide(clip(track()), [scores(0.28)], bundle()).verdict == "authentic"
    answer = decide(clip(track(), truncated=True), [scores(0.28)], bundle())
    assert answer.verdict == "uncertain"
    assert answer.coverage.why == "the file breaks off"
    assert answer.faces[0].thresholds.authentic_below < 0.28


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (clip(), "no_face"),
        (clip(seen=2), "too_short"),
        (clip(track(bursts=1)), "too_short"),
        (clip(track(quality=replace(good, size_px=9))), "face_too_small"),
        (clip(track(quality=replace(good, sharpness=0.1))), "too_blurred"),
        (clip(track(quality=replace(good, brightness=0.0))), "too_dark"),
    ],
)
def test_without_a_usable_face_nothing_is_claimed(made, code):
    answer = decide(made, [scores(0.99, len(t.samples)) for t in made.tracks], bundle())
    assert (answer.verdict, answer.probabilities) == ("not_applicable", None)
    assert answer.reasons[0] == f"{code}: {WORDS[code]}"
    assert WORDS[code] in answer.summary


def test_one_burst_is_enough_where_the_clip_had_no_more():
    assert decide(clip(track(bursts=1), bursts=1), [scores(0.1, 4)], bundle()).verdict == "authentic"


def test_timeline_has_one_moment_a_burst_and_segments_join_neighbours():
    steps = np.repeat([0.1, 0.9, 0.8, 0.2, 0.95], 4)
    given_scores = TrackScores(
        np.stack([1 - steps, steps], axis=1).astype(np.float32), np.array([0.4, 0.6], np.float32)
    )
    face = decide(clip(track(bursts=5)), [given_scores], bundle()).faces[0]
    assert [round(m.fake, 2) for m in face.timeline] == [0.1, 0.9, 0.8, 0.2, 0.95]
    assert [(s.start_s, round(s.end_s, 2), round(s.fake, 2)) for s in face.segments] == [
        (1.0, 2.12, 0.9),
        (4.0, 4.12, 0.95),
    ]
    assert decide(clip(track(bursts=5)), [given_scores], bundle(), timeline=False).faces[0].timeline == []


def test_the_way_of_a_face_comes_with_its_timeline_and_its_evidence_always():
    steps = np.repeat([0.1, 0.9, 0.8, 0.2, 0.95], 4)
    given_scores = TrackScores(
        np.stack([1 - steps, steps], axis=1).astype(np.float32), np.array([0.4, 0.6], np.float32)
    )
    face = decide(clip(track(bursts=5)), [given_scores], bundle()).faces[0]
    assert [(b.time_s, b.box) for b in face.boxes] == [(t, (10, 20, 200, 220)) for t in range(5)]
    assert [(e.time_s, round(e.fake, 2)) for e in face.evidence] == [
        (4.0, 0.95),
        (1.0, 0.9),
        (2.0, 0.8),
        (3.0, 0.2),
        (0.0, 0.1),
    ]
    brief = decide(clip(track(bursts=5)), [given_scores], bundle(), timeline=False).faces[0]
    assert (brief.boxes, brief.evidence) == ([], face.evidence)


def test_the_answer_is_a_pure_function_of_clip_bundle_and_options():
    a, b = (decide(clip(track()), [scores(0.4)], bundle()).timed({"total": t, "nap": 1}) for t in (1.0, 2.0))
    assert (a.timing_ms.total, b.timing_ms.total) == (1.0, 2.0)
    assert a.model_dump(exclude={"timing_ms"}) == b.model_dump(exclude={"timing_ms"})
    assert a.id != decide(clip(track()), [scores(0.4)], bundle(), explain=True).id


def test_settings_that_look_at_other_pixels_give_another_identity():
    moved = replace(track(), boxes=track().boxes + 1)
    made = [clip(track()), clip(moved), clip(track(), truncated=True), clip(track(bursts=2))]
    ids = {decide(c, [scores(0.4, len(c.tracks[0].samples))], bundle()).id for c in made}
    assert len(ids) == len(made)


def test_doubts_about_the_model_itself_are_said():
    uncalibrated = Calibration(id=None, thresholds=plain.thresholds, data="")
    answer = decide(clip(track()), [scores(0.1)], bundle(uncalibrated, trained=False))
    codes = {r.split(":")[0] for r in answer.reasons}
    assert {"untrained_model", "uncalibrated"} <= codes
    assert (answer.model.trained, answer.model.calibration) == (False, None)


def test_the_way_of_the_decoder_to_the_frames_gives_no_other_identity():
    one = clip(track())
    other = replace(one, media=replace(one.media, frames_decoded=one.media.frames_decoded + 7))
    assert decide(one, [scores(0.4)], bundle()).id == decide(other, [scores(0.4)], bundle()).id


def test_a_manifest_is_told_of_and_touches_nothing_else():
    found = Credentials(valid=True, trusted=False, signer="S", sources=("a",), codes=("b.c",))
    one = clip(track())
    signed = replace(one, media=replace(one.media, c2pa="present"), credentials=found)
    unread = replace(signed, credentials=Credentials(unchecked="failed"))
    answer, other = (decide(c, [scores(0.4)], bundle()) for c in (signed, unread))
    assert answer.media.provenance == Provenance(
        c2pa="present", valid=True, trusted=False, signer="S", sources=["a"], codes=["b.c"]
    )
    assert other.media.provenance == Provenance(c2pa="present", unchecked="failed")
    assert answer.model_copy(update={"media": other.media}) == other


def test_of_a_file_without_a_manifest_nothing_is_told_of_one():
    made = replace(clip(track()), credentials=Credentials(valid=True))
    assert decide(made, [scores(0.4)], bundle()).media.provenance == Provenance(c2pa="not_checked")
