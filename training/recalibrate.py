"""A bundle calibrated anew on a user's own clips: the same weights, another scale and other thresholds."""

import hashlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from pydantic import ValidationError
from scipy.stats import beta  # type: ignore[import-untyped]

from pipeline.bundle import CARD, ENCODER, TEMPORAL, Bundle, Calibration, Manifest, open_bundle, sha256
from pipeline.errors import BundleError
from pipeline.selfcheck import metadata_of, selfcheck
from training.calibrate import FOLDS, Method, NotCalibratable, calibrate, check_enough, cross_fitted
from training.card import write_card
from training.figures import Judged, at_thresholds, calibration, discrimination
from training.labelled import Labelled, read_clips
from training.metrics import F64, LEAST_PROBABILITY, Bools, share
from training.scoring import Pipeline, Scored, score_clips
from training.transcode import PUBLISHED

CODEC_CLIPS = 20
"""Clips in a codec from which on a calibration counts as fitted on it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a bundle is to be calibrated. name: the calibration's id, from its content unless given."""

    false_positives: float
    false_negatives: float = 0.2
    method: Method = "platt"
    name: str | None = None


@dataclass(frozen=True, slots=True)
class _Scores:
    """What the network alone says of the clips that have a usable face."""

    fake: Bools
    probabilities: F64
    logits: F64
    doubts: list[int]
    judged: Judged


def recalibrate(
    pipeline: Pipeline,
    clips: Path,
    wanted: Wanted,
    *,
    out: Path | None = None,
    split: str | None = None,
    workers: int = 0,
    on_start: Callable[[int], None] = lambda _: None,
    on_done: Callable[[], None] = lambda: None,
) -> Path:
    """Calibrate a bundle on the clips of a table and write it as another bundle; returns its directory.

    out: directory of the new bundle, whose name is its id; unless given, beside the old one and named
    after it and the calibration. Nothing is left there when anything fails. Raises TableError,
    NotCalibratable, BundleError or PoolError; clips that can not be read are left out and counted.
    """
    table = read_clips(clips, split)
    bundle = open_bundle(pipeline.bundle)
    origin = bundle.manifest.summary.get("calibration", {}).get("of", bundle.manifest.id)
    if out is None and wanted.name is not None:
        out = bundle.path.parent / f"{origin}.{wanted.name}"
    if out is not None:
        _check_free(bundle, out)
    on_start(len(table.clips))
    named = [(table.root / c.file, PUBLISHED) for c in table.clips]
    answers = score_clips(replace(pipeline, neutral=True), named, workers=workers, on_done=on_done)
    found, summary = fit(table, answers, wanted, clips.name)
    return write_bundle(
        bundle, out or bundle.path.parent / f"{origin}.{found.id}", found, {"of": origin, **summary}
    )


def fit(
    table: Labelled, answers: list[Scored], wanted: Wanted, named: str
) -> tuple[Calibration, dict[str, Any]]:
    """The calibration, and what the manifest and the card say of it: its figures are cross-fitted, by
    calibrations that had not seen the person. Raises NotCalibratable."""
    s = _scores(table, answers)
    check_enough(s.fake, s.judged.people, wanted)
    scores, verdicts = cross_fitted(
        s.fake,
        s.probabilities,
        s.logits,
        doubts=s.doubts,
        people=s.judged.people,
        rates=wanted,
        method=wanted.method,
    )
    honest = replace(s.judged, scores=scores, verdicts=np.array(verdicts, str))
    found = calibrate("", s.fake, s.logits, wanted, "", method=wanted.method)
    check_kept(s.fake, np.round(_apply(found, s.logits), 6), found, wanted)
    codecs = well_known(a.codec for a in answers if a.fake is not None)
    data = f"{_basis(s, honest, wanted, named, table)} Codecs: {', '.join(codecs)}."
    content = json.dumps([found.scale, found.bias, found.thresholds.model_dump(), data])
    name = wanted.name or f"cal-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
    figures = {
        "auc": discrimination(s.judged)["auc"],
        **calibration(honest),
        **at_thresholds(honest),
    }
    summary = {
        "method": wanted.method,
        "false_positives": wanted.false_positives,
        "false_negatives": wanted.false_negatives,
        "folds": FOLDS,
        "clips": {
            "listed": len(answers),
            "real": int((~s.fake).sum()),
            "fake": int(s.fake.sum()),
            "not_applicable": sum(a.verdict == "not_applicable" for a in answers),
            "unreadable": sum(a.verdict == "unreadable" for a in answers),
        },
        "figures": figures,
    }
    return found.model_copy(update={"id": name, "data": data, "codecs": codecs}), summary


def well_known(codecs: Iterable[str]) -> tuple[str, ...]:
    """The codecs of at least CODEC_CLIPS of these clips, by name; the commonest at any rate."""
    found = Counter(codecs)
    return tuple(sorted(c for c, n in found.items() if n >= min(CODEC_CLIPS, max(found.values()))))


