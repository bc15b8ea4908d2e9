"""Figures of a bundle on a labelled corpus, scored through the bundle and the service's own pipeline."""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.bundle import open_bundle
from pipeline.engine import Engine, score
from pipeline.errors import MediaError
from pipeline.prepared import PreparedClip
from pipeline.runtime import usable_cores
from pipeline.verdict import decide
from training.card import write_card
from training.corpus import ClipRow, Corpus, read_corpus
from training.judge import fake_of
from training.metrics import F64, auc, bootstrap, calibration_error, matched_auc, share
from training.transcode import transcode
from training.windows import detector, samples_of

CONDITIONS: dict[str, dict[str, float]] = {
    "as published": {},
    "re-encoded, H.264 crf 28": {"crf": 28, "scale": 1.0},
    "scaled to 2/3, H.264 crf 23": {"crf": 23, "scale": 2 / 3},
}


@dataclass(frozen=True, slots=True)
class Scored:
    """One clip's answer: calibrated probability of fake and verdict (None: not applicable), and the
    mean absolute second difference of the luma that was looked at."""

    fake: float | None
    verdict: str
    sharpness: float


def evaluate(bundle: Path, data: Path, *, workers: int = 0) -> dict[str, Any]:
    """Figures on the split `measure` of the corpus at `data`, each with its 95% interval by person.

    workers: processes, 0 for all usable cores. Raises BundleError or CorpusError. Clips that can
    not be decoded count as not applicable.
    """
    corpus = read_corpus(data)
    rows = corpus.split("measure")
    paired = sorted({file for p in corpus.pairs for file in (p.real, p.fake)})
    conditions = {
        name: score_clips(bundle, data, [r.file for r in rows], how, workers)
        for name, how in CONDITIONS.items()
    }
    pairs = score_clips(bundle, data, paired, {}, workers)
    return {
        "clips": len(rows),
        "not_applicable": sum(s.fake is None for s in conditions["as published"].values()),
        "auc": _aucs(rows, conditions),
        "pairs": _pairs(corpus, pairs),
        **_at_thresholds(rows, conditions["as published"]),
    }


def score_clips(
    bundle: Path, root: Path, files: Iterable[str], how: dict[str, float], workers: int = 0
) -> dict[str, Scored]:
    """Answers of a bundle for clips below `root`, each encoded once more if `how` says so."""
    names = list(files)
    with ProcessPoolExecutor(
        workers or usable_cores(), get_context("spawn"), initializer=_open, initargs=(bundle,)
    ) as pool:
        scored = pool.map(partial(_score, how), [root / n for n in names], chunksize=4)
        return dict(zip(names, scored, strict=True))


_worker: dict[str, Any] = {}


def _open(bundle: Path) -> None:
    _worker["engine"] = Engine(open_bundle(bundle, allow_untrained=True), threads=1)
    _worker["detector"] = detector()


def _score(how: dict[str, float], path: Path) -> Scored:
    engine: Engine = _worker["engine"]
    manifest = engine.bundle.manifest
    with tempfile.TemporaryDirectory() as scratch:
        try:
            if how:
                again = Path(scratch) / "clip.mp4"
                path = transcode(path, again, crf=int(how["crf"]), scale=how["scale"])
            clip = samples_of(path, manifest.crop, manifest.sampling, _worker["detector"])
        except MediaError:
            return Scored(None, "not_applicable", float("nan"))
    answer = decide(clip, score(engine, clip), engine.bundle, timeline=False)
    return Scored(fake_of(answer), answer.verdict, sharpness(clip))


def sharpness(clip: PreparedClip) -> float:
    """Mean absolute second difference of the luma of a clip's largest track; NaN without a track."""
    if not clip.tracks:
        return float("nan")
    track = max(clip.tracks, key=lambda t: len(t.samples) * t.quality.size_px)
    luma = track.samples[:, 0, :, :, 0].astype(np.float32)
    vertical = 2 * luma[:, 1:-1] - luma[:, :-2] - luma[:, 2:]
    horizontal = 2 * luma[..., 1:-1] - luma[..., :-2] - luma[..., 2:]
    return float(np.abs(vertical).mean() + np.abs(horizontal).mean()) / 2 + 1e-3


