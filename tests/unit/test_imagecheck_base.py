"""The base image's stand-in is of the Debian and the Python that the tag names."""

import shutil
from pathlib import Path

import pytest

from imagecheck.base import BaseError, make_base, registries, release
from imagecheck.dockerfile import DockerfileError

DEBOOTSTRAP = """\
#!/bin/sh
for folder; do :; done
mkdir -p $folder/usr/bin $folder/usr/local/bin $folder/var/cache/apt/archives $folder/var/lib/apt/lists
echo "$@" > $folder/said
touch $folder/usr/bin/python3.11 $folder/var/cache/apt/archives/a.deb
"""


@pytest.fixture
def debootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name that makes next to nothing of a tree."""
    program = tmp_path / "bin" / "debootstrap"
    program.parent.mkdir()
    program.write_text(DEBOOTSTRAP)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return program


def test_tag_names_both() -> None:
    assert release("python:3.11-slim-bookworm") == ("3.11", "bookworm")
    assert release(f"python:3.13-slim-trixie@sha256:{'0' * 64}") == ("3.13", "trixie")


@pytest.mark.parametrize("reference", ["python:3.11", "python:3-slim-bookworm", "debian:bookworm-slim"])
def test_other_images_have_no_stand_in(reference: str) -> None:
    with pytest.raises(DockerfileError):
        release(reference)


def test_tree_has_pythons_names_and_no_packages(tmp_path: Path, debootstrap: Path) -> None:
    base = tmp_path / "base"
    make_base(base, "python:3.11-slim-bookworm")
    assert " bookworm " in (base / "said").read_text()
    assert [(base / "usr/local/bin" / name).readlink() for name in ("python", "python3")] == [
        Path("/usr/bin/python3.11")
    ] * 2
    assert list((base / "var/cache/apt").iterdir()) == []


@pytest.mark.parametrize(
    ("reference", "added", "why"),
    [
        ("python:3.12-slim-bookworm", "", "Debian's bookworm has no Python 3.12"),
        ("python:3.11-slim-bookworm", "echo E: no mirror >&2; exit 1", "debootstrap failed: E: no mirror"),
    ],
)
def test_what_failed_leaves_no_base(
    tmp_path: Path, debootstrap: Path, reference: str, added: str, why: str
) -> None:
    debootstrap.write_text(DEBOOTSTRAP + added)
    with pytest.raises(BaseError, match=why):
        make_base(tmp_path / "base", reference)
    assert not (tmp_path / "base").exists()


def test_without_debootstrap_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(BaseError, match="debootstrap is not installed"):
        make_base(tmp_path / "base", "python:3.11-slim-bookworm")


def test_ways_to_the_registries_are_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "here")
    monkeypatch.setenv("https_proxy", "there")
    monkeypatch.setenv("SECRET", "no")
    found = registries()
    assert (found["PIP_INDEX_URL"], found["https_proxy"]) == ("here", "there")
    assert "SECRET" not in found
