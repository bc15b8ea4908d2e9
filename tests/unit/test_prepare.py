"""From a file to samples: what is cut, of whom, and how much of the clip it is."""

from contextlib import contextmanager

import numpy as np
import pytest

from pipeline.c2pa import ISO_MANIFEST
from pipeline.crop import cut, window_places
from pipeline.decode import open_clip
from pipeline.detect import Faces
from pipeline.detect.registry import open_detector
from pipeline.errors import NoVideoStream
from pipeline.media import Limits
from pipeline.prepare import Preparation, prepare
from pipeline.sample import SEARCHED, plan_bursts
from pipeline.spec import CropSpec, SamplingSpec
from tests.media import audio_only, broken_off, face_clip, pattern, still, write_clip

NATIVE = CropSpec(kind="native", side=32, frames=4, colour="yuv", grid=2, margin=0.8)
ALIGNED = CropSpec(kind="aligned", side=112, frames=1)
SAMPLING = SamplingSpec(bursts=6, burst_frames=4, detect_every=4)


class Told:
    """A detector that finds what the test tells it, on any picture."""

    name = "told"
    longer_side = 512

    def __init__(self, *boxes):
        self.boxes, self.calls = boxes, []

    def detect(self, images):
        self.calls.append(len(images))
        boxes = np.array(self.boxes, np.float32).reshape(-1, 4)
        at = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]], np.float32)
        landmarks = boxes[:, None, :2] + at * boxes[:, None, 2:]
        return [Faces(boxes, np.full(len(boxes), 0.9, np.float32), landmarks) for _ in images]


def run(path, crop=NATIVE, sampling=SAMPLING, detector=None, **kwargs):
    return prepare(
        path,
        crop=crop,
        sampling=sampling,
        detector=detector or open_detector("yunet"),
        limits=Limits(),
        **kwargs,
    )


@pytest.fixture(scope="module")
def two_faces(tmp_path_factory):
    return face_clip(tmp_path_factory.mktemp("media") / "two.mp4", faces=2)


def test_both_faces_are_followed_through_the_clip(two_faces):
    clip = run(two_faces)
    assert [t.track for t in clip.tracks] == [0, 1]
    assert [t.bursts for t in clip.tracks] == [6, 6]
    assert [t.samples.shape for t in clip.tracks] == [(24, 4, 32, 32, 3)] * 2
    assert all(len(t.start_s) == len(t.end_s) == 24 for t in clip.tracks)
    assert (np.diff(clip.tracks[0].start_s) >= 0).all()
    assert clip.media.frames_used == 24
    assert clip.coverage.bursts == 6


def test_a_face_carries_the_quantiser_of_its_own_blocks(tmp_path):
    picture = pattern(1, 256, 128)[0]
    picture[:, 128:] = 90
    rng = np.random.default_rng(0)
    frames = [picture + rng.integers(0, 9, picture.shape, np.uint8) for _ in range(8)]
    clip = write_clip(tmp_path / "a.mp4", frames, options={"crf": "30", "x264-params": "aq-strength=3"})
    left, right = run(clip, detector=Told((8, 8, 100, 100), (140, 8, 100, 100))).tracks
    with open_clip(clip) as opened:
        burst = next(opened.bursts([range(8)]))
    for track in (left, right):
        box = track.boxes[0, 1:]
        told = [burst[k].quantisers().under(box) for k in (0, 4)]
        assert track.quality.quantiser == pytest.approx(float(np.median(told)))
    assert left.quality.quantiser != right.quality.quantiser


def test_a_codec_that_tells_no_quantiser_is_prepared_alike(tmp_path):
    frames = pattern(8, 256, 128)
    silent = write_clip(tmp_path / "a.mp4", frames, codec="libx265", options={"x265-params": "log-level=0"})
    (track,) = run(silent, detector=Told((8, 8, 100, 100))).tracks
    assert track.quality.quantiser is None
    assert track.quality.size_px == 100


def test_samples_are_the_very_pixels_that_the_decoder_gave(two_faces):
    """No skew: what training cuts through the same functions is what is served, byte for byte."""
    track = run(two_faces).tracks[0]
    with open_clip(two_faces, Limits()) as opened:
        burst = next(opened.bursts(plan_bursts(opened.times_s, SAMPLING)))
    box = track.boxes[0, 1:]
    places = window_places(box, burst[0].width, burst[0].height, NATIVE)
    for k, (x, y) in enumerate(places):
        for f in range(4):
            np.testing.assert_array_equal(track.samples[k, f, :, :, 0], burst[f].y[y : y + 32, x : x + 32])
    direct = cut(burst, np.tile(box, (4, 1)), np.zeros((4, 5, 2), np.float32), NATIVE)
    np.testing.assert_array_equal(track.samples[:4], direct)


