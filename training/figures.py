"""Tables of figures from the answers to labelled clips, each figure with its interval or why it has none."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from training import metrics as m
from training.labelled import LabelledClip, LabelledPair
from training.scoring import Scored
from training.transcode import CONDITIONS, PUBLISHED

PREVALENCES = (0.5, 0.01)
FALSE_POSITIVE_RATES = (0.01, 0.05, 0.1)
VERDICTS = ("authentic", "uncertain", "manipulated", "not_applicable", "unreadable")
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Judged:
    """Clips with a probability: whether fake, bool [N], probability of fake [N], people and verdicts."""

    fake: m.Bools
    scores: m.F64
    sharpness: m.F64
    people: list[str]
    verdicts: np.ndarray[Any, np.dtype[np.str_]]

    @classmethod
    def of(cls, pairs: Iterable[tuple[LabelledClip, Scored]]) -> "Judged":
        """Those of the clips that have one."""
        kept = [(c, s, s.fake) for c, s in pairs if s.fake is not None]
        return cls(
            np.array([c.fake for c, _, _ in kept], bool),
            np.array([p for _, _, p in kept], np.float64),
            np.array([s.sharpness for _, s, _ in kept], np.float64),
            [c.person for c, _, _ in kept],
            np.array([s.verdict for _, s, _ in kept], str),
        )


def measure(
    clips: list[LabelledClip],
    scored: dict[str, list[Scored]],
    prevalences: Sequence[float] = PREVALENCES,
) -> Json:
    """All figures of the answers to some clips under some conditions, `as-published` among them."""
    plain = list(zip(clips, scored[PUBLISHED], strict=True))
    judged = Judged.of(plain)
    return {
        "conditions": {
            name: _condition(name, list(zip(clips, answers, strict=True)), prevalences)
            for name, answers in scored.items()
        },
        "reliability": reliability(judged),
        "methods": _forgeries(plain, lambda c: c.method),
        "families": _forgeries(plain, lambda c: c.family),
        "footage": _footage(plain),
        "sources": _sources(plain),
        "unreadable": [
            {"file": c.file, "condition": name, "why": s.why}
            for name, answers in scored.items()
            for c, s in zip(clips, answers, strict=True)
            if s.verdict == "unreadable"
        ],
    }


def _condition(name: str, answered: list[tuple[LabelledClip, Scored]], prevalences: Sequence[float]) -> Json:
    readable = [(c, s) for c, s in answered if s.verdict != "unreadable"]
    judged = Judged.of(answered)
    not_applicable = np.array([s.fake is None for _, s in readable], bool)
    return {
        "what": CONDITIONS[name][0],
        "real": int((~judged.fake).sum()),
        "fake": int(judged.fake.sum()),
        "unreadable": len(answered) - len(readable),
        "confusion": _confusion(answered),
        "figures": {
            **discrimination(judged, prevalences),
            **calibration(judged),
            **at_thresholds(judged),
            "not_applicable": m.rate([c.person for c, _ in readable], not_applicable).rounded(),
        },
    }


def _confusion(answered: list[tuple[LabelledClip, Scored]]) -> dict[str, dict[str, int]]:
    """Clips of each truth with each verdict."""
    return {
        truth: {v: sum(s.verdict == v for c, s in answered if c.fake == fake) for v in VERDICTS}
        for truth, fake in (("real", False), ("fake", True))
    }


def discrimination(j: Judged, prevalences: Sequence[float] = PREVALENCES) -> Json:
    """How well the scores part real from fake, whatever the thresholds: figures across both classes."""
    why = m.lacking(j.fake, j.people)
    smallest = _smaller_class(j)

    def across(curve: Callable[[m.F64, m.F64], m.F64]) -> Json:
        if why:
            return m.unmeasured(why).rounded()
        return m.bootstrap(
            j.people, lambda w: curve(*m.roc(j.fake, j.scores, w)), smallest=smallest
        ).rounded()

    def detected(limit: float) -> Json:
        reals, least = int((~j.fake).sum()), round(1 / limit)
        if not why and reals < least:
            return m.unmeasured(f"needs at least {least} real clips; there are {reals}").rounded()
        return across(partial(m.detected, limit=limit))

    if why:
        matched = m.unmeasured(why)
    else:
        matched = m.bootstrap(j.people, m.matched_area(j.fake, j.scores, j.sharpness), smallest=smallest)
    return {
        "auc": across(m.area),
        "auc_at_matched_sharpness": matched.rounded(),
        "equal_error_rate": across(m.equal_error),
        **{
            f"average_precision_at_{p:g}": across(partial(m.average_precision, prevalence=p))
            for p in prevalences
        },
        **{f"true_positive_rate_at_fpr_{f:g}": detected(f) for f in FALSE_POSITIVE_RATES},
    }


def calibration(j: Judged) -> Json:
    """How far the probabilities can be taken at their word."""
    right = (j.scores >= 0.5) == j.fake
    each = {
        "accuracy": m.mean_of(right.astype(np.float64)),
        "balanced_accuracy": m.balanced(j.fake, right.astype(np.float64)),
        "log_loss": m.mean_of(m.log_losses(j.fake, j.scores)),
        "brier_score": m.mean_of((j.scores - j.fake) ** 2),
        "calibration_error": m.calibration_gap(j.fake, j.scores, m.bins_of(len(j.fake))),
    }
    why = m.lacking(j.fake, j.people)
    smallest = _smaller_class(j)
    return {
        name: (m.unmeasured(why) if why else m.bootstrap(j.people, statistic, smallest=smallest)).rounded()
        for name, statistic in each.items()
    }


def at_thresholds(j: Judged) -> Json:
    """What the verdicts are worth: shares of the real and of the fake clips. Needs no other class."""
    every = np.ones(len(j.fake), bool)
    return {
        "false_positive_rate": _called(j, ~j.fake, "manipulated"),
        "true_positive_rate": _called(j, j.fake, "manipulated"),
        "false_negative_rate": _called(j, j.fake, "authentic"),
        "true_negative_rate": _called(j, ~j.fake, "authentic"),
        "uncertain_rate": _called(j, every, "uncertain"),
    }


def _called(j: Judged, of: m.Bools, verdict: str) -> Json:
    people = [p for p, chosen in zip(j.people, of, strict=True) if chosen]
    return m.rate(people, j.verdicts[of] == verdict).rounded()


def _smaller_class(j: Judged) -> int:
    people = np.array(j.people, str)
    return min(len(set(people[j.fake])), len(set(people[~j.fake])))


def _auc(j: Judged) -> Json:
    if why := m.lacking(j.fake, j.people):
        return m.unmeasured(why).rounded()
    curve = m.bootstrap(j.people, lambda w: m.area(*m.roc(j.fake, j.scores, w)), smallest=_smaller_class(j))
    return curve.rounded()


def reliability(j: Judged) -> list[Json]:
    """Bins of equally many clips: mean probability of fake, and the share of fakes with its interval."""
    bins = m.binned(j.scores, m.bins_of(len(j.scores)))
    return [
        {
            "clips": len(b),
            "probability": round(float(j.scores[b].mean()), 4),
            "fakes": m.rate([j.people[i] for i in b], j.fake[b]).rounded(),
        }
        for b in bins
    ]


def _forgeries(answered: list[tuple[LabelledClip, Scored]], key: Callable[[LabelledClip], str]) -> Json:
    """Fakes of each kind against all real clips."""
    reals = [(c, s) for c, s in answered if not c.fake]
    table = {}
    for kind in sorted({key(c) for c, _ in answered if c.fake} - {""}):
        of_kind = [(c, s) for c, s in answered if c.fake and key(c) == kind]
        j = Judged.of(of_kind)
        table[kind] = {
            "clips": len(of_kind),
            "judged": len(j.fake),
            "people": len({c.person for c, _ in of_kind}),
            "auc": _auc(Judged.of([*reals, *of_kind])),
            "true_positive_rate": _called(j, j.fake, "manipulated"),
            "false_negative_rate": _called(j, j.fake, "authentic"),
        }
    return table


def _footage(answered: list[tuple[LabelledClip, Scored]]) -> Json:
    """Real clips of each kind of footage."""
    table = {}
    for kind in sorted({c.family for c, _ in answered if not c.fake} - {""}):
        of_kind = [(c, s) for c, s in answered if not c.fake and c.family == kind]
        j = Judged.of(of_kind)
        table[kind] = {
            "clips": len(of_kind),
            "judged": len(j.fake),
            "people": len({c.person for c, _ in of_kind}),
            "false_positive_rate": _called(j, ~j.fake, "manipulated"),
            "true_negative_rate": _called(j, ~j.fake, "authentic"),
        }
    return table


def _sources(answered: list[tuple[LabelledClip, Scored]]) -> Json:
    """Both classes of each source, so that one that is misjudged as a whole shows."""
    table = {}
    for source in sorted({c.source for c, _ in answered} - {""}):
        of_source = [(c, s) for c, s in answered if c.source == source]
        j = Judged.of(of_source)
        table[source] = {
            "real": sum(not c.fake for c, _ in of_source),
            "fake": sum(c.fake for c, _ in of_source),
            "auc": _auc(j),
            "false_positive_rate": _called(j, ~j.fake, "manipulated"),
            "true_positive_rate": _called(j, j.fake, "manipulated"),
        }
    return table


def order_of_pairs(answered: list[tuple[LabelledPair, Scored, Scored]]) -> Json:
    """Exact pairs whose forged clip has the higher score: all, of each family and of each method."""
    judged = [
        (p, fake.fake > real.fake)
        for p, real, fake in answered
        if real.fake is not None and fake.fake is not None
    ]

    def of(chosen: list[tuple[LabelledPair, bool]]) -> Json:
        won = np.array([w for _, w in chosen], bool)
        figure = m.rate([p.person for p, _ in chosen], won).rounded()
        return {"won": int(won.sum()), "pairs": len(won), **figure}

    return {
        "listed": len(answered),
        "all": of(judged),
        "families": {f: of([j for j in judged if j[0].family == f]) for f in _named(judged, "family")},
        "methods": {k: of([j for j in judged if j[0].method == k]) for k in _named(judged, "method")},
    }


def _named(judged: list[tuple[LabelledPair, bool]], column: str) -> list[str]:
    return sorted({getattr(p, column) for p, _ in judged} - {""})
