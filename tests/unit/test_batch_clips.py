"""Which clips a run is about, and how shards share them out."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.clips import Clip, Shard, find_clips
from batch.errors import BatchError


@pytest.fixture
def archive(tmp_path):
    for name in ("b.mp4", "a.mov", "deep/er/c.webm", ".hidden.mp4", ".cache/d.mp4", "deep/notes.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def names(clips, root):
    return [os.path.relpath(clip.file, root) for clip in clips]


def test_a_folder_is_all_of_its_files_but_hidden_ones(archive):
    assert names(find_clips([str(archive)]), archive) == [
        "a.mov",
        "b.mp4",
        "deep/er/c.webm",
        "deep/notes.json",
    ]


@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        (["b.mp4"], ["b.mp4"]),
        (["*.mp4"], ["b.mp4"]),
        (["**/*.webm", "*.mov"], ["a.mov", "deep/er/c.webm"]),
        (["dee*"], ["deep/er/c.webm", "deep/notes.json"]),
        (["b.mp4", ".", "./deep/../b.mp4"], ["a.mov", "b.mp4", "deep/er/c.webm", "deep/notes.json"]),
    ],
)
def test_files_globs_and_folders_are_told_apart_and_each_clip_is_found_once(
    archive, monkeypatch, inputs, found
):
    monkeypatch.chdir(archive)
    assert names(find_clips(inputs), archive) == found


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.txt", "../b.mp4\n\n{root}/a.mov\n../absent.mp4\n"),
        ("list.csv", "label,file\nreal,../b.mp4\nfake,{root}/a.mov\nfake,../absent.mp4\nreal,\n"),
    ],
)
def test_a_list_names_clips_relative_to_itself(archive, name, text):
    (archive / "deep" / name).write_text(text.format(root=archive))
    clips = find_clips([str(archive / "deep" / name)])
    assert names(clips, archive) == ["a.mov", "absent.mp4", "b.mp4"]
    assert [clip.size for clip in clips] == [5, None, 5]


def test_a_name_that_is_no_text_is_a_name_nevertheless(tmp_path):
    odd = os.fsencode(tmp_path) + b"/\xff.mp4"
    Path(os.fsdecode(odd)).write_bytes(b"x")
    (clip,) = find_clips([str(tmp_path)])
    assert os.fsencode(clip.file) == odd
    assert Shard(0, 1).holds(clip)
    (tmp_path / "list.txt").write_bytes(b"\xff.mp4\n")
    assert find_clips([str(tmp_path / "list.txt")]) == [clip]


@pytest.mark.parametrize("given", ["absent.mp4", "*.avi"])
def test_an_input_that_is_nothing_is_an_error(archive, given):
    with pytest.raises(BatchError, match="nothing that it matches"):
        find_clips([str(archive / given)])


def test_a_table_without_the_column_is_an_error(archive):
    (archive / "t.csv").write_text("path\nb.mp4\n")
    with pytest.raises(BatchError, match="no column 'file'"):
        find_clips([str(archive / "t.csv")])


def test_a_list_in_another_encoding_is_an_error(archive):
    (archive / "list.txt").write_text("b.mp4\n", encoding="utf-16")
    with pytest.raises(BatchError, match="no text in UTF-8"):
        find_clips([str(archive / "list.txt")])


def test_a_folder_that_can_not_be_read_does_not_pass_for_empty(archive, monkeypatch):
    def denied(*_, onerror, **__):
        onerror(PermissionError(13, "Permission denied", "deep"))
        yield from ()

    monkeypatch.setattr(os, "walk", denied)
    with pytest.raises(BatchError, match="deep: Permission denied"):
        find_clips([str(archive)])


@given(st.sets(st.text(min_size=1)), st.integers(1, 12))
def test_shards_part_an_archive_exactly(files, count):
    shards = [Shard.parse(f"{index}/{count}") for index in range(count)]
    for file in files:
        assert sum(shard.holds(Clip(file, 1, 1)) for shard in shards) == 1


@given(st.text(min_size=1), st.integers(1, 100), st.integers(0), st.integers(0))
def test_a_path_alone_says_which_shard(file, count, size, time):
    shard = Shard(0, count)
    assert shard.holds(Clip(file, size, time)) == shard.holds(Clip(file, None, None))


def test_shards_are_about_even():
    clips = [Clip(f"/archive/{k}.mp4", 1, 1) for k in range(4000)]
    assert all(800 < sum(Shard(k, 4).holds(clip) for clip in clips) < 1200 for k in range(4))


@pytest.mark.parametrize("text", ["4/4", "-1/4", "0", "0/0", "a/b", "1/2/3", ""])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(BatchError, match="I/N"):
        Shard.parse(text)