def test_aligned_crops_are_one_a_frame(two_faces):
    track = run(two_faces, ALIGNED).tracks[0]
    assert track.samples.shape == (24, 1, 112, 112, 3)
    assert (track.start_s == track.end_s).all()
    assert track.frames_used == 24


def test_only_key_frames_of_bursts_meet_the_detector(tmp_path):
    detector = Told([10, 10, 40, 40])
    run(write_clip(tmp_path / "c.mp4", pattern(50)), detector=detector)
    assert detector.calls == [1] * 6
    detector = Told([10, 10, 40, 40])
    run(tmp_path / "c.mp4", sampling=SAMPLING.model_copy(update={"detect_every": 2}), detector=detector)
    assert detector.calls == [3] * 6


def test_the_weightiest_faces_are_kept(tmp_path):
    boxes = [[0, 0, 20, 20], [30, 0, 50, 50], [60, 40, 24, 24]]
    path = write_clip(tmp_path / "c.mp4", pattern(50))
    assert run(path, detector=Told(*boxes)).faces_seen == 3
    kept = run(path, detector=Told(*boxes), max_faces=1)
    assert [round(float(t.boxes[0, 3])) for t in kept.tracks] == [50]
    assert kept.faces_seen == 3


def test_a_scene_cut_ends_a_track(tmp_path):
    rng = np.random.default_rng(0)
    mosaics = [rng.integers(low, low + 120, (8, 12, 3)) for low in (0, 130)]
    scenes = [np.kron(m, np.ones((8, 8, 1))).astype(np.uint8) for m in mosaics]
    path = write_clip(tmp_path / "c.mp4", [scenes[0]] * 25 + [scenes[1]] * 25)
    clip = run(path, detector=Told([10, 10, 40, 40]))
    assert [t.bursts for t in clip.tracks] == [3, 3]
    assert clip.tracks[0].end_s.max() < 1.0 <= clip.tracks[1].start_s.min()
    assert len(run(path, detector=Told([10, 10, 40, 40]), max_faces=1).tracks) == 1


def test_of_a_crowd_no_more_is_cut_than_may_be_kept(tmp_path, monkeypatch):
    cuts = []
    monkeypatch.setattr("pipeline.look.cut", lambda *a: cuts.append(1) or cut(*a))
    path = write_clip(tmp_path / "c.mp4", pattern(50))
    run(path, detector=Told(*([9 * k, 0, 9, 20 + k] for k in range(10))), max_faces=2)
    assert len(cuts) == 2 * SAMPLING.bursts


def test_boxes_are_in_pixels_of_the_picture(tmp_path):
    path = write_clip(tmp_path / "c.mp4", pattern(4, width=1024, height=640))
    track = run(path, detector=Told([100, 80, 60, 70])).tracks[0]
    assert track.boxes[0, 1:].tolist() == [200, 160, 120, 140]


def test_a_clip_without_faces_has_no_tracks(tmp_path):
    clip = run(write_clip(tmp_path / "c.mp4", pattern(30)))
    assert (clip.tracks, clip.faces_seen) == ([], 0)


def test_a_still_shows_no_motion_and_so_gives_native_windows_none(tmp_path):
    path = still(tmp_path / "p.png", pattern(1)[0])
    clip = run(path, detector=Told([10, 10, 40, 40]))
    assert (clip.tracks, clip.faces_seen, clip.coverage.fraction) == ([], 1, 1.0)
    assert len(run(path, ALIGNED, detector=Told([10, 10, 40, 40])).tracks[0].samples) == 1


def test_damage_is_told(tmp_path):
    clip = run(broken_off(tmp_path / "c.mp4"), detector=Told([10, 10, 40, 40]))
    assert clip.coverage.truncated
    assert clip.coverage.why
    assert clip.tracks


def test_a_detection_that_is_no_face_costs_itself_alone(two_faces):
    yunet = open_detector("yunet")

    class Spoilt(Told):
        def detect(self, images):
            found = yunet.detect(images)
            for faces in found:
                faces.landmarks[faces.boxes[:, 0].argmin()] = 50.0
            return found

    clip = run(two_faces, ALIGNED, detector=Spoilt())
    assert (len(clip.tracks), clip.faces_seen) == (1, 2)


