"""What lies in the layers of an image: how large it is, and what should not be there."""

import fnmatch
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from imagecheck.replay import Image, Layer

UNWANTED = (
    *("*.a", "*.lib", "*.rlib", "*.o", "*.c", "*.cpp", "*.h", "*.hpp", "*.pxd", "*.pyx"),
    *("*/tests/*", "*/.cache/*", "*/pip/*", "*/bin/pip*", "*/bin/uv", "*/bin/uvx", "*/bin/*gcc*", "*/bin/cc"),
    *("*/bin/c++*", "*/bin/g++*", "*/bin/ld", "*/bin/as", "*/bin/make"),
    *("/tmp/*", "/root/*", "/src/*", "/dist/*", "/var/cache/apt/*", "/var/lib/apt/lists/*", "/var/log/*"),
)
"""Patterns of paths that no layer of an image holds: of compilers, of packages' tests, of installers."""
NVIDIA = "*/site-packages/nvidia/*"
"""Kept as it came (requirements/prune.sh)."""
SITE = re.compile(r".*/site-packages/([^/]+)/.*")


def files(layer: Layer) -> Iterator[tuple[str, Path]]:
    """Regular files and links of a layer: the path in the image, and where it lies here."""
    for folder, _, names in os.walk(layer.folder):
        for name in names:
            path = Path(folder, name)
            if stat.S_ISREG(mode := path.lstat().st_mode) or stat.S_ISLNK(mode):
                yield "/" + path.relative_to(layer.folder).as_posix(), path


def size(layer: Layer) -> int:
    """Bytes of all its files; of one that has several names once."""
    found = {(s.st_dev, s.st_ino): s.st_size for _, path in files(layer) if (s := path.lstat())}
    return sum(found.values())


def packages(layers: Iterable[Layer]) -> dict[str, int]:
    """Bytes of what is installed, by the folder of site-packages, the largest first."""
    found: dict[str, int] = {}
    for layer in layers:
        for name, path in files(layer):
            if inside := SITE.fullmatch(name):
                package = inside[1].removesuffix(".libs")
                found[package] = found.get(package, 0) + path.lstat().st_size
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def unwanted(image: Image) -> list[str]:
    """Files that should not be in an image: leftovers, and what lends the rights of another user."""
    found = []
    for layer in image.layers:
        for name, path in files(layer):
            leftover = any(fnmatch.fnmatch(name, pattern) for pattern in UNWANTED)
            lends = path.lstat().st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH)
            if (leftover and not fnmatch.fnmatch(name, NVIDIA)) or (lends and not path.is_symlink()):
                found.append(name)
    return sorted(found)


def unmet(site: Path, python: str) -> set[str]:
    """Names that packages in a site-packages ask for and do not find, or find in another version.

    python: the version that they are installed for, as 3.11.
    """
    installed = list(distributions(path=[str(site)]))
    versions = {canonicalize_name(found.name): found.version for found in installed}
    markers = {"extra": "", "python_version": python, "python_full_version": f"{python}.0"}
    asked = [Requirement(text) for found in installed for text in found.requires or []]
    here = [wanted for wanted in asked if wanted.marker is None or wanted.marker.evaluate(markers)]
    return {wanted.name for wanted in here if not _met(wanted, versions)}


def digests(image: Image) -> dict[str, str]:
    """Of each file its rights and content, as one digest; not its times, which engines set."""
    return {name: _digest(path) for layer in image.layers for name, path in files(layer)}


def _digest(path: Path) -> str:
    status = path.lstat()
    content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
    mark = f"{status.st_mode:o} {status.st_uid} {status.st_gid} ".encode()
    return hashlib.sha256(mark + content).hexdigest()


def _met(wanted: Requirement, versions: Mapping[NormalizedName, str]) -> bool:
    have = versions.get(canonicalize_name(wanted.name))
    return have is not None and wanted.specifier.contains(have, prereleases=True)
