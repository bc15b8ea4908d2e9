"""Bodies that are sent in odd manners: what `requests` reads them from decides when it sends what."""

import time
from collections.abc import Iterator

PIECE = 16_384


class Left(OSError):
    """The client has closed the connection of its own accord."""


class Enough(BrokenPipeError):
    """The client sends no more and looks for an answer: urllib3 does so when a pipe is broken."""


class Stream:
    """A body that claims a length and is sent piece by piece.

    piece, pause_s: bytes at a time, and seconds before each further one.
    """

    def __init__(self, body: bytes, *, claimed: int | None = None, piece: int = PIECE, pause_s: float = 0.0):
        self._body, self._piece, self._pause_s = body, piece, pause_s
        self._claimed = len(body) if claimed is None else claimed
        self.sent = 0

    def __len__(self) -> int:
        return self._claimed

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read(self._piece):
            yield data

    def read(self, size: int) -> bytes:
        """The next piece, of `size` bytes at most; empty at the end."""
        if self.sent and self._pause_s:
            time.sleep(self._pause_s)
        data = self.piece(min(size, self._piece))
        self.sent += len(data)
        return data

    def piece(self, size: int) -> bytes:
        """What is sent next."""
        return self._body[self.sent : self.sent + size]


class Stalling(Stream):
    """Stops in the middle for `stall_s` seconds, then sends the rest."""

    def __init__(self, body: bytes, stall_s: float) -> None:
        super().__init__(body)
        self._stall_s, self._half = stall_s, len(body) // 2

    def piece(self, size: int) -> bytes:
        """What is sent next."""
        if self.sent < self._half:
            return super().piece(min(size, self._half - self.sent))
        if self.sent == self._half:
            time.sleep(self._stall_s)
        return super().piece(size)


class Leaving(Stream):
    """Breaks off in the middle. Raises Left then."""

    def piece(self, size: int) -> bytes:
        """What is sent next."""
        if self.sent >= len(self._body) // 2:
            raise Left("left in the middle")
        return super().piece(min(size, len(self._body) // 2 - self.sent))


class Endless(Stream):
    """Zeros after the body, as if up to the claimed length. Raises Enough after `most` bytes."""

    def __init__(self, body: bytes, *, claimed: int, most: int) -> None:
        super().__init__(body, claimed=claimed)
        self._most = most

    def piece(self, size: int) -> bytes:
        """What is sent next."""
        if self.sent >= self._most:
            raise Enough(f"{self._most:,} bytes were sent")
        return super().piece(size) or bytes(size)
