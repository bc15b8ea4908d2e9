"""Where on a face the evidence of its most suspicious looks lies: parts of it are taken away in turn.

After M. Zeiler and R. Fergus, "Visualizing and understanding convolutional networks" (ECCV 2014). Nothing is
approximated and no gradient is needed: a model of native windows is asked again without the features of
single windows, one of aligned crops with a cell of the crop replaced by its local mean. A step of the LSTM
depends on those before it alone, so that each question ends with the look that it is about.

Each map is tested: taking away the cells that it names has to lower the score at least as much as taking
away as many at random does, in all of some draws, or it is withheld (the deletion test of V. Petsiuk, A. Das
and K. Saenko, "RISE", BMVC 2018, at one area). Of maps that say nothing one in `DRAWS` + 1 passes.

What is asked leaves as `Encode` or `Score`, so that this runs in a service's shared batches as on an engine.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import cv2
import numpy as np

from pipeline.answer import Answer, ExplainedFrame, Explanation, Face, Faithfulness
from pipeline.bundle import Bundle, Manifest
from pipeline.evidence import LookAt, looks_at, most_suspicious, rounded, seconds
from pipeline.frames import F32, U8
from pipeline.overlay import Picture, picture
from pipeline.prepared import Outline
from pipeline.scores import TrackScores, log_odds
from pipeline.spec import CropSpec

MOST_FRAMES, MOST_FRAMES_IN_ALL = 3, 6
"""Looks explained of one face and, of several faces, of all; the cost grows with them."""
AREA = 1 / 3
"""Share of the cells that the deletion test takes away, in whole cells."""
DRAWS = 19
SEED = 14
OCCLUSION_GRID = 4
"""Cells along each side of an aligned crop. Each costs a run of the encoder."""
DIGITS = 4
AT_ONCE = 16
"""What is asked at once at most: a sequence of the paper's network has a megabyte."""

WITHHELD = {
    "low_score": "the score is below the threshold for authentic, so that there is nothing to explain",
    "not_judged": "the face is left out of the verdict",
    "many_faces": f"only the {MOST_FRAMES_IN_ALL} most suspicious faces are explained",
    "not_better_than_random": f"at least one of {DRAWS} choices by lot of as many parts lowers the score "
    "as much as taking away those that the map names",
    "out_of_time": "the deadline came first",
}
"""Why there is no map."""

T = TypeVar("T")
Removal = tuple[LookAt, frozenset[int]]
"""A look, and the cells that are taken away from it."""


@dataclass(frozen=True, slots=True)
class Encode:
    """Asks for the features, float32 [D], of samples, uint8 [F, S, S, 3]."""

    samples: list[U8]


@dataclass(frozen=True, slots=True)
class Score:
    """Asks for the `TrackScores` of sequences, float32 [T, D]."""

    sequences: list[F32]


Asked = Encode | Score
Work = Generator[Asked, Any, T]
"""Work that asks the two graphs, and is sent a list of what it asked for."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What was encoded of a face: features float32 [T, D], and samples uint8 [T, F, S, S, 3], of which
    `frames_needed` frames are enough."""

    features: F32
    samples: U8


def method_of(crop: CropSpec) -> Literal["window-ablation", "occlusion"]:
    """How faces are explained that are cut so."""
    return "window-ablation" if crop.samples_per_burst > 1 else "occlusion"


def frames_needed(crop: CropSpec) -> int:
    """Frames of each sample that explaining needs."""
    return 1 if method_of(crop) == "window-ablation" else crop.frames