def test_of_a_clip_over_the_limit_the_whole_is_told(tmp_path):
    path = write_clip(tmp_path / "c.mp4", pattern(100))
    clip = prepare(
        path, crop=NATIVE, sampling=SAMPLING, detector=Told(), limits=Limits(max_duration_s=1.0), max_faces=1
    )
    assert clip.media.duration_s == pytest.approx(4.0)
    assert clip.coverage.fraction == pytest.approx(24 / 100, abs=0.01)
    assert clip.coverage.truncated


def test_one_frame_far_away_is_over_the_limit_too(tmp_path):
    path = write_clip(tmp_path / "c.mkv", pattern(11), times_ms=[*range(0, 400, 40), 2_000_000])
    clip = run(path, detector=Told())
    assert clip.coverage.truncated
    assert clip.coverage.seconds_looked_at < 1
    assert clip.media.duration_s >= 2000


def test_all_of_a_clip_of_one_frame_is_seen(tmp_path):
    clip = run(write_clip(tmp_path / "c.mp4", pattern(1)), detector=Told())
    assert clip.coverage.fraction == 1.0


def test_media_errors_pass_through(tmp_path):
    with pytest.raises(NoVideoStream):
        run(audio_only(tmp_path / "a.mp4"))


def test_the_same_file_gives_the_same_bytes(two_faces):
    a, b = run(two_faces), run(two_faces)
    assert a.media == b.media
    for s, t in zip(a.tracks, b.tracks, strict=True):
        np.testing.assert_array_equal(s.samples, t.samples)
        np.testing.assert_array_equal(s.boxes, t.boxes)


class Late(Told):
    """A detector that finds a face from the tenth picture on."""

    def detect(self, images):
        found = super().detect(images)
        return found if len(self.calls) > 10 else [faces_none() for _ in found]


def faces_none():
    return Faces(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 5, 2), np.float32))


def test_head_takes_the_first_frames_with_a_face(tmp_path):
    plain = write_clip(tmp_path / "plain.mp4", pattern(40))
    head = SamplingSpec(bursts=8, burst_frames=1, spread="head")
    clip = run(plain, ALIGNED, head, Late([10, 10, 40, 40]))
    assert clip.tracks[0].start_s.tolist() == pytest.approx([k / 25 for k in range(10, 18)])
    assert clip.media.frames_used == 18


def test_head_gives_up_where_no_face_comes(tmp_path):
    plain = write_clip(tmp_path / "plain.mp4", pattern(40))
    clip = run(plain, ALIGNED, SamplingSpec(bursts=3, burst_frames=1, spread="head"), Told())
    assert clip.tracks == []
    assert clip.media.frames_used == 3 * SEARCHED


@contextmanager
def preparation(path, sampling=SAMPLING, **changes):
    with open_clip(path, Limits()) as clip:
        given = {"detector": Told([10, 10, 40, 40]), "max_faces": 8} | changes
        yield Preparation(path, clip, NATIVE, sampling, **given)


def test_what_was_seen_so_far_is_told_between_two_looks(tmp_path):
    path = write_clip(tmp_path / "c.mp4", pattern(50))
    with preparation(path) as made:
        told = [(look.number, made.outline()) for look in made.looks()]
        whole = made.outline()
    assert [number for number, _ in told] == list(range(6))
    assert [o.coverage.bursts for _, o in told] == [1, 2, 3, 4, 5, 6]
    assert [o.tracks[0].cuts for _, o in told] == [tuple((k, 0) for k in range(n + 1)) for n in range(6)]
    assert all(o.coverage.expired and "of 6 bursts" in o.coverage.why for _, o in told)
    assert (whole.coverage.expired, whole.coverage.why) == (False, None)


def test_a_spent_budget_ends_the_looks_and_is_told(tmp_path):
    path = write_clip(tmp_path / "c.mp4", pattern(50))
    with preparation(path, budget_s=0.0) as made:
        assert [look.number for look in made.looks()] == [0]
        coverage = made.outline().coverage
    assert coverage.truncated
    assert coverage.expired
    assert coverage.why == "the deadline came when 1 of 6 bursts had been looked at"


