"""Encodes clips anew, ever more coarsely, and prints the tables of docs/training-log.md on heavy compression:
how the quantiser of a face relates to what becomes of its score.

PYTHONPATH=. python scripts/compression_figures.py --corpus CORPUS --rows rows.csv models/NAME

Rows that are in --rows already are kept, so that a run may be broken off and started again.
"""

import argparse
import csv
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from pipeline.answer import Face
from pipeline.bundle import Thresholds, open_bundle
from pipeline.detect.registry import open_detector
from pipeline.engine import Engine, score
from pipeline.errors import MediaError
from pipeline.media import Limits
from pipeline.prepare import prepare
from pipeline.quality import MAX_QUANTISER
from pipeline.verdict import cut, decide, widened
from training.corpus import ClipRow, read_corpus
from training.metrics import F64, auc
from training.transcode import Condition, Encoder, under

SPLIT = "train"
"""A threshold that is chosen by these figures may not be chosen on the other split."""

PUBLISHED = "as published"
LEVELS: dict[Encoder | None, tuple[int, ...]] = {
    None: (0,),
    "libx264": (18, 24, 28, 32, 36, 40),
    "libx265": (18, 24, 30),
    "libvpx-vp9": (24, 36, 48, 60),
    "mpeg4": (2, 4, 8, 16, 31),
}
OTHERS = ("libx265", "libvpx-vp9", "mpeg4")
BASE = ("libx264", 18)
"""From the score at this one drift is counted."""
EDGES = (0, 20, 24, 28, 30, 32, 34, 36, 38, 40, 44, 52)


@dataclass(frozen=True, slots=True)
class Row:
    """The weightiest face of a clip under one condition: quantiser, and calibrated score; NaN without."""

    file: str
    fake: bool
    encoder: str
    level: int
    quantiser: float
    score: float


def main() -> None:
    """Encode and judge what --rows lacks, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--corpus", required=True, type=Path)
    parser.add_argument("--rows", required=True, type=Path, help="CSV that is read and added to")
    parser.add_argument("--every", type=int, default=1, help="take every so many clips")
    parser.add_argument("--others-every", type=int, default=6, help="and with other encoders than x264")
    given = parser.parse_args()
    rows = known(given.rows)
    done = {(r.file, r.encoder, r.level) for r in rows}
    clips = read_corpus(given.corpus).split(SPLIT)
    planned = list(plan(clips, given.every, given.others_every))
    wanted = [(c, e, level) for c, e, level in planned if (c.file, e or PUBLISHED, level) not in done]
    judge = judge_of(given.bundle)
    with given.rows.open("a", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, [field.name for field in fields(Row)])
        if not rows:
            writer.writeheader()
        for clip, encoder, level in wanted:
            quantiser, fake = look_at(given.corpus / clip.file, encoder, level, judge)
            rows.append(Row(clip.file, clip.fake, encoder or PUBLISHED, level, quantiser, fake))
            writer.writerow(asdict(rows[-1]))
            f.flush()
    asked = {(clip.file, encoder or PUBLISHED, level) for clip, encoder, level in planned}
    judged = [r for r in rows if (r.file, r.encoder, r.level) in asked and np.isfinite(r.score)]
    based = {r.file for r in judged if (r.encoder, r.level) == BASE}
    found = [r for r in judged if r.file in based]
    plain = open_bundle(given.bundle).manifest.calibration.thresholds
    for table in (by_condition(found, plain), by_quantiser(found), [moved(plain)]):
        print("\n".join(table), end="\n\n")  # noqa: T201


def known(path: Path) -> list[Row]:
    """The rows of a file, none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as f:
        return [
            Row(
                r["file"],
                r["fake"] == "True",
                r["encoder"],
                int(r["level"]),
                float(r["quantiser"]),
                float(r["score"]),
            )
            for r in csv.DictReader(f)
        ]


def plan(
    clips: list[ClipRow], every: int, others_every: int
) -> Iterator[tuple[ClipRow, Encoder | None, int]]:
    """Each `every`-th clip with each level, and each `others_every`-th with other encoders than x264 too."""
    for k, clip in enumerate(clips):
        for encoder, levels in LEVELS.items():
            if k % (others_every if encoder in OTHERS else every) == 0:
                yield from ((clip, encoder, level) for level in levels)