def _aucs(rows: list[ClipRow], conditions: dict[str, dict[str, Scored]]) -> dict[str, dict[str, Any]]:
    table = {}
    for name, scored in conditions.items():
        table[name] = _auc(rows, scored)
    plain = conditions["as published"]
    table["as published, at matched sharpness"] = _auc(rows, plain, matched=True)
    for family in sorted({r.family for r in rows if r.fake}):
        table[f"as published, {family}"] = _auc([r for r in rows if not r.fake or r.family == family], plain)
    return table


def _auc(rows: list[ClipRow], scored: dict[str, Scored], *, matched: bool = False) -> dict[str, Any]:
    judged = [(r, s, s.fake) for r in rows if (s := scored[r.file]).fake is not None]
    fake = np.array([r.fake for r, _, _ in judged], bool)
    scores = np.array([p for _, _, p in judged], np.float64)
    sharp = np.array([s.sharpness for _, s, _ in judged], np.float64)

    def statistic(at: NDArray[np.int64]) -> float:
        return matched_auc(fake[at], scores[at], sharp[at]) if matched else auc(fake[at], scores[at])

    figure = bootstrap([r.identity for r, _, _ in judged], statistic)
    return {"real": int((~fake).sum()), "fake": int(fake.sum()), **figure.rounded()}


def _pairs(corpus: Corpus, scored: dict[str, Scored]) -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = {}
    judged = [(p, won) for p in corpus.pairs if (won := _won(scored[p.real], scored[p.fake])) is not None]
    for split in ("measure", "train"):
        of_split = [(p, won) for p, won in judged if p.split == split]
        families = sorted({p.family for p, _ in of_split})
        for family in [*families, "all"]:
            chosen = [(p.identity, won) for p, won in of_split if family in {p.family, "all"}]
            if chosen:
                table[f"{split}, {family}"] = _order([i for i, _ in chosen], [won for _, won in chosen])
    return table


def _order(people: list[str], won: list[bool]) -> dict[str, Any]:
    wins = np.array(won, bool)
    figure = bootstrap(people, lambda at: share(wins[at]))
    return {"won": int(wins.sum()), "pairs": len(wins), **figure.rounded()}


def _won(real: Scored, fake: Scored) -> bool | None:
    return None if real.fake is None or fake.fake is None else fake.fake > real.fake


def _at_thresholds(rows: list[ClipRow], scored: dict[str, Scored]) -> dict[str, Any]:
    judged = [(r, s.verdict, s.fake) for r in rows if (s := scored[r.file]).fake is not None]
    fake = np.array([r.fake for r, _, _ in judged], bool)
    verdict = np.array([v for _, v, _ in judged])
    probability: F64 = np.array([p for _, _, p in judged], np.float64)
    people = np.array([r.identity for r, _, _ in judged])

    def rate(of: NDArray[np.bool_], what: str) -> dict[str, Any]:
        hits = verdict[of] == what
        return bootstrap(list(people[of]), lambda at: share(hits[at])).rounded()

    everything = np.ones(len(judged), bool)
    error = bootstrap(list(people), lambda at: calibration_error(fake[at], probability[at]))
    return {
        "thresholds": {
            "false_positive_rate": rate(~fake, "manipulated"),
            "true_positive_rate": rate(fake, "manipulated"),
            "false_negative_rate": rate(fake, "authentic"),
            "true_negative_rate": rate(~fake, "authentic"),
            "uncertain_rate": rate(everything, "uncertain"),
        },
        "calibration_error": error.rounded(),
    }


def main(arguments: list[str] | None = None) -> None:
    """`python -m training.evaluate BUNDLE --data DIR [--card]`: print the figures as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="corpus with clips.csv and pairs.csv")
    parser.add_argument(
        "--card", action="store_true", help="write the figures into the bundle's manifest and card"
    )
    parser.add_argument("--workers", type=int, default=0)
    args = parser.parse_args(arguments)
    figures = evaluate(args.bundle, args.data, workers=args.workers)
    if args.card:
        manifest = open_bundle(args.bundle, allow_untrained=True).manifest
        summary = manifest.summary | {"evaluation": figures}
        write_card(args.bundle, manifest.model_copy(update={"summary": summary}))
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
