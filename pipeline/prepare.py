"""From a file to samples: decode, detect, track and crop in one pass over the clip."""

import hashlib
import time
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from pipeline.c2pa import c2pa_of
from pipeline.decode import Clip, open_clip
from pipeline.detect import FaceDetector
from pipeline.frames import U8, Burst
from pipeline.link import Linker, linked
from pipeline.look import Clock, Look, Looker
from pipeline.media import Limits
from pipeline.prepared import Coverage, Cut, MediaFacts, Outline, PreparedClip
from pipeline.sample import plan_bursts, spread_first
from pipeline.spec import CropSpec, SamplingSpec
from pipeline.track import MAX_GAP_S

GAP_BURSTS = 1.6
"""A face may be missed in one burst, not in two, and still be the same track."""

DECODE_S_PER_PIXEL, LOOK_S = 4e-9, 0.05
AMPLE = 3.0
"""A budget that is so many times what a clip should take, by these guesses for one slow core, is ample. The
guesses decide about an order, never about an answer that is whole."""


def prepare(
    path: Path,
    *,
    crop: CropSpec,
    sampling: SamplingSpec,
    detector: FaceDetector,
    limits: Limits,
    max_faces: int = 8,
    threads: int = 1,
) -> PreparedClip:
    """Decode the clip at `path` once and cut the samples that a bundle's model wants to see.

    At most `max_faces` tracks are kept, those with the most and largest samples. A burst that has
    fewer frames than a sample needs is not cut: a model of motion is never shown a frozen picture.
    threads: of the decoder. Raises MediaError subclasses for anything wrong with the file.
    """
    cuts: dict[Cut, U8] = {}
    with open_clip(path, limits, threads=threads) as clip:
        preparation = Preparation(path, clip, crop, sampling, detector, max_faces=max_faces)
        for look in preparation.looks():
            cuts |= {(look.number, k): samples for k, samples in enumerate(look.samples)}
        return preparation.outline().filled(cuts)


class Preparation:
    """A clip that is looked at burst by burst; between any two looks it can be told what was seen so far.

    No more than one burst of frames is held, and samples of one look. budget_s: seconds from now in which
    looking has to end. Where they are scarce the looks are spread over the clip first and grow denser then,
    which costs decoding anew; otherwise they go forwards in time. sha256: of the file, in hexadecimal, where
    it is known.
    """

    def __init__(
        self,
        path: Path,
        clip: Clip,
        crop: CropSpec,
        sampling: SamplingSpec,
        detector: FaceDetector,
        *,
        max_faces: int,
        budget_s: float | None = None,
        sha256: str | None = None,
    ) -> None:
        self._path, self._clip, self._sampling, self._max_faces = path, clip, sampling, max_faces
        self._clock = Clock()
        self._looker = Looker(
            crop, detector, detect_every=sampling.detect_every, max_faces=max_faces, clock=self._clock
        )
        self._plan = plan_bursts(clip.times_s, sampling)
        self._until = None if budget_s is None else time.monotonic() + budget_s
        scarce = budget_s is not None and budget_s < AMPLE * self._expected_s()
        self._forwards = sampling.spread == "head" or not scarce
        self._linker = Linker(_gap(clip, self._plan))
        self._looks: list[Look] = []
        self._bursts, self._frames, self._seconds = 0, 0, 0.0
        self._spans: list[tuple[float, float]] = []
        self._whole = False
        self._sha256 = sha256
        self._c2pa = c2pa_of(path, clip.container)

    @property
    def planned(self) -> int:
        """Bursts in which a face is wanted; those of `head` may be found later in the clip."""
        return min(len(self._plan), self._sampling.bursts)

    def looks(self) -> Iterator[Look]:
        """Look at each burst of the plan, until the budget is spent; at the first in any case.

        With `head`, until some face was cut from as many bursts as were asked for.
        """
        count = len(self._plan)
        order = list(range(count)) if self._forwards else spread_first(count)
        bursts = self._clip.bursts([self._plan[k] for k in order])
        starts = [run.start for run in self._plan]
        while (burst := self._next(bursts)) is not None:
            number = bisect_right(starts, burst[0].index) - 1
            look = self._looker.look(number, burst, _span(burst, self._clip))
            self._take(look, burst[0].time_s)
            yield look
            if self._sampling.spread == "head" and self._linker.most_looks >= self._sampling.bursts:
                break
            if self._until is not None and time.monotonic() >= self._until and self._bursts < count:
                return
        self._whole = True

    def outline(self) -> Outline:
        """The clip as far as it was looked at."""
        linker = self._linker if self._forwards else self._linked()
        duration = self._clip.duration_s
        fraction = min(1.0, self._seconds / duration) if duration > 0 else 1.0
        why = self._clip.truncated or self._clip.damage
        if not self._whole:
            why = f"the deadline came when {self._bursts} of {len(self._plan)} bursts had been looked at"
        return Outline(
            self._facts(),
            Coverage(
                seconds_looked_at=round(self._seconds, 3),
                fraction=round(fraction, 4),
                bursts=self._bursts,
                truncated=why is not None,
                why=why,
                expired=not self._whole,
                planned=self.planned,
                spans=tuple(sorted(self._spans)),
            ),
            linker.tracks(self._max_faces),
            linker.faces_seen,
            dict(self._clock.ms),
        )

    def _next(self, bursts: Iterator[Burst]) -> Burst | None:
        with self._clock.stage("decode"):
            return next(bursts, None)

    def _take(self, look: Look, start_s: float) -> None:
        self._bursts += 1
        self._frames += look.frames
        self._seconds += look.seconds
        self._spans.append((round(start_s, 3), round(start_s + look.seconds, 3)))
        if self._forwards:
            self._linker.add(look)
        else:
            self._looks.append(replace(look, samples=[]))

    def _linked(self) -> Linker:
        """The looks so far, which lie farther apart than those of the whole plan."""
        taken = sorted(look.number for look in self._looks)
        return linked(self._looks, _gap(self._clip, [self._plan[k] for k in taken]))

    def _expected_s(self) -> float:
        """What it takes to decode all that lies before the end of the plan, and to look."""
        frames = self._plan[-1].stop if self._plan else 0
        return DECODE_S_PER_PIXEL * frames * self._clip.width * self._clip.height + LOOK_S * len(self._plan)

    def _facts(self) -> MediaFacts:
        clip = self._clip
        if self._sha256 is None:
            with self._path.open("rb") as f:
                self._sha256 = hashlib.file_digest(f, "sha256").hexdigest()
        return MediaFacts(
            sha256=self._sha256,
            bytes=self._path.stat().st_size,
            container=clip.container,
            codec=clip.codec,
            width=clip.width,
            height=clip.height,
            duration_s=round(clip.duration_s, 3),
            frame_rate=round(clip.frame_rate, 3),
            frames_decoded=clip.frames_decoded,
            frames_used=self._frames,
            c2pa=self._c2pa,
        )


def _gap(clip: Clip, plan: list[range]) -> float:
    """How long a face may go unseen: longer where bursts lie farther apart."""
    starts = [clip.times_s[run.start] for run in plan]
    between = max((b - a for a, b in pairwise(starts)), default=0.0)
    return max(MAX_GAP_S, GAP_BURSTS * between)


def _span(burst: Burst, clip: Clip) -> float:
    """Seconds for which the frames of a burst are shown."""
    one = 1 / clip.frame_rate if clip.frame_rate > 0 else clip.duration_s / len(clip.times_s)
    return burst[-1].time_s - burst[0].time_s + one
