"""From scores of face tracks to a verdict that does not claim more than was seen."""

import hashlib
from collections import Counter
from dataclasses import replace

import numpy as np

from pipeline.answer import (
    Answer,
    CoverageOf,
    Face,
    FaceQuality,
    Media,
    Model,
    Moment,
    Probabilities,
    Provenance,
    ThresholdsOf,
    Verdict,
)
from pipeline.bundle import Bundle, Calibration, Thresholds
from pipeline.evidence import evidence, gaps, looks_at, rounded, seconds, way
from pipeline.prepared import Outline, TrackOutline
from pipeline.quality import UNUSABLE, remarks
from pipeline.scores import PROBABILITY_DIGITS, TrackScores, calibrated

WIDEN_PER_REMARK = 0.25
"""Each remark moves both thresholds by this share of what is left towards 0 and 1."""

MIN_LOOKS = 2
"""Bursts in which a face must be found, where the clip had as many: one alone may be a false detection."""

UNDECIDED = Thresholds(authentic_below=0.0, manipulated_above=1.0)
"""Where no score decides."""

UNFIT = {*UNUSABLE, "too_short"}
"""Remarks that keep a face out of the verdict; the others only widen `uncertain`."""

WORDS = {
    "no_face": "no face was found in the frames that were looked at",
    "face_too_small": "the face has too few pixels",
    "too_blurred": "the face is too blurred",
    "too_dark": "the face is too dark",
    "too_short": "the face is not seen for long enough",
    "profile": "the face is seen from the side",
    "heavily_compressed": "the face is heavily compressed",
    "upscaled": "the face has fewer pixels than the model looks at",
    "codec_not_calibrated": "the thresholds were found on clips in other codecs than this one's",
    "partly_seen": "only a part of the clip could be looked at",
    "untrained_model": "the weights are random, so this verdict means nothing",
    "uncalibrated": "the probabilities are the network's own softmax and the thresholds are defaults",
}
"""What each code in reasons and remarks means; `over_threshold` and `between_thresholds` bring figures."""


def widened(thresholds: Thresholds, doubts: int) -> Thresholds:
    """The uncertain region, grown by `doubts` remarks on quality or coverage."""
    if not doubts:
        return thresholds
    left = (1 - WIDEN_PER_REMARK) ** doubts
    return Thresholds(
        authentic_below=round(thresholds.authentic_below * left, PROBABILITY_DIGITS),
        manipulated_above=round(1 - (1 - thresholds.manipulated_above) * left, PROBABILITY_DIGITS),
    )


def cut(fake: float, thresholds: Thresholds) -> Verdict:
    """The verdict for one calibrated probability of `fake`."""
    if fake >= thresholds.manipulated_above:
        return "manipulated"
    return "authentic" if fake < thresholds.authentic_below else "uncertain"