def test_an_order_of_looks_that_fits_a_scarce_budget_changes_no_answer(tmp_path, monkeypatch):
    """Spread over the clip first; joined in order of time."""
    rng = np.random.default_rng(0)
    mosaics = [rng.integers(low, low + 120, (8, 12, 3)) for low in (0, 130)]
    scenes = [np.kron(m, np.ones((8, 8, 1))).astype(np.uint8) for m in mosaics]
    path = write_clip(tmp_path / "c.mp4", [scenes[0]] * 25 + [scenes[1]] * 25)
    with preparation(path) as forwards:
        assert [look.number for look in forwards.looks()] == [0, 1, 2, 3, 4, 5]
    monkeypatch.setattr("pipeline.prepare.AMPLE", 1e9)
    with preparation(path, budget_s=100.0) as spread:
        assert [look.number for look in spread.looks()] == [0, 5, 2, 3, 1, 4]
    ours, theirs = spread.outline(), forwards.outline()
    assert len(ours.tracks) == 2
    for a, b in zip(ours.tracks, theirs.tracks, strict=True):
        assert (a.track, a.cuts, a.bursts, a.quality) == (b.track, b.cuts, b.bursts, b.quality)
        np.testing.assert_array_equal(a.boxes, b.boxes)
        np.testing.assert_array_equal(a.start_s, b.start_s)
    assert ours.coverage == theirs.coverage


def test_no_look_is_kept_with_its_samples(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.prepare.AMPLE", 1e9)
    with preparation(write_clip(tmp_path / "c.mp4", pattern(50)), budget_s=100.0) as made:
        taken = list(made.looks())
        assert all(look.samples for look in taken)
        assert not any(look.samples for look in made._looks)


def test_the_digest_is_taken_over_where_it_is_known(tmp_path):
    with preparation(write_clip(tmp_path / "c.mp4", pattern(50)), sha256="ab" * 32) as made:
        assert made.outline().media.sha256 == "ab" * 32


def test_what_is_seen_in_spread_order_is_one_face_from_the_second_look_on(tmp_path, monkeypatch):
    """Looks taken so far lie farther apart than those of the whole plan."""
    monkeypatch.setattr("pipeline.prepare.AMPLE", 1e9)
    path = write_clip(tmp_path / "c.mp4", pattern(1) * 250)
    with preparation(path, budget_s=100.0) as made:
        tracks = [made.outline().tracks for _ in made.looks()]
    assert [[t.bursts for t in found] for found in tracks] == [[n] for n in range(1, 7)]


def test_the_bursts_that_are_wanted_are_told(tmp_path):
    path = write_clip(tmp_path / "c.mp4", pattern(20))
    with preparation(path) as made:
        assert made.planned == made.outline().coverage.planned == 5
    with preparation(path, SamplingSpec(bursts=3, burst_frames=1, spread="head")) as made:
        assert made.planned == 3


def test_of_bursts_that_head_searches_no_more_are_told_than_there_are(tmp_path):
    """Without a face it goes on past the bursts that it wants."""
    path = write_clip(tmp_path / "c.mp4", pattern(40))
    head = SamplingSpec(bursts=3, burst_frames=1, spread="head")
    with preparation(path, head, detector=Told()) as made:
        told = [made.outline().coverage.why for _ in made.looks()]
    assert len(told) == 3 * SEARCHED
    assert told[-1] == f"the deadline came when {3 * SEARCHED} of {3 * SEARCHED} bursts had been looked at"
    assert told[0] == f"the deadline came when 1 of {3 * SEARCHED} bursts had been looked at"


def test_when_bursts_are_shown_is_told_in_order_of_time(two_faces, monkeypatch):
    whole = run(two_faces, detector=Told((0, 0, 50, 50))).coverage
    assert whole.spans[0] == (0.0, pytest.approx(4 / 25, abs=1e-3))
    assert whole.spans[-1][1] == pytest.approx(2.0, abs=1e-3)
    assert sum(end - start for start, end in whole.spans) == pytest.approx(whole.seconds_looked_at, abs=0.01)
    monkeypatch.setattr("pipeline.prepare.AMPLE", 1e9)
    with open_clip(two_faces, Limits()) as clip:
        detector = Told((0, 0, 50, 50))
        spread = Preparation(two_faces, clip, NATIVE, SAMPLING, detector, max_faces=1, budget_s=600.0)
        assert [look.number for look in spread.looks()] != sorted(range(6))
        assert spread.outline().coverage.spans == whole.spans


def test_a_manifest_of_provenance_is_told(tmp_path):
    path = write_clip(tmp_path / "a.mp4", pattern(20))
    assert run(path).media.c2pa == "absent"
    box = b"uuid" + ISO_MANIFEST + bytes(24)
    path.write_bytes(path.read_bytes() + (len(box) + 4).to_bytes(4, "big") + box)
    assert run(path).media.c2pa == "present"