def explained(
    answer: Answer,
    clip: Outline,
    scores: Sequence[TrackScores],
    shown: Callable[[int], Shown],
    bundle: Bundle,
) -> Work[Answer]:
    """The answer with an explanation of each face. shown: of the track at a place of `clip.tracks`."""
    manifest = bundle.manifest
    suspicious = sorted(
        (k for k, face in enumerate(answer.faces) if _why_not(face, manifest) is None),
        key=lambda k: -_fake(answer.faces[k]),
    )[:MOST_FRAMES_IN_ALL]
    count = min(MOST_FRAMES, MOST_FRAMES_IN_ALL // max(1, len(suspicious)))
    faces = []
    for k, face in enumerate(answer.faces):
        if k in suspicious:
            looks = most_suspicious(looks_at(clip.tracks[k], scores[k], manifest), count)
            explanation = yield from _Face(looks, scores[k], shown(k), clip, manifest).explanation()
        else:
            explanation = _nothing(manifest.crop, _why_not(face, manifest) or "many_faces")
        faces.append(face.model_copy(update={"explanation": explanation}))
    return answer.model_copy(update={"faces": faces})


def unexplained(answer: Answer, manifest: Manifest, why: str) -> Answer:
    """The answer with every explanation withheld, for this reason where a face has none of its own."""
    faces = [
        f.model_copy(update={"explanation": _nothing(manifest.crop, _why_not(f, manifest) or why)})
        for f in answer.faces
    ]
    return answer.model_copy(update={"faces": faces})


class _Face:
    """The most suspicious looks at one face."""

    def __init__(
        self, looks: list[LookAt], scores: TrackScores, shown: Shown, clip: Outline, manifest: Manifest
    ) -> None:
        self._looks, self._scores, self._shown = looks, scores, shown
        self._clip, self._manifest = clip, manifest
        crop = manifest.crop
        self._side = crop.grid if method_of(crop) == "window-ablation" else OCCLUSION_GRID
        self._cells = self._side**2
        self._removed = max(1, round(AREA * self._cells))

    def explanation(self) -> Work[Explanation]:
        """The explanation of the face."""
        least = self._manifest.calibration.thresholds.authentic_below
        high = [look for look in self._looks if look.fake >= least]
        singles = [frozenset({c}) for c in range(self._cells)]
        effects, tests = yield from self._tested(high, singles)
        scale = max((float(np.abs(e).max()) for e in effects), default=0.0)
        frames = []
        for n, look in enumerate(self._looks):
            if n < len(high):
                faithful, test = tests[n]
                frames.append(self._frame(look, effects[n] if faithful else None, test, scale))
            else:
                frames.append(self._frame(look, None, None, scale))
        withheld = frames[0].withheld if all(f.grid is None for f in frames) else None
        return Explanation(method=method_of(self._manifest.crop), withheld=withheld, frames=frames)

    def _tested(
        self, looks: list[LookAt], singles: list[frozenset[int]]
    ) -> Work[tuple[list[F32], list[tuple[bool, Faithfulness]]]]:
        """By how much each cell moves each look's log-odds, and whether and how far that is faithful."""
        draws = _draws(self._cells, self._removed)
        falls = yield from self._falls([(look, cells) for look in looks for cells in [*singles, *draws]])
        by_look = np.array(falls).reshape(len(looks), len(singles) + DRAWS)
        effects, random = by_look[:, : self._cells], by_look[:, self._cells :]
        named = [frozenset(np.argsort(-e, kind="stable")[: self._removed].tolist()) for e in effects]
        deletions = yield from self._falls(list(zip(looks, named, strict=True)))
        tests = []
        for deletion, drawn in zip(deletions, random, strict=True):
            mean = round(float(drawn.mean()), DIGITS)
            faithful = deletion >= drawn.max() and deletion > mean
            area = round(self._removed / self._cells, DIGITS)
            tests.append((faithful, Faithfulness(deletion=deletion, random=mean, area=area)))
        return list(effects), tests

    def _falls(self, removals: list[Removal]) -> Work[list[float]]:
        """By how much a look's calibrated log-odds fall with each removal, rounded."""
        calibration = self._manifest.calibration
        falls = []
        for at in range(0, len(removals), AT_ONCE):
            some = removals[at : at + AT_ONCE]
            sequences = yield from self._without(some)
            scored: list[TrackScores] = yield Score(sequences)
            for (look, _), scores in zip(some, scored, strict=True):
                whole = float(self._scores.steps[look.first : look.stop, 1].mean())
                rest = float(scores.steps[look.first :, 1].mean())
                falls.append(round(log_odds(whole, calibration) - log_odds(rest, calibration), DIGITS))
        return falls

    def _without(self, removals: list[Removal]) -> Work[list[F32]]:
        """Sequences that end with the look, after each removal."""
        features = self._shown.features
        if method_of(self._manifest.crop) == "window-ablation":
            return [
                np.delete(features[: look.stop], [look.first + c for c in cells], axis=0)
                for look, cells in removals
            ]
        occluded = [_occluded(self._shown.samples[look.first], cells) for look, cells in removals]
        encoded: list[F32] = yield Encode(occluded)
        return [
            np.concatenate([features[: look.first], one[None]])
            for (look, _), one in zip(removals, encoded, strict=True)
        ]

    def _frame(
        self, look: LookAt, effects: F32 | None, test: Faithfulness | None, scale: float
    ) -> ExplainedFrame:
        media, samples = self._clip.media, self._shown.samples[look.first : look.stop, 0]
        seen: Picture = picture(samples, look.box, media.width, media.height, self._manifest.crop)
        grid = None if effects is None else effects.reshape(self._side, self._side)
        code = None if grid is not None else "not_better_than_random" if test else "low_score"
        return ExplainedFrame(
            time_s=seconds(look.time_s),
            fake=look.fake,
            box=rounded(look.box),
            region=rounded(seen.region),
            grid=None if grid is None else [[float(v) for v in row] for row in grid],
            faithfulness=test,
            overlay=None if grid is None else seen.overlaid(grid, scale),
            withheld=code and _said(code),
        )


def _draws(cells: int, removed: int) -> list[frozenset[int]]:
    """The same random cells for every look of every clip."""
    rng = np.random.default_rng(SEED)
    return [frozenset(rng.choice(cells, removed, replace=False).tolist()) for _ in range(DRAWS)]


def _occluded(sample: U8, cells: frozenset[int]) -> U8:
    """A sample, uint8 [F, S, S, 3], with cells replaced by their local mean in every frame."""
    side = sample.shape[1]
    edges = np.linspace(0, side, OCCLUSION_GRID + 1).round().astype(int)
    width = -(-side // OCCLUSION_GRID)
    hidden = sample.copy()
    for frame, seen in zip(hidden, sample, strict=True):
        mean = cv2.blur(seen, (width, width))
        for cell in cells:
            row, column = divmod(cell, OCCLUSION_GRID)
            part = (slice(edges[row], edges[row + 1]), slice(edges[column], edges[column + 1]))
            frame[part] = mean[part]
    return hidden


def _fake(face: Face) -> float:
    return face.probabilities.fake if face.probabilities else 0.0


def _why_not(face: Face, manifest: Manifest) -> str | None:
    """Why a face is not to be explained, if so."""
    if not face.usable:
        return "not_judged"
    return "low_score" if _fake(face) < manifest.calibration.thresholds.authentic_below else None


def _nothing(crop: CropSpec, code: str) -> Explanation:
    return Explanation(method=method_of(crop), withheld=_said(code), frames=[])


def _said(code: str) -> str:
    return f"{code}: {WITHHELD[code]}"