def decide(
    clip: Outline,
    scores: list[TrackScores],
    bundle: Bundle,
    *,
    explain: bool = False,
    timeline: bool = True,
) -> Answer:
    """The answer to a clip: the highest calibrated score among its usable tracks decides.

    `scores` holds one entry for each of `clip.tracks`, in order. explain: whether explanations are asked for,
    which `pipeline.explain` puts in.
    """
    calibration = bundle.manifest.calibration
    unseen = ["partly_seen"] if clip.coverage.truncated else []
    foreign = calibration.id is not None and clip.media.codec not in calibration.codecs
    faces = [
        _face(
            track,
            score,
            bundle,
            least_looks=min(MIN_LOOKS, clip.coverage.bursts),
            thresholds=UNDECIDED if foreign else calibration.thresholds,
            doubts=len(unseen),
            timeline=timeline,
        )
        for track, score in zip(clip.tracks, scores, strict=True)
    ]
    judged = [f for f in faces if f.usable and f.probabilities is not None]
    if not judged:
        verdict: Verdict = "not_applicable"
        probabilities = None
        reasons = _why_not(clip, faces)
    else:
        worst = max(judged, key=lambda f: f.probabilities.fake if f.probabilities else 0.0)
        probabilities = worst.probabilities
        assert probabilities is not None  # noqa: S101 - `judged` holds none without
        doubts = [*worst.quality.remarks, *unseen]
        if foreign:
            verdict, reasons = "uncertain", [_said(code) for code in ("codec_not_calibrated", *doubts)]
        else:
            thresholds = Thresholds(**worst.thresholds.model_dump())
            verdict = cut(probabilities.fake, thresholds)
            reasons = _reasons(verdict, worst, doubts, calibration.thresholds, thresholds)
    if not bundle.manifest.trained:
        reasons.append(_said("untrained_model"))
    if calibration.id is None and judged:
        reasons.append(
            "uncalibrated: the probabilities are the network's own softmax and the thresholds are defaults"
        )
    return Answer(
        id=_identity(clip, bundle, explain=explain, timeline=timeline),
        verdict=verdict,
        probabilities=probabilities,
        summary=_summary(verdict, faces, probabilities, reasons, foreign=foreign),
        reasons=reasons,
        faces=faces,
        media=_media(clip),
        coverage=_coverage(clip),
        model=Model(
            id=bundle.manifest.id,
            digest=bundle.digest,
            precision=bundle.manifest.precision,
            calibration=calibration.id,
            thresholds=ThresholdsOf(**calibration.thresholds.model_dump()),
            trained=bundle.manifest.trained,
        ),
    )


def _media(clip: Outline) -> Media:
    facts = {name: getattr(clip.media, name) for name in Media.model_fields if name != "provenance"}
    found = clip.credentials.model_dump(mode="json") if clip.media.c2pa == "present" else {}
    return Media(**facts, provenance=Provenance(c2pa=clip.media.c2pa, **found))


def _coverage(clip: Outline) -> CoverageOf:
    known = clip.coverage
    frame_s = 1 / clip.media.frame_rate if clip.media.frame_rate > 0 else 0.0
    return CoverageOf(
        seconds_looked_at=known.seconds_looked_at,
        fraction=known.fraction,
        not_looked_at=gaps(known.spans, clip.media.duration_s, shortest_s=frame_s),
        truncated=known.truncated,
        why=known.why,
    )


def _face(
    track: TrackOutline,
    scores: TrackScores,
    bundle: Bundle,
    *,
    least_looks: int,
    thresholds: Thresholds,
    doubts: int,
    timeline: bool,
) -> Face:
    """thresholds: those that doubts about the face and so many about the clip move apart."""
    calibration, crop = bundle.manifest.calibration, bundle.manifest.crop
    fake = calibrated(float(scores.pooled[1]), calibration)
    moments = _moments(track, scores, calibration)
    notes = remarks(track.quality, crop)
    if track.bursts < least_looks:
        notes.append("too_short")
    thresholds = widened(thresholds, len(notes) + doubts)
    return Face(
        track=track.track,
        usable=not UNFIT & set(notes),
        probabilities=Probabilities(real=round(1 - fake, PROBABILITY_DIGITS), fake=fake),
        thresholds=ThresholdsOf(**thresholds.model_dump()),
        first_s=seconds(track.start_s.min()),
        last_s=seconds(track.end_s.max()),
        frames_used=track.frames_used,
        box=rounded(np.median(track.boxes[:, 1:], axis=0)),
        boxes=way(track) if timeline else [],
        quality=FaceQuality(
            size_px=round(track.quality.size_px, 1),
            sharpness=round(track.quality.sharpness, 1),
            brightness=round(track.quality.brightness, 3),
            yaw=round(track.quality.yaw, 3),
            detection=round(track.quality.detection, 3),
            quantiser=None if track.quality.quantiser is None else round(track.quality.quantiser, 1),
            remarks=notes,
        ),
        timeline=moments if timeline else [],
        segments=_segments(moments, thresholds.manipulated_above),
        evidence=evidence(looks_at(track, scores, bundle.manifest)),
        explanation=None,
    )


