"""Prepared clips survive the way between processes, and nothing malformed does."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.prepared import Coverage, MediaFacts, Outline, Quality, TrackOutline

numbers = st.floats(-1e6, 1e6)
counts = st.integers(0, 10**9)
words = st.text(max_size=20)
facts = st.builds(
    MediaFacts,
    words,
    counts,
    words,
    words,
    counts,
    counts,
    numbers,
    numbers,
    counts,
    counts,
    st.sampled_from(["present", "absent", "not_checked"]),
)
coverages = st.builds(
    Coverage,
    numbers,
    numbers,
    counts,
    st.booleans(),
    st.none() | words,
    st.booleans(),
    counts,
    st.lists(st.tuples(numbers, numbers), max_size=3).map(tuple),
)
qualities = st.builds(Quality, numbers, numbers, numbers, numbers, numbers, st.none() | numbers)
floats32 = st.floats(-1e6, 1e6, width=32)


@st.composite
def tracks(draw) -> TrackOutline:
    t, k = draw(st.integers(0, 3)), draw(st.integers(0, 4))
    return TrackOutline(
        track=draw(counts),
        start_s=draw(hnp.arrays(np.float32, t, elements=floats32)),
        end_s=draw(hnp.arrays(np.float32, t, elements=floats32)),
        boxes=draw(hnp.arrays(np.float32, (k, 5), elements=floats32)),
        quality=draw(qualities),
        bursts=draw(counts),
        frames_used=draw(counts),
        cuts=tuple(draw(st.lists(st.tuples(counts, counts), max_size=3))),
    )


clips = st.builds(
    Outline,
    facts,
    coverages,
    st.lists(tracks(), max_size=3),
    counts,
    st.dictionaries(words, numbers, max_size=3),
)


@settings(max_examples=60, deadline=None)
@given(clips)
def test_round_trip(clip):
    back = Outline.from_bytes(clip.to_bytes())
    assert (back.media, back.coverage, back.faces_seen, back.timing_ms) == (
        clip.media,
        clip.coverage,
        clip.faces_seen,
        clip.timing_ms,
    )
    assert len(back.tracks) == len(clip.tracks)
    for a, b in zip(clip.tracks, back.tracks, strict=True):
        assert (a.track, a.quality, a.frames_used) == (b.track, b.quality, b.frames_used)
        assert a.cuts == b.cuts
        for name in ("start_s", "end_s", "boxes"):
            before, after = getattr(a, name), getattr(b, name)
            assert before.dtype == after.dtype
            assert before.shape == after.shape
            assert (before == after).all()
    assert back.to_bytes() == clip.to_bytes()


def example() -> Outline:
    track = TrackOutline(
        track=0,
        start_s=np.zeros(2, np.float32),
        end_s=np.ones(2, np.float32),
        boxes=np.zeros((1, 5), np.float32),
        quality=Quality(64, 100, 0.5, 0.1, 0.9),
        bursts=2,
        frames_used=8,
        cuts=((0, 0), (3, 1)),
    )
    media = MediaFacts("0" * 64, 1, "mp4", "h264", 64, 64, 1.0, 25.0, 25, 8)
    return Outline(media, Coverage(1.0, 1.0, 2, False), [track], 1)


def test_samples_are_put_where_they_were_cut():
    cuts = {
        (look, k): np.full((1, 1, 2, 2, 3), 10 * look + k, np.uint8) for look in range(4) for k in range(2)
    }
    clip = example().filled(cuts)
    assert clip.tracks[0].samples[:, 0, 0, 0, 0].tolist() == [0, 31]
    assert (clip.media, clip.faces_seen, clip.tracks[0].bursts) == (example().media, 1, 2)


@given(st.data())
def test_what_is_cut_short_is_refused(data):
    whole = example().to_bytes()
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(ValueError, match=r"outline|[Hh]eader|buffer"):
        Outline.from_bytes(cut)


@pytest.mark.parametrize("missing", ["media", "coverage", "tracks", "faces_seen", "timing_ms"])
def test_a_header_without_a_part_is_refused(missing):
    whole = example().to_bytes()
    (size,) = struct.unpack_from("<I", whole)
    header = json.loads(whole[4 : 4 + size])
    del header[missing]
    head = json.dumps(header).encode()
    with pytest.raises(ValueError, match=missing):
        Outline.from_bytes(struct.pack("<I", len(head)) + head + whole[4 + size :])


def test_a_header_of_another_version_is_refused():
    whole = example().to_bytes()
    (size,) = struct.unpack_from("<I", whole)
    header = json.loads(whole[4 : 4 + size])
    header["media"]["bit_rate"] = 1
    head = json.dumps(header).encode()
    with pytest.raises(ValueError, match="bit_rate"):
        Outline.from_bytes(struct.pack("<I", len(head)) + head + whole[4 + size :])


def changed(**parts) -> bytes:
    """The example with other values in its header."""
    whole = example().to_bytes()
    (size,) = struct.unpack_from("<I", whole)
    header = json.loads(whole[4 : 4 + size])
    for name, value in parts.items():
        first, _, second = name.partition("__")
        header[first] = header[first] | {second: value} if second else value
    head = json.dumps(header).encode()
    return struct.pack("<I", len(head)) + head + whole[4 + size :]


@pytest.mark.parametrize(
    "parts",
    [
        {"timing_ms__decode": "x"},
        {"media__width": "wide"},
        {"media__duration_s": float("nan")},
        {"coverage__truncated": 1},
        {"coverage__fraction": float("inf")},
        {"faces_seen": None},
        {"tracks": [[]]},
    ],
    ids=str,
)
def test_values_of_another_kind_are_refused(parts):
    Outline.from_bytes(changed())
    with pytest.raises(ValueError, match=next(iter(parts)).split("__")[0]):
        Outline.from_bytes(changed(**parts))


def test_a_header_without_end_in_its_depth_is_refused():
    head = b"[" * 100_000
    with pytest.raises(ValueError, match="recursion"):
        Outline.from_bytes(struct.pack("<I", len(head)) + head)


def test_numbers_that_are_none_are_refused():
    whole = bytearray(example().to_bytes())
    whole[-4:] = np.float32("nan").tobytes()
    with pytest.raises(ValueError, match="not finite"):
        Outline.from_bytes(bytes(whole))
