"""What an answer comes to, by what was due."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

PROBLEM = "application/problem+json"
VERDICTS = frozenset({"authentic", "manipulated", "uncertain", "not_applicable"})
SHED = frozenset({429, 503})
MOST_SAID = 200
"""Characters of what a failed request was told."""


class Wanted(StrEnum):
    """What a request should come to: an answer, a refusal with 4xx, one of both, or no word at all."""

    answer = "answer"
    refusal = "refusal"
    either = "either"
    nothing = "nothing"


class Outcome(StrEnum):
    """What it came to. away: turned away with a Retry-After; told: refused for what it is."""

    answered = "answered"
    away = "turned away"
    told = "refused"
    left = "left"
    failed = "failed"


@dataclass(frozen=True, slots=True)
class Judgement:
    """why: of a failure; retry_after_s: of what was turned away."""

    outcome: Outcome
    why: str = ""
    retry_after_s: int = 0


def judge(response: Any, wanted: Wanted) -> Judgement:
    """Of a response of `requests`, of status 0 where there was none."""
    status: int = response.status_code
    if status in SHED:
        return _turned_away(status, response.headers.get("Retry-After", ""))
    why = ""
    if status == 200 and wanted in {Wanted.answer, Wanted.either}:
        if not (why := fault(response)):
            return Judgement(Outcome.answered)
    elif 400 <= status < 500 and wanted is not Wanted.answer:
        if response.headers.get("Content-Type") == PROBLEM:
            return Judgement(Outcome.told)
        why = f"status {status} without a problem"
    elif status == 0 and wanted is Wanted.nothing:
        return Judgement(Outcome.left)
    said = getattr(response, "error", None) or response.text
    return Judgement(Outcome.failed, why or f"status {status}: {str(said)[:MOST_SAID]}")


def _turned_away(status: int, asked: str) -> Judgement:
    if asked.isdecimal():
        return Judgement(Outcome.away, retry_after_s=int(asked))
    return Judgement(Outcome.failed, f"status {status} without Retry-After")


def fault(response: Any) -> str:
    """What is wrong with a 200; empty where nothing is."""
    try:
        answer = response.json()
        verdict, model = answer["verdict"], answer["model"]["id"]
    except (ValueError, KeyError, TypeError):
        return "the answer lacks verdict or model.id, or is no JSON"
    if verdict not in VERDICTS:
        return f"unknown verdict {verdict!r}"
    return "" if model else "the model's id is empty"
