"""When the frames of a container are shown, told from its packets without decoding any."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import av
from av import Packet, VideoStream
from av.container import InputContainer

from pipeline.media import Limits


@dataclass(frozen=True, slots=True)
class Scan:
    """When frames are shown, as far as the container tells without decoding.

    stamps: presentation time stamps in units of `tick_s` seconds, sorted; keys: those of key
    frames that can be sought; order: whether a decoded frame is known by its stamp, only by
    counting, or whether the times themselves are unknown until all is decoded; last_s: how long
    the last frame is shown, 0 if unknown; beyond_s: what the container goes on for after that, when
    limits cut it; damage, truncated: what is missing of the file, and why not all of it was looked at;
    packets: how many were read up to the limits, those included that show nothing.
    """

    stamps: list[int]
    keys: list[int]
    tick_s: float
    order: Literal["stamped", "counted", "unknown"]
    last_s: float
    beyond_s: float = 0.0
    damage: str | None = None
    truncated: str | None = None
    packets: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """Which packet of a file one is."""

    pos: int | None
    size: int
    pts: int | None
    dts: int | None

    @classmethod
    def of(cls, packet: "Packet[VideoStream]") -> "Place":
        """The place of a packet."""
        return cls(packet.pos, packet.size, packet.pts, packet.dts)


class Scanner:
    """Collects the time stamps of one pass over the packets. first: the first of them, once there was one."""

    def __init__(self, stream: VideoStream, demuxer: str, limits: Limits, size: int) -> None:
        self._stream, self._demuxer, self._limits, self._size = stream, demuxer, limits, size
        self._tick_s = float(stream.time_base or 1)
        self._shown: list[tuple[int, int, bool]] = []
        self._untimed = False
        self.first: Place | None = None
        self._last_dts: int | None = None
        self._end = 0
        self._damage: str | None = None
        self._truncated: str | None = None
        self._packets = 0

    def run(self, container: InputContainer) -> Scan:
        """Read the packets up to the limits; the container is at its end afterwards."""
        for packet in packets(container, self._stream, self._note):
            if self._truncated is None:
                self._packets += 1
            if not packet.size:
                continue
            self.first = self.first or Place.of(packet)
            if packet.is_corrupt:
                self._note("a part of the file is damaged or missing")
            elif packet.dts is not None and self._truncated is None:
                self._last_dts = packet.dts
            if not packet.is_discard and not self._is_hidden(packet):
                self._add(packet)
        return self._result()

    def _missing(self) -> str | None:
        """How much of what the index of an MP4 promises lies beyond the end of the file."""
        entries = self._stream.index_entries
        if self._demuxer != "mov" or not entries:
            return None
        beyond = sum(entry.pos + entry.size > self._size for entry in entries)
        return f"the file breaks off: {beyond} of {len(entries)} frames are missing" if beyond else None

    def _add(self, packet: "Packet[VideoStream]") -> None:
        # AVI numbers frames in the order of decoding, so its stamps belong to other frames.
        stamp = packet.dts if self._demuxer == "avi" else packet.pts
        if stamp is None:
            self._untimed = True
            stamp = self._shown[-1][0] + 1 if self._shown else 0
        if self._is_full(stamp):
            self._end = max(self._end, stamp + (packet.duration or 0))
        else:
            self._shown.append((stamp, packet.duration or 0, packet.is_keyframe))

    def _is_hidden(self, packet: "Packet[VideoStream]") -> bool:
        """VP8 frames that only later ones refer to are packets of their own (RFC 6386, 9.1)."""
        return self._stream.codec_context.name == "vp8" and not memoryview(packet)[0] & 0x10

    def _is_full(self, stamp: int) -> bool:
        """Whether a frame shown at `stamp` is over the limits; once one was, all later ones are."""
        if self._shown and self._truncated is None:
            passed = stamp - self._shown[0][0]
            self._truncated = self._limits.reached(len(self._shown), passed * self._tick_s)
        return self._truncated is not None

    def _result(self) -> Scan:
        damage = self._missing() or self._damage
        self._shown.sort()
        if (damage or self._truncated) and self._last_dts is not None:
            # No frame is shown before its decoding time, so up to that of the last packet none is missing.
            whole = [shown for shown in self._shown if shown[0] <= self._last_dts]
            self._shown = whole or self._shown[:1]
        stamps = [stamp for stamp, _, _ in self._shown]
        last = self._shown[-1][0] + self._shown[-1][1] if self._shown else 0
        return Scan(
            stamps=stamps,
            keys=[stamp for stamp, _, key in self._shown if key],
            tick_s=self._tick_s,
            order=self._order(stamps),
            last_s=self._shown[-1][1] * self._tick_s if self._shown else 0.0,
            beyond_s=max(0, self._end - last) * self._tick_s,
            damage=damage,
            truncated=self._truncated,
            packets=self._packets,
        )

    def _order(self, stamps: list[int]) -> Literal["stamped", "counted", "unknown"]:
        if self._untimed or len(set(stamps)) < len(stamps):
            return "unknown"
        return "counted" if self._demuxer == "avi" else "stamped"

    def _note(self, damage: str) -> None:
        self._damage = self._damage or damage


def packets(
    container: InputContainer, stream: VideoStream, note: Callable[[str], None]
) -> Iterator["Packet[VideoStream]"]:
    """Packets of one stream up to the first place where the container can not be read further."""
    try:
        yield from container.demux(stream)
    except (av.FFmpegError, ValueError) as e:
        note(f"the container can not be read further: {words(e)}")


def words(error: Exception) -> str:
    """libav's own words for what went wrong."""
    return (getattr(error, "strerror", None) or str(error)).lower()
