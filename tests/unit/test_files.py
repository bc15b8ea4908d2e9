"""What is meant by files, folders and patterns on a command line."""

import os
import sys
from pathlib import Path

import pytest

from cli.files import media_files
from tests.media import TEXT, pattern, still


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A folder as people have them."""
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    still(tmp_path / "picture.png", pattern(1)[0])
    picture = (tmp_path / "picture.png").read_bytes()
    for name in ("b/c/deep.PNG", "b/second.jpg", "no-ending", ".hidden/x.png", "._picture.png"):
        (tmp_path / name).write_bytes(picture)
    for name in ("notes.txt", "broken.mp4", "module.ts"):
        (tmp_path / name).write_bytes(TEXT)
    (tmp_path / "empty.mkv").touch()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "linked.png").symlink_to("picture.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*names: str, **given: bool) -> list[str]:
    return [str(path) for path in media_files(map(Path, names), **given)]


TOP = ["broken.mp4", "empty.mkv", "linked.png", "no-ending", "picture.png"]


def test_a_folder_gives_what_is_media_by_name_or_by_content(tree):
    assert found(".") == [*TOP, "b/second.jpg", "b/c/deep.PNG"]
    assert found(".", recursive=False) == TOP
    assert found("b", recursive=False) == ["b/second.jpg"]


def test_a_file_that_is_named_is_taken_as_it_is(tree):
    assert found("notes.txt", "absent.mp4", "[/b].mp4") == ["notes.txt", "absent.mp4", "[/b].mp4"]


def test_patterns_are_those_of_a_shell(tree):
    assert found("*.png") == ["linked.png", "picture.png"]
    assert found("**/*.jpg") == ["b/second.jpg"]
    assert found("**/x.png") == ["**/x.png"]
    assert found(".hidden/*.png") == [".hidden/x.png"]
    assert found(str(tree / "b" / "*.jp?g")) == [str(tree / "b" / "*.jp?g")]
    assert found(str(tree / "b" / "*.jp*")) == [str(tree / "b" / "second.jpg")]
    assert found("b/c/../*.jpg") == ["b/c/../second.jpg"]
    assert found("b*") == ["b/second.jpg", "b/c/deep.PNG", "broken.mp4"]
    (tree / "[b]").mkdir()
    assert found("[b]") == []


def test_each_file_counts_once_where_it_was_named_first(tree):
    assert found("b/c/../second.jpg", "b", "b/second.jpg") == ["b/c/../second.jpg", "b/c/deep.PNG"]


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="everything can be read here")
def test_a_folder_that_can_not_be_read_is_no_empty_one(tree):
    (tree / "b").chmod(0)
    try:
        with pytest.raises(PermissionError):
            found(".")
    finally:
        (tree / "b").chmod(0o755)
