"""`.dockerignore` keeps out of a build what it names."""

from pathlib import Path

import pytest

from imagecheck.context import Context


def context(folder: Path, *lines: str) -> Context:
    (folder / ".dockerignore").write_text("".join(f"{line}\n" for line in lines))
    return Context(folder)


@pytest.mark.parametrize(
    ("line", "path", "kept_out"),
    [
        ("*", "a", True),
        ("*", "a/b/c", True),
        ("a", "a/b", True),
        ("/a/", "a/b", True),
        ("a", "b/a", False),
        ("**/a", "b/c/a", True),
        ("**/a", "a", True),
        ("**/*.pt", "x/y.pt", True),
        ("**/*.pt", "x/y.pth", False),
        ("*.pt", "x/y.pt", False),
        ("a?", "ab", True),
        ("a?", "a/b", False),
        ("a.b", "axb", False),
        ("a/**", "a/b/c", True),
        ("# a", "a", False),
    ],
)
def test_patterns(tmp_path: Path, line: str, path: str, kept_out: bool) -> None:
    assert context(tmp_path, line).holds(path) is not kept_out


def test_the_last_line_that_matches_decides(tmp_path: Path) -> None:
    found = context(tmp_path, "*", "!service", "**/*.pyc", "")
    paths = ("README.md", "service/app.py", "service/deep/app.pyc")
    assert [found.holds(path) for path in paths] == [False, True, False]


def test_without_a_file_all_of_it_counts(tmp_path: Path) -> None:
    assert Context(tmp_path).holds("a/b")


def test_files_are_those_below_that_are_not_kept_out(tmp_path: Path) -> None:
    for name in ("a/one", "a/deep/two", "a/deep/two.pyc", "b"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = context(tmp_path, "**/*.pyc")
    assert list(found.files("a")) == ["a/deep/two", "a/one"]
    assert list(found.files("b")) == ["b"]
    assert list(found.files("c")) == []
