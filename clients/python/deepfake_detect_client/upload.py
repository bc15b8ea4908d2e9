"""A clip on its way: read in pieces, hashed as it goes, and rewound when it has to be sent again."""

import asyncio
import hashlib
import io
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
"""A clip: the path of a file, its bytes, or a file that is open for reading bytes, from where it stands."""
OnProgress = Callable[[int, int | None], object]
"""Told the bytes that were sent so far, and all that there are, None where that is not known."""

PIECE_BYTES = 256 * 1024


class Upload:
    """One clip that is sent, perhaps several times. size: bytes, None where only reading will tell."""

    def __init__(self, file: BinaryIO, on_progress: OnProgress | None = None) -> None:
        self._file, self._on_progress = file, on_progress
        self._start = file.tell() if file.seekable() else None
        self.size = None if self._start is None else file.seek(0, io.SEEK_END) - self._start
        self._untouched = True
        self._sent = 0
        self._hash = hashlib.sha256()

    @property
    def repeatable(self) -> bool:
        """Whether it can be sent from its beginning: it can be rewound, or nothing of it was read yet."""
        return self._start is not None or self._untouched

    def digest(self) -> bytes:
        """SHA-256 of what was sent the last time."""
        return self._hash.digest()

    def pieces(self) -> Iterator[bytes]:
        """The clip from its beginning. Raises OSError when it can not be read, or has become shorter."""
        self._rewind()
        while piece := self._next():
            yield piece
            self._tell(len(piece))

    async def pieces_async(self) -> AsyncIterator[bytes]:
        """The same, read in another thread, so that slow disks hold up nobody."""
        await asyncio.to_thread(self._rewind)
        while piece := await asyncio.to_thread(self._next):
            yield piece
            self._tell(len(piece))

    def _rewind(self) -> None:
        if self._start is not None:
            self._file.seek(self._start)
        self._sent = 0
        self._hash = hashlib.sha256()

    def _next(self) -> bytes:
        self._untouched = False
        left = PIECE_BYTES if self.size is None else self.size - self._sent
        piece = self._file.read(min(PIECE_BYTES, left))
        if not isinstance(piece, bytes):
            raise TypeError("the clip has to be a file that is open for reading bytes")
        if not piece and self.size is not None and left > 0:
            raise OSError("the clip became shorter while it was sent")
        self._hash.update(piece)
        return piece

    def _tell(self, sent: int) -> None:
        self._sent += sent
        if self._on_progress is not None:
            self._on_progress(self._sent, self.size)


@contextmanager
def opened(source: Source, on_progress: OnProgress | None = None) -> Iterator[Upload]:
    """A clip that can be sent, until the end of the block; what was given open stays open."""
    if isinstance(source, str | os.PathLike):
        with Path(source).open("rb") as file:
            yield Upload(file, on_progress)
    elif isinstance(source, bytes | bytearray | memoryview):
        yield Upload(io.BytesIO(source), on_progress)
    else:
        yield Upload(source, on_progress)
