"""Decoding by several threads: noticing that one of them failed, which libav tells late or not at all."""

from collections import deque

from av import Packet, VideoFrame, VideoStream


class Doubt(Exception):
    """Something is wrong in what several threads decode: an error then belongs to any of their packets."""


class InFlight:
    """Watches that what went into several threads comes out of them; with one it does nothing.

    At the end of the file PyAV takes an error in one thread for the end of the pictures. Raises Doubt.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._sent: deque[int] = deque(maxlen=threads)
        self._came: set[int | None] = set()

    def sent(self, packet: "Packet[VideoStream]") -> None:
        """Remember a packet whose picture has to come."""
        if packet.size and packet.pts is not None and not packet.is_discard:
            self._sent.append(packet.pts)

    def came(self, picture: VideoFrame) -> None:
        """Remember a picture; a damaged one is patched by threads in other ways than by one alone."""
        self._came.add(picture.pts)
        if self._threads > 1 and picture.is_corrupt:
            raise Doubt

    def landed(self) -> None:
        """Look whether the last ones have all come."""
        if self._threads > 1 and not self._came.issuperset(self._sent):
            raise Doubt
