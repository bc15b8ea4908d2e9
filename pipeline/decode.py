"""Opens strangers' media and gives bursts of upright frames.

Which moments exist is read from the packets, without decoding; only what a plan asks for, and what
lies between it and the nearest key frame, is then decoded.
"""

from bisect import bisect_right
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Self

from av import VideoFrame

from pipeline.errors import NoFrames
from pipeline.frames import Burst
from pipeline.media import ANIMATED_WEBP, NAMES, STILLS, Limits, sniff_file
from pipeline.planes import Converter, Turn, deinterlace, turn_of
from pipeline.scan import Scan
from pipeline.source import LibavSource, Source, picture_orientation
from pipeline.webp import WebpSource

_PROBE_FRAMES = 4
"""Frames decoded on opening, to compare the container's time stamps with the decoder's."""

_WORTH_SEEKING = 8
"""Frames that a seek has to save: it flushes the decoder and, if it misses, costs a second start."""

_USUAL_GAP_S = 0.04


@dataclass(frozen=True, slots=True)
class _Decoded:
    index: int
    picture: VideoFrame


class Clip:
    """An opened clip; a context manager. Made by `open_clip`.

    container, codec: names; width, height: of the upright picture in its own pixels, square or
    not; times_s: presentation times of all frames in seconds, sorted, from 0; duration_s: to the
    end of the last frame; frame_rate: frames a second on average. A still picture has one frame,
    duration 0 and rate 0. frames_decoded: frames that decoding went through so far, those included
    that it left out since nobody wants them; pictures_made: those that came out of the decoder, a few
    more of them where it has several threads. truncated: which limit leaves the rest of the clip out,
    if one does.
    """

    def __init__(self, source: Source, demuxer: str, limits: Limits, orientation: int = 1) -> None:
        self._source = source
        self._limits = limits
        self.container = NAMES[demuxer]
        self.codec = source.codec
        self.frames_decoded = 0
        self.pictures_made = 0
        self._resized: str | None = None
        self._may_seek = True

        scan = source.scan()
        self._pictures = self._decode(None)
        probed = list(islice(self._pictures, _PROBE_FRAMES))
        if not probed:
            reason = source.damage or scan.damage or "it is empty"
            raise NoFrames(f"the video stream holds no decodable frame: {reason}")
        first = probed[0]
        self._size = (first.width, first.height)
        limits.check_size(*self._size)
        self._scan = _agreed(scan, probed) or self._timed(chain(probed, self._pictures))
        self._may_skip = self._scan.order == "stamped"
        stamps = self._scan.stamps
        self._index = {stamp: k for k, stamp in enumerate(stamps)}
        # Where frames are known by counting alone, nothing tells the number of one that was sought.
        keys = self._scan.keys if self._scan.order == "stamped" else []
        self._keys = [self._index[stamp] for stamp in keys if stamp in self._index]
        if self._scan.order == "unknown":
            self._start(None)
        else:
            self._follow(chain(probed, self._pictures))

        self.times_s = [(stamp - stamps[0]) * self._scan.tick_s for stamp in stamps]
        self.duration_s, self.frame_rate = (0.0, 0.0) if demuxer in STILLS else self._pace()
        self.truncated = self._scan.truncated
        turn = Turn.of_exif(orientation) if orientation != 1 else turn_of(first)
        self.width, self.height = self._size[::-1] if turn.transpose else self._size
        self._converter = Converter(turn)

    @property
    def damage(self) -> str | None:
        """What is missing of the file, or where decoding failed first so far; None if all is well."""
        return self._source.damage or self._scan.damage or self._resized

    def bursts(self, plan: Iterable[range]) -> Iterator[Burst]:
        """Decode the planned runs of consecutive frame indexes, one burst each.

        Best in order of time: going back starts a new pass. A run of which nothing can be decoded
        gives no burst, one with a hole gives its longest whole part.
        """
        runs = list(plan)
        wanted = self._stamps_about(runs)
        for run in runs:
            whole = self._whole(run, wanted)
            if whole:
                pictures = self._progressive(whole)
                yield [
                    self._converter.frame(picture, self.times_s[d.index], d.index)
                    for d, picture in zip(whole, pictures, strict=True)
                ]

    def close(self) -> None:
        """Free the decoder and the file."""
        self._pictures.close()
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _decode(self, stamp: int | None) -> Generator[VideoFrame]:
        for picture in self._source.pictures(stamp):
            self.pictures_made += 1
            yield picture

    def _timed(self, pictures: Iterable[VideoFrame]) -> Scan:
        """Times from decoding all of it once, for containers whose time stamps are no use."""
        stamps: list[int] = []
        truncated = None
        gap, now = _USUAL_GAP_S, 0.0
        for picture in pictures:
            if truncated := self._limits.reached(len(stamps), now):
                break
            time = picture.time if picture.pts is not None else None
            if not stamps:
                now = time or 0.0
            else:
                gap = time - now if time is not None and time > now else gap
                now += gap
            stamps.append(round(now * 1e6))
        self.frames_decoded += len(stamps)
        return Scan(stamps, [], 1e-6, "unknown", gap, truncated=truncated)

    def _pace(self) -> tuple[float, float]:
        """Duration in seconds and average frame rate."""
        passed = self.times_s[-1]
        rate = (len(self.times_s) - 1) / passed if passed > 0 else 0.0
        last_s = self._scan.last_s or (1.0 / rate if rate else 0.0)
        return passed + last_s + self._scan.beyond_s, rate

    def _start(self, stamp: int | None) -> None:
        """Decode from the start, or from a key frame."""
        self._pictures.close()
        self._pictures = self._decode(stamp)
        self._follow(self._pictures)

    def _follow(self, pictures: Iterator[VideoFrame]) -> None:
        self._cursor = self._number(pictures)
        self._peeked: _Decoded | None = None
        self._previous: _Decoded | None = None
        self._passed = 0

    def _number(self, pictures: Iterator[VideoFrame]) -> Iterator[_Decoded]:
        if self._scan.order != "stamped":
            yield from (_Decoded(k, p) for k, p in zip(range(len(self.times_s)), pictures, strict=False))
            return
        last = -1
        for picture in pictures:
            index = self._index.get(picture.pts) if picture.pts is not None else None
            if index is not None and index > last:
                last = index
                yield _Decoded(index, picture)

    def _peek(self) -> _Decoded | None:
        if self._peeked is None:
            self._peeked = next(self._cursor, None)
        return self._peeked

    def _whole(self, run: range, wanted: frozenset[int]) -> list[_Decoded]:
        """The longest whole part of a run, for which the decoder may leave out what is not wanted."""
        self._source.wanted = wanted if self._may_skip else None
        skipped = self._source.skipped
        behind = run.start < self._passed or not self._stamps_about([run]).isdisjoint(skipped)
        whole = _longest_part(self._read(run, behind))
        if len(whole) < len(run) and self._source.skipped:
            # Whatever is wrong with this clip, what was left out may not add to it.
            self._may_skip, self._source.wanted = False, None
            whole = _longest_part(self._read(run, behind=True))
        return whole

    def _stamps_about(self, runs: list[range]) -> frozenset[int]:
        """Stamps of the frames in some runs and of those next to them, which deinterlacing looks at."""
        stamps = self._scan.stamps
        return frozenset(stamp for run in runs for stamp in stamps[max(run.start - 1, 0) : run.stop + 1])

    def _read(self, run: range, behind: bool) -> list[_Decoded]:
        """What can be decoded of a run, in the clip's size."""
        self._approach(run.start, behind)
        found: list[_Decoded] = []
        while (decoded := self._peek()) is not None and decoded.index < run.stop:
            self._peeked = None
            self.frames_decoded += decoded.index + 1 - self._passed
            self._passed = decoded.index + 1
            if decoded.index < run.start:
                self._previous = decoded
            elif (decoded.picture.width, decoded.picture.height) == self._size:
                found.append(decoded)
            else:
                at = self.times_s[decoded.index]
                self._resized = self._resized or f"the picture changes its size after {at:.2f} s"
        return found

    def _approach(self, index: int, behind: bool) -> None:
        """Bring the decoder so near to a frame that decoding on is the cheapest way to it.

        It then stands before that frame's predecessor at the latest, which deinterlacing looks at.
        behind: decoding on does not lead there.
        """
        here = self._passed
        at = bisect_right(self._keys, max(index - 1, 0)) - 1
        if self._may_seek and at >= 0 and (behind or self._keys[at] > here + _WORTH_SEEKING):
            key = self._keys[at]
            self._start(self._scan.stamps[key])
            first = self._peek()
            if first is not None and first.index <= key:
                self._passed = first.index
                return
            # The container's index leads elsewhere, so it is not asked again.
            self._may_seek = False
            self._start(None)
        elif behind:
            self._start(None)

    def _progressive(self, run: list[_Decoded]) -> list[VideoFrame]:
        pictures = [d.picture for d in run]
        before, after = self._previous, None
        self._previous = run[-1]
        if not any(p.interlaced_frame for p in pictures) or not all(
            _same_kind(p, pictures[0]) for p in pictures
        ):
            return pictures
        after = self._peek()
        return deinterlace(
            before.picture if before and _adjoins(before, run[0], -1) else None,
            pictures,
            after.picture if after and _adjoins(after, run[-1], 1) else None,
        )


