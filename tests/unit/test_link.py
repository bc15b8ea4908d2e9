"""Looks become faces that are followed through the clip."""

import numpy as np

from pipeline.detect import Faces
from pipeline.link import Linker, linked
from pipeline.look import FaceCut, KeyFrame, Look
from pipeline.prepared import Quality

QUALITY = Quality(40.0, 100.0, 0.5, 0.1, 0.9)


def faces(*boxes):
    found = np.array(boxes, np.float32).reshape(-1, 4)
    return Faces(found, np.full(len(found), 0.9, np.float32), np.zeros((len(found), 5, 2), np.float32))


def look(number, *boxes, grey=90, firsts=None):
    """One burst at second `number` / 2 with one key frame, or two of the same when `firsts` says so."""
    time = number / 2
    thumbnail = np.random.default_rng(grey).integers(grey - 50, grey + 50, (18, 32, 3)).astype(np.uint8)
    keys = [KeyFrame(time, faces(*boxes), thumbnail)]
    if firsts is not None:
        keys.append(KeyFrame(time + 0.04, faces(*boxes), thumbnail))
    span = np.array([[time, time + 0.08]], np.float32)
    cuts = [
        FaceCut(first, span, [[time, *boxes[first[1]]]], [QUALITY], 3)
        for first in firsts or [(0, i) for i in range(len(boxes))]
    ]
    return Look(number, 0.12, 3, keys, cuts, [])


LEFT, RIGHT = (10, 10, 40, 40), (200, 10, 40, 40)


def test_a_face_keeps_its_number_and_a_new_one_gets_its_own():
    linker = linked([look(0, LEFT), look(1, RIGHT, LEFT), look(2, LEFT, RIGHT)], 1.0)
    tracks = linker.tracks(8)
    assert [t.track for t in tracks] == [0, 1]
    assert [t.cuts for t in tracks] == [((0, 0), (1, 1), (2, 0)), ((1, 0), (2, 1))]
    assert [t.bursts for t in tracks] == [3, 2]
    assert tracks[0].start_s.tolist() == [0.0, 0.5, 1.0]
    assert (linker.faces_seen, linker.most_looks) == (2, 3)


def test_the_order_in_which_looks_were_taken_changes_nothing():
    looks = [look(k, LEFT, RIGHT) for k in range(4)]
    (a, b), (c, d) = (linked(given, 1.0).tracks(8) for given in (looks, [looks[k] for k in (0, 3, 1, 2)]))
    assert (a.cuts, b.cuts) == (c.cuts, d.cuts)
    np.testing.assert_array_equal(a.boxes, c.boxes)


def test_a_cut_between_two_looks_ends_all_tracks():
    linker = linked([look(0, LEFT), look(1, LEFT), look(2, LEFT, grey=200)], 1.0)
    assert [t.cuts for t in linker.tracks(8)] == [((0, 0), (1, 0)), ((2, 0),)]


def test_what_one_burst_takes_for_two_faces_is_taken_once():
    linker = Linker(1.0)
    linker.add(look(0, LEFT, firsts=[(0, 0), (1, 0)]))
    (track,) = linker.tracks(8)
    assert (track.cuts, track.bursts, track.frames_used) == (((0, 0),), 1, 3)


def test_the_weightiest_tracks_are_kept():
    linker = linked([look(0, LEFT, RIGHT), look(1, LEFT)], 1.0)
    assert [t.track for t in linker.tracks(1)] == [0]
    assert linker.faces_seen == 2
