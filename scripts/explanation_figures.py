"""Explains the faces of clips and prints the table of docs/explanations.md: how often, how well, how long.

python scripts/explanation_figures.py --clips 'clips/fake__*.mp4' models/NAME ...
"""

import argparse
import glob
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.answer import Answer, ExplainedFrame
from pipeline.bundle import Bundle, open_bundle
from pipeline.detect import FaceDetector
from pipeline.detect.registry import open_detector
from pipeline.engine import Engine, driven, encoded, scored
from pipeline.errors import MediaError
from pipeline.explain import Shown, explained
from pipeline.media import Limits
from pipeline.prepare import prepare
from pipeline.runtime import usable_cores
from pipeline.verdict import decide

COLUMNS = (
    "Model",
    "Clips",
    "Faces",
    "explained",
    "Looks",
    "with a map",
    "of low score",
    "no better than random",
    "Deletion",
    "Random",
    "Seconds a face",
    "of both graphs before",
)


@dataclass
class Seen:
    """What was seen of all clips."""

    clips: int = 0
    faces: int = 0
    explained: int = 0
    frames: list[ExplainedFrame] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    scoring_s: list[float] = field(default_factory=list)


def main() -> None:
    """Print a row for each bundle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--clips", required=True, help="pattern of their paths")
    parser.add_argument("--every", type=int, default=1, help="take every so many of them")
    given = parser.parse_args()
    clips = sorted(glob.glob(given.clips))[:: given.every]  # noqa: PTH207 - a pattern may begin anywhere
    detector = open_detector("yunet", threads=1)
    print(f"{len(clips)} clips, {usable_cores()} threads\n")  # noqa: T201
    print(line(COLUMNS), line(["---"] * len(COLUMNS)), sep="\n")  # noqa: T201
    for path in given.bundles:
        bundle = open_bundle(path, allow_untrained=True)
        engine = Engine(bundle)
        seen = Seen()
        for clip in clips:
            look_at(Path(clip), bundle, engine, detector, seen)
        print(row(bundle.manifest.id, seen), flush=True)  # noqa: T201


def look_at(path: Path, bundle: Bundle, engine: Engine, detector: FaceDetector, seen: Seen) -> None:
    """Explain one clip."""
    crop, sampling = bundle.manifest.crop, bundle.manifest.sampling
    try:
        clip = prepare(path, crop=crop, sampling=sampling, detector=detector, limits=Limits())
    except MediaError:
        return
    began = time.perf_counter()
    features = encoded(engine, clip)
    scores = scored(engine, features)
    answer = decide(clip, scores, bundle, explain=True)
    shown = [Shown(f, t.samples) for f, t in zip(features, clip.tracks, strict=True)]
    between = time.perf_counter()
    answer = driven(engine, explained(answer, clip, scores, shown.__getitem__, bundle))
    add(answer, between - began, time.perf_counter() - between, seen)


def add(answer: Answer, scoring_s: float, explaining_s: float, seen: Seen) -> None:
    """Count what an answer holds."""
    done = [f.explanation for f in answer.faces if f.explanation and f.explanation.frames]
    seen.clips += 1
    seen.faces += len(answer.faces)
    seen.explained += len(done)
    seen.frames += [frame for explanation in done for frame in explanation.frames]
    if done:
        seen.seconds.append(explaining_s / len(done))
        seen.scoring_s.append(scoring_s / len(answer.faces))


def row(name: str, seen: Seen) -> str:
    """The figures of one bundle as a row."""
    maps = [f for f in seen.frames if f.grid is not None]
    tested = [f.faithfulness for f in seen.frames if f.faithfulness is not None]
    low = sum((f.withheld or "").startswith("low_score") for f in seen.frames)
    cells = [
        f"`{name}`",
        seen.clips,
        seen.faces,
        seen.explained,
        len(seen.frames),
        len(maps),
        low,
        len(tested) - len(maps),
        median([t.deletion for t in tested]),
        median([t.random for t in tested]),
        f"{median(seen.seconds)} (to {max(seen.seconds, default=0):.2f})",
        median(seen.scoring_s),
    ]
    return line(cells)


def line(cells: Iterable[object]) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(map(str, cells))} |"


def median(values: list[float]) -> str:
    """The median with two digits, a dash of nothing."""
    return f"{statistics.median(values):.2f}" if values else "-"


if __name__ == "__main__":
    main()
