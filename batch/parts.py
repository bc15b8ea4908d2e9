"""A run: what there is to do, in parts, and what came of it. Engines differ only in who scores a part."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from batch.clips import Clip, Shard, find_clips
from batch.results import Run, claim, read_outcomes, write_part
from batch.scorer import Scorer, Work
from pipeline.bundle import open_bundle

PARTS_PER_WORKER = 4
"""At least, where there are clips enough: workers that have done their last part have nothing to do."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is left of a run. known: the outcomes of clips that are done with, by name."""

    work: Work
    out: Path
    parts: list[list[Clip]]
    known: "Counter[str]"

    @property
    def clips(self) -> int:
        """Clips that are left."""
        return sum(map(len, self.parts))


def make_plan(
    inputs: Sequence[str],
    work: Work,
    out: Path,
    *,
    shard: Shard | None = None,
    part_clips: int = 64,
    workers: int = 1,
) -> Plan:
    """Find the clips, leave out what `out` has an answer to, and part the rest.

    part_clips: clips in one part at most. Raises BatchError or BundleError.
    """
    results = out.absolute()  # which may lie inside of the archive
    found = (clip for clip in find_clips(inputs) if not Path(clip.file).is_relative_to(results))
    clips = [clip for clip in found if shard is None or shard.holds(clip)]
    bundle = open_bundle(work.bundle, allow_untrained=work.settings.allow_untrained)
    claim(out, Run.of(work.settings, bundle, explain=work.explain, timeline=work.timeline))
    outcomes = read_outcomes(out)
    done = {clip: o.name for clip in clips if (o := outcomes.get(clip)) is not None and o.final}
    left = [clip for clip in clips if clip not in done]
    size = max(1, min(part_clips, math.ceil(len(left) / (PARTS_PER_WORKER * workers))))
    parts = [left[k : k + size] for k in range(0, len(left), size)]
    return Plan(work, out, parts, Counter(done.values()))


def score_part(scorer: Scorer, out: Path, clips: Sequence[Clip]) -> "Counter[str]":
    """Score clips and write their part; how often there was which outcome."""
    lines = scorer.score(clips)
    write_part(out, lines)
    return Counter(line.outcome.name for line in lines)


def score_here(plan: Plan) -> "Iterator[Counter[str]]":
    """Score a plan in this process, whose decoders and threads are as its settings say."""
    with Scorer(plan.work) as scorer:
        for part in plan.parts:
            yield score_part(scorer, plan.out, part)