def _adjoins(other: _Decoded, decoded: _Decoded, step: int) -> bool:
    """Whether `other` is the very next or last frame and can be filtered together with this one."""
    return other.index == decoded.index + step and _same_kind(other.picture, decoded.picture)


def _same_kind(a: VideoFrame, b: VideoFrame) -> bool:
    return (a.width, a.height, a.format.name) == (b.width, b.height, b.format.name)


def open_clip(path: Path, limits: Limits | None = None, *, threads: int = 1) -> Clip:
    """Open a picture or a video; a context manager.

    threads: those of the decoder. Raises UnsupportedMedia, UndecodableMedia, NoVideoStream,
    NoFrames, PictureTooSmall or PictureTooLarge; OSError when the file itself can not be read.
    """
    limits = limits or Limits()
    demuxer = sniff_file(path)
    orientation = picture_orientation(path, demuxer, limits)
    source: Source
    if demuxer == ANIMATED_WEBP:
        source = WebpSource(path, limits)
    else:
        source = LibavSource(path, demuxer, limits, threads)
    try:
        return Clip(source, demuxer, limits, orientation)
    except BaseException:
        source.close()
        raise


def _agreed(scan: Scan, probed: list[VideoFrame]) -> Scan | None:
    """The scan, if its times can be relied on after seeing the first pictures; otherwise None.

    Frames before the first picture are left out: nothing decodes without a key frame.
    """
    if scan.order == "counted" and scan.stamps:
        return scan
    if scan.order == "unknown" or probed[0].pts not in scan.stamps:
        return None
    lead = scan.stamps.index(probed[0].pts)
    stamps = scan.stamps[lead:]
    return replace(scan, stamps=stamps) if stamps[: len(probed)] == [p.pts for p in probed] else None


def _longest_part(run: list[_Decoded]) -> list[_Decoded]:
    """The longest part of consecutive frames, the first of several."""
    parts: list[list[_Decoded]] = []
    for decoded in run:
        if parts and parts[-1][-1].index == decoded.index - 1:
            parts[-1].append(decoded)
        else:
            parts.append([decoded])
    return max(parts, key=len, default=[])
