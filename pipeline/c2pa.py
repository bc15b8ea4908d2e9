"""Whether a file carries a C2PA manifest, told from where the C2PA specification puts it in each container.

Only headers of boxes, chunks and segments are read, a bounded number of them, and nothing of a manifest is
parsed: whether it is valid is asked in `pipeline.credentials`, of files that carry one.
"""

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

C2pa = Literal["present", "absent", "not_checked"]
"""`not_checked`: a container that is not looked into, or one of more parts than are read."""

MOST_PARTS = 4096
ISO_MANIFEST = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
"""User type of the `uuid` box that holds manifests in ISO base media files."""
JUMBF_MANIFEST = bytes.fromhex("6332706100110010800000aa00389b71")
"""Type of the JUMBF superbox that is a manifest store."""

_OF_BOXES = frozenset(
    {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"dinf", b"edts", b"udta", b"meta", b"tref"}
)
_OF_BOXES |= {b"treg", b"mvex", b"moof", b"traf", b"mfra", b"schi"}
"""Kinds of boxes that hold boxes, `meta` behind four bytes of its own."""


class _TooManyParts(Exception):
    """The file has more parts than are read."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What was found of manifests in a file. manifest_bytes: size of all parts that hold them; whole: whether
    the file has no more parts than are read."""

    manifest_bytes: int
    whole: bool


def c2pa_of(path: Path, container: str) -> C2pa:
    """Whether the file at `path`, a `container` as answers name it, carries a manifest."""
    parts = parts_of(path, container)
    if parts is not None and parts.manifest_bytes:
        return "present"
    return "absent" if parts is not None and parts.whole else "not_checked"


def parts_of(path: Path, container: str) -> Parts | None:
    """What the parts of the file hold, None where such a container is not looked into."""
    find = _FINDERS.get(container)
    if find is None:
        return None
    found = 0
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        try:
            for size in find(file, end):
                found += min(size, end)
        except struct.error:  # the file ends within a header
            pass
        except _TooManyParts:
            return Parts(found, whole=False)
    return Parts(found, whole=True)


def _in_iso(file: BinaryIO, end: int) -> Iterator[int]:
    """Boxes of ISO/IEC 14496-12: size, type, a larger size where that is 1, and a user type of `uuid`.

    Manifests lie at the top alone, but boxes within boxes are parts as well.
    """
    at, ends = 0, [end]
    for _ in range(MOST_PARTS):
        while len(ends) > 1 and at >= ends[-1]:
            at = ends.pop()
        if at >= end:  # a part may claim more than any file has
            return
        file.seek(at)
        head = file.read(32)
        size, kind = struct.unpack_from(">I4s", head)
        start = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", head, 8)
            start = 16
        size = size or ends[-1] - at
        if kind == b"uuid" and head[start : start + 16] == ISO_MANIFEST and len(ends) == 1:
            yield max(size, start)
        if size < start:  # damage
            if len(ends) == 1:
                return
            at = ends.pop()
        elif kind in _OF_BOXES and at + size <= ends[-1]:
            ends.append(at + size)
            at += start + (4 if kind == b"meta" else 0)
        else:
            at += size
    raise _TooManyParts


def _in_jpeg(file: BinaryIO, end: int) -> Iterator[int]:
    """APP11 segments before the picture (ISO/IEC 19566-5): the type stands in the first one of a superbox,
    and what follows it in more of them is counted too."""
    at, found = 2, False
    for _ in range(MOST_PARTS):
        if at >= end:  # a part may claim more than any file has
            return
        file.seek(at)
        head = file.read(64)
        marker, size = struct.unpack_from(">HH", head)
        if marker == 0xFFFF:  # fill bytes may stand before any marker
            at += 1
            continue
        if marker >> 8 != 0xFF or marker in (0xFFDA, 0xFFD9):
            return
        if marker == 0xFFEB and head[4:6] == b"JP":
            found = found or JUMBF_MANIFEST in head
            if found:
                yield 2 + size
        at += 2 + size
    raise _TooManyParts


def _in_png(file: BinaryIO, end: int) -> Iterator[int]:
    """The chunk `caBX`, which stands before the picture."""
    at = 8
    for _ in range(MOST_PARTS):
        if at >= end:  # a part may claim more than any file has
            return
        file.seek(at)
        size, kind = struct.unpack(">I4s", file.read(8))
        if kind in (b"IDAT", b"IEND"):
            return
        if kind == b"caBX":
            yield 12 + size
        at += 12 + size
    raise _TooManyParts


def _in_riff(file: BinaryIO, end: int) -> Iterator[int]:
    """The chunk `C2PA` of a RIFF form; chunks are padded to whole pairs of bytes."""
    at = 12
    for _ in range(MOST_PARTS):
        if at >= end:  # a part may claim more than any file has
            return
        file.seek(at)
        head = file.read(8)
        kind, size = struct.unpack("<4sI", head)
        if kind == b"C2PA":
            yield 8 + size
        at += 8 + size + size % 2
    raise _TooManyParts


_FINDERS: dict[str, Callable[[BinaryIO, int], Iterator[int]]] = {
    "mp4": _in_iso,
    "jpeg": _in_jpeg,
    "png": _in_png,
    "apng": _in_png,
    "avi": _in_riff,
    "webp": _in_riff,
}
