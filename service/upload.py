"""The body of a request, streamed into a private file that is gone when the request is."""

import asyncio
import hashlib
import logging
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from service.problems import (
    DeadlineExceeded,
    MalformedRequest,
    Unavailable,
    UnsupportedMediaType,
    UploadTooLarge,
    UploadTooSlow,
)
from service.scratch import clip_prefix

log = logging.getLogger(__name__)

FIELD = "file"
CROPS_TYPE = "application/vnd.deepfake-detect.crops"
"""Media type of faces that a client has cut itself; see service.crops."""
STORE_AGAIN_S = 5.0
FRAMING_BYTES = 64 * 1024
"""What a multipart body may have around the clip: boundaries and part headers."""
CHUNK_BYTES = 1024 * 1024
"""Bytes gathered before they are hashed and written in another thread."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A clip on disk. sha256: digest of its bytes."""

    path: Path
    size: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """Where clips are kept, how large they may be, and until when (in the event loop's time) they arrive."""

    scratch: Path
    max_bytes: int
    slow_at: float
    deadline: float


def check_headers(request: Request, limits: UploadLimits, *, crops: bool = False) -> None:
    """Refuse by its headers alone what can not be accepted. Reads nothing of the body.

    crops: whether the body has to be crops instead of a clip.
    """
    length = request.headers.get("content-length")
    if (length is None and "transfer-encoding" not in request.headers) or length == "0":
        raise MalformedRequest("the request has no body", problem="empty-body")
    if (encoding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        raise UnsupportedMediaType(f"the body has Content-Encoding {encoding!r}; send it as it is")
    kind, _ = _content_type(request)
    if crops != (kind == CROPS_TYPE):
        wanted = f"this route takes {CROPS_TYPE}" if crops else "crops are judged at /v1/detect/crops"
        raise UnsupportedMediaType(f"Content-Type {kind!r}: {wanted}")
    if not (kind == "multipart/form-data" or _is_media(kind)):
        given = f"Content-Type {kind!r}" if kind else "no Content-Type"
        raise UnsupportedMediaType(
            f"{given}: send multipart/form-data with a field {FIELD!r}, or the clip itself as video/*, "
            "image/* or application/octet-stream"
        )
    room = limits.max_bytes + (0 if _is_media(kind) else FRAMING_BYTES)
    if length is not None and int(length) > room:
        raise UploadTooLarge(f"the body has {int(length):,} bytes; a clip may have {limits.max_bytes:,}")


@asynccontextmanager
async def received(request: Request, limits: UploadLimits) -> AsyncIterator[Upload]:
    """The clip in a request that passed `check_headers`, until the end of the block.

    Raises MalformedRequest, UploadTooLarge, UploadTooSlow, DeadlineExceeded, Unavailable when there
    is no room for it, or Starlette's ClientDisconnect.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=clip_prefix(), dir=limits.scratch)
    except OSError as e:
        raise _no_room(e) from e
    path = Path(name)
    sink = _Sink(handle, limits.max_bytes)
    try:
        try:
            async with asyncio.timeout_at(min(limits.slow_at, limits.deadline)):
                await _read(request, sink, limits)
        except TimeoutError as e:
            if limits.deadline <= limits.slow_at:
                raise DeadlineExceeded("the deadline passed while the body was received") from e
            raise UploadTooSlow(f"only {sink.size:,} bytes of the clip arrived in time") from e
        except OSError as e:
            raise _no_room(e) from e
        finally:
            os.close(handle)
        yield Upload(path, sink.size, sink.digest())
    finally:
        path.unlink(missing_ok=True)  # noqa: ASYNC240 - quick, and it must happen even when cancelled


def _no_room(error: OSError) -> Unavailable:
    """Other uploads free disk and descriptors when they end, so it may be tried again."""
    log.error("a clip can not be stored", extra={"reason": error.strerror})
    return Unavailable("the clip can not be stored now", problem="overloaded", retry_after_s=STORE_AGAIN_S)


async def _read(request: Request, sink: "_Sink", limits: UploadLimits) -> None:
    kind, boundary = _content_type(request)
    form = None if _is_media(kind) else _Form(boundary, sink)
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > limits.max_bytes + FRAMING_BYTES:
            raise UploadTooLarge(f"a clip may have {limits.max_bytes:,} bytes")
        if form is None:
            sink.take(chunk)
        else:
            form.write(chunk)
        if sink.waiting >= CHUNK_BYTES:
            await _flush(sink)
    if form is not None:
        form.end()
    await _flush(sink)
    if sink.size == 0:
        raise MalformedRequest("the clip has no bytes", problem="empty-body")


async def _flush(sink: "_Sink") -> None:
    """Hash and write in another thread, which is waited for even when the request is cancelled:
    closed under its hands, its file number could already be another upload's."""
    writing = asyncio.create_task(asyncio.to_thread(sink.flush))
    try:
        await asyncio.shield(writing)
    finally:
        await asyncio.wait({writing})


class _Sink:
    """Counts, hashes and writes what belongs to the clip."""

    def __init__(self, handle: int, max_bytes: int) -> None:
        self._handle, self._max_bytes = handle, max_bytes
        self._hash = hashlib.sha256()
        self._pieces: list[bytes] = []
        self.waiting = 0
        self.size = 0

    def take(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self._max_bytes:
            raise UploadTooLarge(f"the clip has more than {self._max_bytes:,} bytes")
        self._pieces.append(data)
        self.waiting += len(data)

    def flush(self) -> None:
        data = memoryview(b"".join(self._pieces))
        self._pieces.clear()
        self.waiting = 0
        self._hash.update(data)
        while data:
            data = data[os.write(self._handle, data) :]

    def digest(self) -> bytes:
        return self._hash.digest()


class _Form:
    """A multipart body that must consist of one part, named `file`."""

    def __init__(self, boundary: bytes | None, sink: _Sink) -> None:
        if not boundary:
            raise MalformedRequest("Content-Type names no boundary", problem="malformed-multipart")
        self._sink = sink
        self._parts = 0
        self._ended = False
        self._header_name, self._header_value, self._disposition = b"", b"", b""
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begins,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_content,
                    "on_header_end": self._header_ends,
                    "on_headers_finished": self._headers_end,
                    "on_part_data": lambda data, start, end: self._sink.take(data[start:end]),
                    "on_end": self._end,
                },
            )
        except FormParserError as e:
            raise MalformedRequest(str(e), problem="malformed-multipart") from e

    def write(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as e:
            raise MalformedRequest(f"not multipart/form-data: {e}", problem="malformed-multipart") from e

    def end(self) -> None:
        if not self._ended:
            raise MalformedRequest("the multipart body ends early", problem="malformed-multipart")
        if self._parts == 0:
            raise MalformedRequest(f"the form has no field {FIELD!r}", problem="wrong-field")

    def _part_begins(self) -> None:
        self._disposition = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _header_content(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header_ends(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _headers_end(self) -> None:
        name = parse_options_header(self._disposition)[1].get(b"name", b"").decode("utf-8", "replace")
        if name != FIELD:
            raise MalformedRequest(
                f"the form has a field {name[:40]!r}; the clip is sent in {FIELD!r}, and nothing else",
                problem="wrong-field",
            )
        self._parts += 1
        if self._parts > 1:
            raise MalformedRequest("more than one clip; send a request for each", problem="too-many-files")

    def _end(self) -> None:
        self._ended = True


def _content_type(request: Request) -> tuple[str, bytes | None]:
    """Media type in lower case, and the boundary if there is one."""
    kind, options = parse_options_header(request.headers.get("content-type"))
    return kind.decode("latin-1"), options.get(b"boundary")


def _is_media(kind: str) -> bool:
    return kind.startswith(("video/", "image/")) or kind in {"application/octet-stream", CROPS_TYPE}