def judge_of(path: Path) -> Callable[[Path], Face | None]:
    """What finds the weightiest face of a clip, through the bundle at a path."""
    cv2.setNumThreads(1)
    bundle = open_bundle(path)
    engine, detector = Engine(bundle, threads=1), open_detector("yunet", threads=1)

    def judge(clip: Path) -> Face | None:
        crop, sampling = bundle.manifest.crop, bundle.manifest.sampling
        try:
            found = prepare(clip, crop=crop, sampling=sampling, detector=detector, limits=Limits())
        except MediaError:
            return None
        faces = decide(found, score(engine, found), bundle).faces
        return max(faces, key=lambda f: len(f.boxes) * f.quality.size_px, default=None)

    return judge


def look_at(
    clip: Path, encoder: Encoder | None, level: int, judge: Callable[[Path], Face | None]
) -> tuple[float, float]:
    """Quantiser and score of a clip's weightiest face, each NaN where there is none."""
    with tempfile.TemporaryDirectory() as scratch:
        if encoder is not None:
            clip = under(Condition(crf=level, encoder=encoder), clip, Path(scratch) / "clip.mp4")
        face = judge(clip)
    if face is None or face.probabilities is None:
        return float("nan"), float("nan")
    quantiser = face.quality.quantiser
    return float("nan") if quantiser is None else quantiser, face.probabilities.fake


def by_condition(rows: list[Row], plain: Thresholds) -> Iterator[str]:
    """A table of encoders and levels, the coarsest last."""
    yield line(["Encoder", "level", "clips", "quantiser", "remarked", *COMMON, *CALLS])
    yield line(["---"] * (5 + len(COMMON) + len(CALLS)))
    for encoder, levels in LEVELS.items():
        name = encoder or PUBLISHED
        for level in levels:
            some = [r for r in rows if (r.encoder, r.level) == (name, level)]
            told = np.array([r.quantiser for r in some])
            found = ["not told", "-"]
            if np.isfinite(told).all():
                low, middle, high = (f"{v:.0f}" for v in np.percentile(told, (5, 50, 95)))
                found = [f"{middle} ({low} to {high})", f"{np.mean(told > MAX_QUANTISER):.0%}"]
            yield line([name, level or "", len(some), *found, *common(some, rows), *calls(some, plain)])


def by_quantiser(rows: list[Row]) -> Iterator[str]:
    """A table of what x264 wrote, by the quantiser that was found."""
    yield line(["Quantiser", "clips", *COMMON])
    yield line(["---"] * (2 + len(COMMON)))
    for low, high in pairwise(EDGES):
        some = [r for r in rows if r.encoder == BASE[0] and low <= r.quantiser < high]
        yield line([f"{low} to {high}", len(some), *common(some, rows)])


COMMON = ("drift, median", "of one in ten", "AUC", "of the same clips at crf 18")


def common(some: list[Row], rows: list[Row]) -> list[str]:
    """By how many logits some scores have drifted from those of the same clips at `BASE`; both AUCs."""
    base = {r.file: r.score for r in rows if (r.encoder, r.level) == BASE}
    scores, before = np.array([r.score for r in some]), np.array([base[r.file] for r in some])
    fake = np.array([r.fake for r in some], np.bool_)
    drift = np.abs(logit(scores) - logit(before))
    return [f"{v:.2f}" for v in (*np.percentile(drift, (50, 90)), auc(fake, scores), auc(fake, before))]


CALLS = ("genuine called manipulated", "forged called authentic")


def calls(some: list[Row], plain: Thresholds) -> Iterator[str]:
    """How many faces are called what they are not, without the remark and with it."""
    for fake, wrong in ((False, "manipulated"), (True, "authentic")):
        of_kind = [r for r in some if r.fake is fake]
        doubts = [int(r.quantiser > MAX_QUANTISER) for r in of_kind]
        without = sum(cut(r.score, plain) == wrong for r in of_kind)
        with_it = sum(cut(r.score, widened(plain, n)) == wrong for r, n in zip(of_kind, doubts, strict=True))
        yield f"{without}, then {with_it} of {len(of_kind)}"


def moved(plain: Thresholds) -> str:
    """By how many logits one remark moves these thresholds."""
    wide = widened(plain, 1)
    ends = ((wide.authentic_below, plain.authentic_below), (wide.manipulated_above, plain.manipulated_above))
    lower, upper = (abs(logit(np.array(a)) - logit(np.array(b))) for a, b in ends)
    return f"One remark moves the lower threshold by {lower:.2f} logits, the upper one by {upper:.2f}."


def logit(probability: F64) -> F64:
    """Log-odds."""
    return np.asarray(np.log(probability / (1 - probability)), np.float64)


def line(cells: Iterable[object]) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