def _scores(table: Labelled, answers: list[Scored]) -> _Scores:
    pairs = list(zip(table.clips, answers, strict=True))
    judged = Judged.of(pairs)
    p = np.clip(judged.scores, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    doubts = [a.doubts for _, a in pairs if a.fake is not None]
    return _Scores(judged.fake, judged.scores, np.log(p / (1 - p)), doubts, judged)


def _apply(found: Calibration, logits: F64) -> F64:
    return np.asarray(1 / (1 + np.exp(-(found.scale * logits + found.bias))), np.float64)


def check_kept(fake: Bools, probabilities: F64, found: Calibration, wanted: Wanted) -> None:
    """Scores that have run into 1 can not be cut apart."""
    over = share(probabilities[~fake] >= found.thresholds.manipulated_above)
    if over > wanted.false_positives:
        raise NotCalibratable(
            f"{over:.1%} of the real clips have the highest score there is, so no threshold keeps a false "
            f"positive rate of {wanted.false_positives:g}"
        )


def _basis(s: _Scores, honest: Judged, wanted: Wanted, named: str, table: Labelled) -> str:
    """What the calibration was fitted on and what it promises, in words."""
    people = np.array(s.judged.people, str)
    reals, fakes = ~s.fake, s.fake
    real_people = len(set(people[reals]))
    called = int((honest.verdicts[reals] == "manipulated").sum())
    passed = int((honest.verdicts[fakes] == "authentic").sum())
    bound = upper_bound(called / int(reals.sum()), real_people)
    how = "Platt scaling" if wanted.method == "platt" else "A temperature"
    unnamed = "" if table.named == len(table.clips) else " Clips without an identity count as a person each."
    return (
        f"{how}, both classes weighing the same, on the {len(s.fake)} clips of {named} that have a usable "
        f"face: {int(reals.sum())} real ones of {real_people} people and {int(fakes.sum())} fakes of "
        f"{len(set(people[fakes]))}. Thresholds: at most {wanted.false_positives:.1%} of these real clips "
        f"lie at or above the upper one, at most {wanted.false_negatives:.1%} of these fakes below the lower "
        f"one. Cross-fitted over {FOLDS} folds of people, {called} of {int(reals.sum())} real clips were "
        f"called manipulated and {passed} of {int(fakes.sum())} fakes authentic; with 95% confidence the "
        f"false positive rate on such clips is at most {bound:.1%} (Clopper and Pearson, each person one "
        f"trial).{unnamed}"
    )


def upper_bound(rate: float, trials: int, level: float = 0.95) -> float:
    """One-sided exact binomial upper bound (Clopper & Pearson 1934) of a share of so many trials."""
    hits = rate * trials
    return 1.0 if hits >= trials else float(beta.ppf(level, hits + 1, trials - hits))


def write_bundle(bundle: Bundle, out: Path, found: Calibration, summary: dict[str, Any]) -> Path:
    """Write a bundle with the same weights and another calibration to `out`, whose name is its id.

    The graphs carry the id in their metadata, so their digests change, their weights do not. An
    evaluation of the old bundle is left out: its thresholds are no more. Raises BundleError.
    """
    manifest = _check_free(bundle, out)
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        kept = {k: v for k, v in manifest.summary.items() if k not in {"evaluation", "card"}}
        for name in manifest.files:
            if name in {ENCODER, TEMPORAL}:
                graph = onnx.load(bundle.path / name)
                props = {p.key: p.value for p in graph.metadata_props}
                onnx.helper.set_model_props(
                    graph, props | metadata_of(out.name, manifest.crop, manifest.sampling)
                )
                onnx.save(graph, part / name)
            elif name != CARD:
                shutil.copyfile(bundle.path / name, part / name)
        files = {name: sha256(part / name) for name in manifest.files if name != CARD}
        update = {"calibration": found, "files": files, "summary": kept | {"calibration": summary}}
        write_card(part, manifest.model_copy(update=update))
        selfcheck(open_bundle(part))
        part.chmod(0o755)
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return out


def _check_free(bundle: Bundle, out: Path) -> Manifest:
    """The old manifest under the new id, if both the id and the place can be used."""
    if out.exists():
        raise BundleError(f"{out} exists; a bundle is never written over another one")
    if not out.parent.is_dir():
        raise BundleError(f"{out.parent} is not a directory")
    try:
        return Manifest.model_validate(bundle.manifest.model_dump() | {"id": out.name})
    except ValidationError as e:
        raise BundleError(
            f"{out.name!r} can not be the id of a bundle: up to 64 lower-case letters, digits, dots, "
            "underscores and hyphens, a letter or digit first"
        ) from e
