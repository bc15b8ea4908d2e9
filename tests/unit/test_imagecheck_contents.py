"""Sizes of layers, and files that have no place in an image."""

from pathlib import Path

import pytest

from imagecheck.contents import digests, packages, size, unmet, unwanted
from imagecheck.dockerfile import Config, Instruction
from imagecheck.replay import Image, Layer

SITE = "opt/venv/lib/python3.11/site-packages"


def layer(folder: Path, files: dict[str, int]) -> Layer:
    """With files of so many bytes."""
    for name, count in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * count)
    return Layer("last", Instruction("COPY", {}, "a /b"), folder)


def image(*layers: Layer) -> Image:
    return Image(Path("/base"), layers, Config())


def test_a_file_with_two_names_counts_once(tmp_path: Path) -> None:
    made = layer(tmp_path, {"a": 10, "b/c": 5})
    (tmp_path / "d").hardlink_to(tmp_path / "a")
    assert size(made) == 15


def test_packages_are_added_up_with_their_libraries_over_all_layers(tmp_path: Path) -> None:
    one = layer(tmp_path / "1", {f"{SITE}/av/a.py": 1, f"{SITE}/av.libs/b.so": 20, f"{SITE}/cv2/c.so": 5})
    two = layer(tmp_path / "2", {f"{SITE}/service/app.py": 7, "etc/passwd": 100})
    assert list(packages([one, two]).items()) == [("av", 21), ("service", 7), ("cv2", 5)]


@pytest.mark.parametrize(
    "name",
    [
        f"{SITE}/numpy/_core/lib/libnpymath.a",
        f"{SITE}/c2pa/libs/libc2pa_c.rlib",
        f"{SITE}/numpy/_core/include/numpy/arrayobject.h",
        f"{SITE}/scipy/stats/tests/test_stats.py",
        f"{SITE}/pip/__init__.py",
        "opt/venv/bin/uv",
        "usr/bin/x86_64-linux-gnu-gcc-12",
        "root/.cache/pip/x",
        "tmp/left",
        "var/cache/apt/pkgcache.bin",
        "var/lib/apt/lists/main",
    ],
)
def test_leftovers_are_found(tmp_path: Path, name: str) -> None:
    assert unwanted(image(layer(tmp_path, {name: 1}))) == [f"/{name}"]


def test_what_serves_is_no_leftover(tmp_path: Path) -> None:
    names = (f"{SITE}/skimage/__init__.pyi", f"{SITE}/nvidia/cu13/include/cuda.h", "opt/venv/bin/python")
    assert unwanted(image(layer(tmp_path, dict.fromkeys(names, 1)))) == []


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o666])
def test_files_that_lend_rights_or_are_open_to_all_are_found(tmp_path: Path, mode: int) -> None:
    made = layer(tmp_path, {"usr/bin/tool": 1})
    (tmp_path / "usr/bin/tool").chmod(mode)
    assert unwanted(image(made)) == ["/usr/bin/tool"]


def test_digests_tell_contents_rights_and_targets_apart_and_no_times(tmp_path: Path) -> None:
    for name in ("1", "2"):
        layer(tmp_path / name, {"a": 1, "b": 1, "c": 1})
        (tmp_path / name / "link").symlink_to("a")
    (tmp_path / "2" / "a").write_text("y")
    (tmp_path / "2" / "b").chmod(0o755)
    (tmp_path / "2" / "link").unlink()
    (tmp_path / "2" / "link").symlink_to("b")
    one, other = (digests(image(layer(tmp_path / name, {}))) for name in ("1", "2"))
    assert [name for name in sorted(one) if one[name] != other[name]] == ["/a", "/b", "/link"]


def test_of_two_layers_the_upper_file_is_seen(tmp_path: Path) -> None:
    below, above = layer(tmp_path / "1", {"a": 1}), layer(tmp_path / "2", {"a": 2})
    assert digests(image(below, above)) == digests(image(above))


def test_packages_that_ask_for_what_is_not_there_are_found(tmp_path: Path) -> None:
    asked = {
        "one": ["Two_More>=2", "three ; python_version < '3.11'", "four ; extra == 'all'", "five"],
        "two-more": ["one>=9", "one"],
    }
    for name, wanted in asked.items():
        lines = [f"Name: {name}", "Version: 2.0", *(f"Requires-Dist: {line}" for line in wanted)]
        (tmp_path / f"{name}-2.0.dist-info").mkdir()
        (tmp_path / f"{name}-2.0.dist-info" / "METADATA").write_text("\n".join(lines) + "\n")
    assert unmet(tmp_path, "3.11") == {"five", "one"}
    assert unmet(tmp_path, "3.10") == {"five", "one", "three"}