def _moments(track: TrackOutline, scores: TrackScores, calibration: Calibration) -> list[Moment]:
    """One moment for all samples of the same stretch of time: their mean, calibrated."""
    moments = []
    spans = np.stack([track.start_s, track.end_s], axis=1)
    for span in np.unique(spans, axis=0):
        fake = float(scores.steps[(spans == span).all(axis=1), 1].mean())
        moments.append(
            Moment(start_s=seconds(span[0]), end_s=seconds(span[1]), fake=calibrated(fake, calibration))
        )
    return moments


def _segments(moments: list[Moment], above: float) -> list[Moment]:
    """Runs of consecutive moments at or above the threshold, each with its highest score."""
    segments: list[Moment] = []
    open_run = False
    for m in moments:
        if m.fake < above:
            open_run = False
            continue
        if open_run:
            last = segments.pop()
            m = Moment(start_s=last.start_s, end_s=m.end_s, fake=max(last.fake, m.fake))  # noqa: PLW2901
        segments.append(m)
        open_run = True
    return segments


def _why_not(clip: Outline, faces: list[Face]) -> list[str]:
    """Why no face could be judged, the commonest reason first."""
    if clip.faces_seen == 0:
        return [_said("no_face")]
    found = Counter(code for f in faces for code in f.quality.remarks if code in UNFIT)
    return [_said(code) for code, _ in found.most_common()] or [_said("too_short")]


def _said(code: str) -> str:
    return f"{code}: {WORDS[code]}"


def _reasons(
    verdict: Verdict, face: Face, doubts: list[str], plain: Thresholds, used: Thresholds
) -> list[str]:
    """Why the face's score led to the verdict, with thresholds as calibrated and as widened by the doubts."""
    fake = face.probabilities.fake if face.probabilities else 0.0
    said = f"the score {fake:.2f} of face {face.track}"
    reasons = [_said(d) for d in doubts]
    if verdict == "manipulated":
        reasons.insert(0, f"over_threshold: {said} is at or over {used.manipulated_above:.2f}")
    elif verdict == "uncertain":
        moved = (
            ""
            if cut(fake, plain) == "uncertain"
            else ", which remarks on quality or coverage have moved apart"
        )
        span = f"{used.authentic_below:.2f} and {used.manipulated_above:.2f}"
        reasons.insert(0, f"between_thresholds: {said} lies between {span}{moved}")
    return reasons


def _summary(
    verdict: Verdict,
    faces: list[Face],
    probabilities: Probabilities | None,
    reasons: list[str],
    *,
    foreign: bool,
) -> str:
    if verdict == "not_applicable" or probabilities is None:
        return f"No verdict: {reasons[0].split(': ', 1)[1]}."
    count = "the one face" if len(faces) == 1 else f"at least one of {len(faces)} faces"
    if verdict == "manipulated":
        return f"Signs of manipulation in {count} (probability of manipulation {probabilities.fake:.0%})."
    if foreign:
        return f"No score decides in this codec; {probabilities.fake:.0%} is no calibrated probability."
    if verdict == "uncertain":
        return f"The evidence does not decide: probability of manipulation {probabilities.fake:.0%}."
    seen = "the one face" if len(faces) == 1 else f"the {len(faces)} faces"
    return f"No sign of manipulation found in {seen} (probability of manipulation {probabilities.fake:.0%})."


def _identity(clip: Outline, bundle: Bundle, *, explain: bool, timeline: bool) -> str:
    """The same for the same clip, bundle and options under settings that lead to the same samples."""
    # In how many frames the decoder got there is its own affair.
    media = replace(clip.media, frames_decoded=0)
    what = hashlib.sha256(f"{media} {clip.coverage} {bundle.digest} {explain} {timeline}".encode())
    for track in clip.tracks:
        what.update(f"{track.track} {len(track.start_s)}".encode())
        what.update(track.boxes.tobytes() + track.start_s.tobytes())
    return what.hexdigest()[:32]
