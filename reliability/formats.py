"""Files as trees and back: MP4, Matroska, RIFF (AVI, WebP), PNG, GIF, JPEG.

Only sound files are read. What is written from a tree that nothing was done to is the file, byte for byte.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

from reliability.tree import Node

_BOXES = dict.fromkeys(
    (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf", b"udta", b"mvex", b"moof", b"traf"), 0
) | {b"meta": 4, b"stsd": 8, b"dref": 8, b"avc1": 78, b"hev1": 78, b"hvc1": 78, b"mp4v": 78}
"""Boxes that hold others, and the bytes of fields before these (ISO/IEC 14496-12)."""
_CHUNKS = {b"RIFF": 4, b"LIST": 4, b"ANMF": 16}
_MASTERS = frozenset(
    bytes.fromhex(identity)
    for identity in (
        *("1a45dfa3", "18538067", "114d9b74", "4dbb", "1549a966", "1654ae6b", "ae", "e0", "e1"),
        *("1f43b675", "a0", "1c53bb6b", "bb", "b7", "1254c367", "7373", "63c0", "67c8"),
    )
)
"""Elements that hold others (RFC 8794, RFC 9559)."""


@dataclass(frozen=True, slots=True)
class Format:
    """How a file becomes a tree and a tree a file."""

    read: Callable[[bytes], list[Node]]
    write: Callable[[list[Node]], bytes]


def _body(node: Node, write: Callable[[list[Node]], bytes]) -> bytes:
    return node.content + (write(node.children) if node.children else b"")


def _split(kind: bytes, content: bytes, prefix: int | None, read: Callable[[bytes], list[Node]]) -> Node:
    if prefix is None:
        return Node(kind, content)
    return Node(kind, content[:prefix], read(content[prefix:]))


def _rest(data: bytes, at: int) -> list[Node]:
    return [Node(b"", data[at:])] if at < len(data) else []


def read_boxes(data: bytes) -> list[Node]:
    """MP4: four bytes of length, four of type."""
    nodes, at = [], 0
    while at + 8 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if size < 8:
            break
        nodes.append(_split(kind, data[at + 8 : at + size], _BOXES.get(kind), read_boxes))
        at += size
    return nodes + _rest(data, at)


def write_boxes(nodes: list[Node]) -> bytes:
    """A length of more than 32 bits takes eight bytes behind the type."""
    out = bytearray()
    for node in nodes:
        body = _body(node, write_boxes)
        size = len(body) + 8 if node.claimed is None else node.claimed
        if not node.kind:
            out += body
        elif size < 2**32:
            out += size.to_bytes(4, "big") + node.kind + body
        else:
            out += b"\0\0\0\1" + node.kind + (size % 2**64).to_bytes(8, "big") + body
    return bytes(out)


def _width(first: int) -> int:
    """Bytes of a variable-size integer (RFC 8794, section 4); 0 for none."""
    return 9 - first.bit_length() if first else 0


def read_elements(data: bytes) -> list[Node]:
    """Matroska and WebM."""
    nodes, at = [], 0
    while at + 2 <= len(data):
        named = _width(data[at])
        sized = _width(data[at + named]) if named and at + named < len(data) else 0
        if not sized:
            break
        kind, start = data[at : at + named], at + named + sized
        size = int.from_bytes(data[at + named : start], "big") - (1 << 7 * sized)
        prefix = 0 if kind in _MASTERS else None
        node = _split(kind, data[start : start + size], prefix, read_elements)
        node.width = sized
        nodes.append(node)
        at = start + size
    return nodes + _rest(data, at)


def write_elements(nodes: list[Node]) -> bytes:
    """A length that does not fit where it was takes eight bytes."""
    out = bytearray()
    for node in nodes:
        body = _body(node, write_elements)
        if not node.kind:
            out += body
            continue
        size = (len(body) if node.claimed is None else node.claimed) % 2**56
        width = node.width if node.width and size < (1 << 7 * node.width) - 1 else 8
        out += node.kind + (size + (1 << 7 * width)).to_bytes(width, "big") + body
    return bytes(out)


def read_chunks(data: bytes) -> list[Node]:
    """RIFF: four bytes of type, four of length (little endian), padded to even ones."""
    nodes, at = [], 0
    while at + 8 <= len(data):
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        nodes.append(_split(kind, data[at + 8 : at + 8 + size], _CHUNKS.get(kind), read_chunks))
        at += 8 + size + size % 2
    return nodes + _rest(data, at)


def write_chunks(nodes: list[Node]) -> bytes:
    """With a byte of padding where it is due."""
    out = bytearray()
    for node in nodes:
        body = _body(node, write_chunks)
        if not node.kind:
            out += body
            continue
        size = len(body) if node.claimed is None else node.claimed
        out += node.kind + (size % 2**32).to_bytes(4, "little") + body + bytes(len(body) % 2)
    return bytes(out)


def read_png(data: bytes) -> list[Node]:
    """PNG and APNG: length, type, content, check sum."""
    nodes, at = [Node(b"", data[:8])], 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        nodes.append(Node(data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    return nodes + _rest(data, at)


def write_png(nodes: list[Node]) -> bytes:
    """Check sums are right, so that it is not they that a decoder stumbles over."""
    out = bytearray()
    for node in nodes:
        body = _body(node, write_png)
        if not node.kind:
            out += body
            continue
        size = len(body) if node.claimed is None else node.claimed
        out += (size % 2**32).to_bytes(4, "big") + node.kind + body
        out += zlib.crc32(node.kind + body).to_bytes(4, "big")
    return bytes(out)


def read_gif(data: bytes) -> list[Node]:
    """Signature with screen and palette, extensions, pictures. None of them says how long it is."""
    at = 13 + _palette(data[10])
    nodes = [Node(data[:6], data[6:at])]
    while at < len(data) and data[at] in b"\x21\x2c":
        kind = data[at : at + 2] if data[at] == 0x21 else data[at : at + 1]
        start = at + len(kind)
        at = start if len(kind) == 2 else start + 9 + _palette(data[start + 8]) + 1
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
        nodes.append(Node(kind, data[start:at]))
    return nodes + _rest(data, at)


def _palette(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def write_gif(nodes: list[Node]) -> bytes:
    """A claimed length becomes that of the first block, or the low byte of the first field."""
    out = bytearray()
    for node in nodes:
        body = bytearray(_body(node, write_gif))
        if node.claimed is not None:
            body[:1] = bytes([node.claimed % 256])
        out += node.kind + body
    return bytes(out)


def read_jpeg(data: bytes) -> list[Node]:
    """Segments up to the scan, which follows as it is."""
    nodes, at, kind = [Node(b"", data[:2])], 2, b""
    while at + 4 <= len(data) and data[at] == 0xFF and kind != b"\xff\xda":
        kind, size = data[at : at + 2], int.from_bytes(data[at + 2 : at + 4], "big")
        nodes.append(Node(kind, data[at + 4 : at + 2 + size]))
        at += 2 + size
    return nodes + _rest(data, at)


def write_jpeg(nodes: list[Node]) -> bytes:
    """The length counts itself."""
    out = bytearray()
    for node in nodes:
        body = _body(node, write_jpeg)
        if not node.kind:
            out += body
            continue
        size = len(body) + 2 if node.claimed is None else node.claimed
        out += node.kind + (size % 2**16).to_bytes(2, "big") + body
    return bytes(out)


MP4 = Format(read_boxes, write_boxes)
MATROSKA = Format(read_elements, write_elements)
RIFF = Format(read_chunks, write_chunks)
PNG = Format(read_png, write_png)
GIF = Format(read_gif, write_gif)
JPEG = Format(read_jpeg, write_jpeg)
