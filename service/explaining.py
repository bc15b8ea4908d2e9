"""Explanations in the shared batches: their questions wait their turn beside those of all other requests."""

import asyncio
from typing import Any

from pipeline.answer import Answer
from pipeline.explain import Asked, Encode, Shown, Work
from pipeline.explain import explained as explaining
from pipeline.prepared import Outline
from pipeline.scores import TrackScores
from service.batcher import Owner
from service.encoding import Encoding
from service.models import Served
from service.tracing import Span


async def explained(
    model: Served,
    answer: Answer,
    outline: Outline,
    scores: list[TrackScores],
    encoding: Encoding,
    *,
    span: Span,
    deadline: float,
) -> Answer:
    """The answer with explanations. span: of what waits for them.

    Raises Expired, ItemFailed or BatcherDead.
    """
    sequences = encoding.sequences(outline)

    def shown(place: int) -> Shown:
        return Shown(sequences[place], encoding.samples(outline.tracks[place]))

    work = explaining(answer, outline, scores, shown, model.bundle)
    encoder, temporal = Owner(span=span, patient=False), Owner(span=span, patient=False)
    answers: list[Any] | None = None
    while True:
        # Cutting, blurring and writing pictures would hold up the event loop.
        asked = await asyncio.to_thread(_next, work, answers)
        if isinstance(asked, Answer):
            return asked
        if isinstance(asked, Encode):
            encoded = await model.encoder.submit(asked.samples, deadline=deadline, owner=encoder)
            answers = encoded.results
        else:
            scored = await model.temporal.submit(asked.sequences, deadline=deadline, owner=temporal)
            answers = scored.results


def _next(work: Work[Answer], answers: list[Any] | None) -> Asked | Answer:
    """What is asked next, or the answer in the end; a future can not carry StopIteration."""
    try:
        return work.send(answers)
    except StopIteration as done:
        result: Answer = done.value
        return result
