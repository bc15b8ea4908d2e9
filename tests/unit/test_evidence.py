"""What an answer shows of a face: its way through the clip, and the looks that carried its score."""

import numpy as np
import pytest

from pipeline.bundle import open_bundle
from pipeline.evidence import MOST_LOOKS, evidence, gaps, looks_at, most_suspicious, way
from pipeline.prepared import Quality, TrackOutline
from pipeline.scores import TrackScores
from tests.bundles import tiny_bundle


def track(times, boxes, each=1, lasts=0.0):
    starts = np.repeat(np.array(times, np.float32), each)
    return TrackOutline(
        track=0,
        start_s=starts,
        end_s=starts + np.float32(lasts),
        boxes=np.array(boxes, np.float32),
        quality=Quality(100, 100, 0.5, 0, 0.9),
        bursts=len(times),
        frames_used=len(times),
    )


def scores(fake):
    fake = np.array(fake, np.float32)
    return TrackScores(np.stack([1 - fake, fake], axis=1), np.array([0.5, 0.5], np.float32))


@pytest.fixture(scope="module")
def manifests(tmp_path_factory):
    at = tmp_path_factory.mktemp("bundles")
    native = tiny_bundle(at / "native", kind="native", grid=2, frames=2)
    return {"aligned": open_bundle(tiny_bundle(at / "tiny")).manifest, "native": open_bundle(native).manifest}


def test_a_look_of_windows_is_their_mean_and_lasts_as_long_as_they(manifests):
    boxes = [[0, 10, 20, 100, 100], [2, 30, 20, 100, 140]]
    (look,) = looks_at(track([0.5], boxes, 4, lasts=1.0), scores([0.1, 0.2, 0.3, 0.4]), manifests["native"])
    assert (look.first, look.stop, look.time_s) == (0, 4, 0.5)
    assert look.fake == pytest.approx(0.25, abs=1e-5)
    np.testing.assert_allclose(look.box, [20, 20, 100, 120])


def test_the_box_of_a_look_is_the_one_that_its_windows_were_cut_by(manifests):
    boxes = [[0.5, 10, 20, 100, 100], [2, 30, 20, 100, 140]]
    (look,) = looks_at(track([0.5], boxes, 4, lasts=1.0), scores([0.1, 0.2, 0.3, 0.4]), manifests["native"])
    np.testing.assert_allclose(look.box, [10, 20, 100, 100])


def test_each_aligned_frame_is_a_look(manifests):
    boxes = [[0, 0, 0, 10, 10], [1, 10, 0, 10, 10]]
    looks = looks_at(track([0.0, 0.25, 1.5], boxes), scores([0.2, 0.4, 0.6]), manifests["aligned"])
    assert [(k.first, k.stop) for k in looks] == [(0, 1), (1, 2), (2, 3)]
    assert [k.box[0] for k in looks] == [0, 2.5, 10]


def test_windows_that_lack_their_fellows_are_no_look(manifests):
    looks = looks_at(track([0.0, 1.0], [[0, 0, 0, 9, 9]], 4), scores([0.5] * 7), manifests["native"])
    assert [(k.first, k.stop) for k in looks] == [(0, 4)]


def test_of_looks_that_show_the_same_the_most_suspicious_is_named(manifests):
    times = [0.0, 0.1, 0.2, 1.0, 1.1, 2.0]
    looks = looks_at(
        track(times, [[0, 0, 0, 9, 9]]), scores([0.5, 0.7, 0.6, 0.8, 0.9, 0.1]), manifests["aligned"]
    )
    assert [round(k.time_s, 1) for k in most_suspicious(looks, 4)] == [1.1, 0.1, 2.0]
    assert [round(k.time_s, 1) for k in most_suspicious(looks, 1)] == [1.1]


def test_few_looks_are_evidence(manifests):
    looks = looks_at(track(range(9), [[0, 0, 0, 9, 9]]), scores([0.5] * 9), manifests["aligned"])
    assert [e.time_s for e in evidence(looks)] == list(range(MOST_LOOKS))


def test_the_way_of_a_face_is_in_order_of_time():
    given = track([0.0], [[1, 5, 6, 7, 8], [0, 1.04, 2, 3, 4]])
    assert [(f.time_s, f.box) for f in way(given)] == [(0, (1, 2, 3, 4)), (1, (5, 6, 7, 8))]


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([], []),
        ([(0.0, 4.0)], []),
        ([(0.0, 1.0), (3.0, 4.0)], [(1.0, 3.0)]),
        ([(2.0, 3.0), (0.5, 1.0)], [(0.0, 0.5), (1.0, 2.0), (3.0, 4.0)]),
        ([(0.0, 2.5), (1.0, 2.0), (2.53, 3.99)], []),
        ([(1.0, 9.0)], [(0.0, 1.0)]),
    ],
    ids=["unknown", "whole", "between", "around, in any order", "shorter than a frame", "beyond the end"],
)
def test_stretches_that_were_not_looked_at(spans, expected):
    found = gaps(spans, 4.0, shortest_s=0.04)
    assert [(s.start_s, s.end_s) for s in found] == expected
