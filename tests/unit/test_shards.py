"""Shards on disk: what was written is read, and what is not whole is refused."""

import json
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import DetectError
from pipeline.spec import CropSpec, SamplingSpec
from training.shards import (
    ShardClip,
    ShardsError,
    crop_digest,
    layout,
    open_shards,
    write_index,
    write_shard,
)

CROP = CropSpec(kind="aligned", side=16)
SAMPLING = SamplingSpec(bursts=9, burst_frames=1, spread="head")
LENGTHS = (3, 5, 4)


def crops(k: int) -> np.ndarray:
    return np.random.default_rng(k).integers(0, 256, (LENGTHS[k], 16, 16, 3), np.uint8)


@pytest.fixture
def prepared(tmp_path):
    clips, shards = [], []
    for number, run in enumerate(layout(LENGTHS, 8)):
        offset = 0
        for k in run:
            clips.append(
                ShardClip(f"{k}.mp4", bool(k % 2), "train", "p", "o", "m", LENGTHS[k], number, offset)
            )
            offset += LENGTHS[k]
        arrays = [partial(crops, k) for k in run]
        shards.append(write_shard(tmp_path / f"shard-{number:05d}.npy", arrays, (offset, 16, 16, 3)))
    write_index(tmp_path, crop=CROP, sampling=SAMPLING, shards=shards, clips=clips, facts={"kind": "table"})
    return tmp_path


def test_frames_come_back_as_they_were(prepared):
    shards = open_shards(prepared)
    assert (shards.root, shards.crop, shards.sampling) == (prepared, CROP, SAMPLING)
    assert shards.digest == crop_digest(CROP)
    assert [c.file for c in shards.clips] == ["0.mp4", "1.mp4", "2.mp4"]
    assert [c.shard for c in shards.clips] == [0, 0, 1]
    for k, clip in enumerate(shards.clips):
        np.testing.assert_array_equal(shards.frames(clip), crops(k))


def test_frames_are_mapped_and_can_not_be_written(prepared):
    shards = open_shards(prepared)
    frames = shards.frames(shards.clips[1])
    assert isinstance(frames, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        frames[0] = 0


def test_a_shard_is_a_plain_array(prepared):
    assert np.load(prepared / "shard-00000.npy").shape == (8, 16, 16, 3)
    assert {p.suffix for p in prepared.iterdir()} == {".npy", ".json"}


def test_the_digest_tells_crops_apart():
    assert crop_digest(CROP) == crop_digest(CropSpec(kind="aligned", side=16, margin=1.3))
    assert crop_digest(CROP) != crop_digest(CropSpec(kind="aligned", side=16, margin=1.2))
    assert crop_digest(CROP).startswith("sha256:")


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 60))
def test_shards_hold_whole_clips_in_order_and_no_more_than_they_may(lengths, limit):
    runs = layout(lengths, limit)
    assert [k for run in runs for k in run] == list(range(len(lengths)))
    assert all(len(run) > 0 for run in runs)
    sizes = [sum(lengths[k] for k in run) for run in runs]
    assert all(size <= limit or len(run) == 1 for size, run in zip(sizes, runs, strict=True))
    assert all(a + lengths[run.start] > limit for a, run in zip(sizes, runs[1:], strict=False))


def edited(root, **changes):
    path = root / "index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps(index | changes))
    return index


def test_an_unfinished_preparation_is_refused(prepared):
    (prepared / "index.json").unlink()
    with pytest.raises(ShardsError, match="no finished preparation"):
        open_shards(prepared)
    assert issubclass(ShardsError, DetectError)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": 2}, "is of schema 2"),
        ({"digest": "sha256:0"}, "the digest is not that of its crop"),
        ({"crop": {"kind": "round", "side": 16}}, "is not an index of shards"),
        ({"clips": [{"file": "x"}]}, "is not an index of shards"),
        ({"shards": []}, r"0\.mp4 lies outside of its shard"),
    ],
)
def test_an_index_that_does_not_hold_is_refused(prepared, changes, words):
    edited(prepared, **changes)
    with pytest.raises(ShardsError, match=words):
        open_shards(prepared)


def test_a_clip_outside_of_its_shard_is_refused(prepared):
    clips = edited(prepared)["clips"]
    clips[1]["frames"] += 1
    edited(prepared, clips=clips)
    with pytest.raises(ShardsError, match=r"1\.mp4 lies outside"):
        open_shards(prepared)


def test_a_shard_that_is_missing_cut_short_or_of_another_shape_is_refused(prepared):
    shard = prepared / "shard-00001.npy"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(ShardsError, match=r"shard-00001\.npy can not be read"):
        open_shards(prepared)
    np.save(shard, np.zeros((4, 16, 16, 3), np.float32))
    with pytest.raises(ShardsError, match="holds float32"):
        open_shards(prepared)
    shard.unlink()
    with pytest.raises(ShardsError, match=r"shard-00001\.npy can not be read"):
        open_shards(prepared)
