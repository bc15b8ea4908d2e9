"""A C2PA manifest is found where the specification puts it, and files that lie about sizes end the search."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import c2pa
from pipeline.c2pa import ISO_MANIFEST, JUMBF_MANIFEST, Parts, c2pa_of, parts_of
from tests.media import face_clip, still

CONTAINERS = ["mp4", "jpeg", "png", "apng", "avi", "webp"]


def box(kind, content=b"", size=None):
    return struct.pack(">I4s", 8 + len(content) if size is None else size, kind) + content


def segment(marker, content):
    return struct.pack(">HH", marker, 2 + len(content)) + content


def chunk(kind, content=b""):
    return struct.pack("<4sI", kind, len(content)) + content + bytes(len(content) % 2)


def superbox(kind):
    inner = box(b"jumd", kind + b"\3c2pa\0")
    return b"JP" + struct.pack(">HI", 1, 1) + box(b"jumb", inner)


MANIFEST = box(b"uuid", ISO_MANIFEST + bytes(4) + b"manifest\0" + bytes(20))
PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", 13, b"IHDR") + bytes(17)
JPEG = b"\xff\xd8" + segment(0xFFE0, b"JFIF" + bytes(10))
RIFF = b"RIFF" + bytes(4) + b"AVI "
FILES = {
    "iso": ("mp4", box(b"ftyp", bytes(8)) + MANIFEST + box(b"mdat"), "present"),
    "iso behind a large box": (
        "mp4",
        struct.pack(">I4sQ", 1, b"mdat", 20) + bytes(4) + MANIFEST,
        "present",
    ),
    "iso of a large size": (
        "mp4",
        struct.pack(">I4sQ", 1, b"uuid", 40) + ISO_MANIFEST + bytes(8),
        "present",
    ),
    "iso, another uuid": ("mp4", box(b"uuid", bytes(16)) + box(b"mdat", size=0) + MANIFEST, "absent"),
    "iso, a box without end": ("mp4", box(b"mdat", size=7) + MANIFEST, "absent"),
    "iso, cut off": ("mp4", MANIFEST[:20], "absent"),
    "iso, cut off within a size": ("mp4", struct.pack(">I4s", 1, b"mdat"), "absent"),
    "iso, of too many boxes": ("mp4", 5000 * box(b"free") + MANIFEST, "not_checked"),
    "jpeg": ("jpeg", JPEG + b"\xff" + segment(0xFFEB, superbox(JUMBF_MANIFEST)), "present"),
    "jpeg, another superbox": ("jpeg", JPEG + segment(0xFFEB, superbox(bytes(16))) + b"\xff\xda", "absent"),
    "jpeg, in the picture": (
        "jpeg",
        JPEG + segment(0xFFDA, b"") + segment(0xFFEB, superbox(JUMBF_MANIFEST)),
        "absent",
    ),
    "png": ("png", PNG + struct.pack(">I4s", 4, b"caBX"), "present"),
    "png, behind the picture": (
        "png",
        PNG + struct.pack(">I4s", 0, b"IDAT") + bytes(4) + struct.pack(">I4s", 4, b"caBX"),
        "absent",
    ),
    "avi": ("avi", RIFF + chunk(b"LIST", b"odd") + chunk(b"C2PA", b"x"), "present"),
    "avi without": ("avi", RIFF + chunk(b"LIST", b"odd"), "absent"),
    "matroska": ("matroska", MANIFEST, "not_checked"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_manifest_is_found_where_it_belongs(tmp_path, name):
    container, content, expected = FILES[name]
    path = tmp_path / "file"
    path.write_bytes(content)
    assert c2pa_of(path, container) == expected


def test_ordinary_files_carry_none(tmp_path):

    assert c2pa_of(face_clip(tmp_path / "a.mp4", seconds=0.2), "mp4") == "absent"
    pixels = np.zeros((32, 32, 3), np.uint8)
    for kind, container in (("jpg", "jpeg"), ("png", "png"), ("webp", "webp")):
        assert c2pa_of(still(tmp_path / f"a.{kind}", pixels), container) == "absent"


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(CONTAINERS), st.binary(max_size=200))
def test_any_bytes_are_looked_through_in_bounded_steps(tmp_path_factory, container, content):
    path = tmp_path_factory.getbasetemp() / "bytes"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(c2pa, "MOST_PARTS", 50)
        assert c2pa_of(path, container) in {"present", "absent", "not_checked"}


@pytest.mark.parametrize("size", [1 << 50, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_a_box_that_claims_more_than_any_file_has_ends_the_search(tmp_path, size):
    path = tmp_path / "clip.mp4"
    path.write_bytes(struct.pack(">I4sQ", 1, b"free", size) + bytes(64))
    assert c2pa_of(path, "mp4") == "absent"


LONG = JPEG + segment(0xFFEB, superbox(JUMBF_MANIFEST)) + 2 * segment(0xFFEB, b"JP" + bytes(998))
NESTED = (
    box(
        b"moov",
        box(b"trak", box(b"tkhd", bytes(80)) + box(b"free", size=7)) + box(b"meta", bytes(4) + box(b"ilst")),
    )
    + box(b"udta", box(b"free", size=0) + bytes(9))
    + box(b"udta", box(b"moov", size=1 << 30) + bytes(9))
    + box(b"udta", bytes(4))
)
DEEP = b"".join(struct.pack(">I4s", 8 * n, b"moov") for n in range(5000, 0, -1))


def whole(size):
    return Parts(size, whole=True)


SIZES = {
    "one box": ("mp4", MANIFEST + box(b"mdat"), whole(len(MANIFEST))),
    "two boxes": ("mp4", MANIFEST + box(b"free") + MANIFEST, whole(2 * len(MANIFEST))),
    "a box to the end": ("mp4", box(b"uuid", ISO_MANIFEST, size=0) + bytes(100), whole(124)),
    "a box that claims more than there is": (
        "mp4",
        box(b"uuid", ISO_MANIFEST + bytes(76), size=1 << 31),
        whole(100),
    ),
    "and too many boxes": ("mp4", MANIFEST + 5000 * box(b"free"), Parts(len(MANIFEST), whole=False)),
    "segments that go on": ("jpeg", LONG, whole(len(LONG) - len(JPEG))),
    "segments of something else before": (
        "jpeg",
        JPEG
        + segment(0xFFEB, b"JP" + bytes(500))
        + segment(0xFFEB, superbox(JUMBF_MANIFEST))
        + b"\xff\xda\0\0",
        whole(4 + len(superbox(JUMBF_MANIFEST))),
    ),
    "a chunk": (
        "png",
        PNG + struct.pack(">I4s", 4, b"caBX") + bytes(8) + struct.pack(">I4s", 0, b"IDAT"),
        whole(16),
    ),
    "chunks of a form": ("avi", RIFF + chunk(b"C2PA", b"xyz") + chunk(b"C2PA", b"x"), whole(20)),
    "none": ("mp4", box(b"mdat"), whole(0)),
    "too many boxes": ("mp4", 5000 * box(b"free"), Parts(0, whole=False)),
    "a box within another": ("mp4", box(b"moov", box(b"udta", MANIFEST)) + MANIFEST, whole(len(MANIFEST))),
    "boxes within others": ("mp4", MANIFEST + NESTED + MANIFEST, whole(2 * len(MANIFEST))),
    "too many boxes within others": (
        "mp4",
        MANIFEST + box(b"moov", box(b"trak") + box(b"udta", 5000 * box(b"free"))),
        Parts(len(MANIFEST), whole=False),
    ),
    "too many boxes each within the last": ("mp4", MANIFEST + DEEP, Parts(len(MANIFEST), whole=False)),
    "another container": ("matroska", MANIFEST, None),
}


@pytest.mark.parametrize("name", SIZES)
def test_what_holds_manifests_is_measured(tmp_path, name):
    container, content, expected = SIZES[name]
    path = tmp_path / "file"
    path.write_bytes(content)
    assert parts_of(path, container) == expected
