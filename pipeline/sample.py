"""Which frames of a clip are looked at: pure planning, before anything is decoded."""

from bisect import bisect_left
from collections.abc import Sequence

from pipeline.spec import SamplingSpec

SEARCHED = 4
"""How many times the wanted bursts `head` looks at before it makes do with the faces found so far: 20 s
at 30 frames a second for 150 frames. A clip without any face costs a bounded time."""


def plan_bursts(times_s: Sequence[float], sampling: SamplingSpec) -> list[range]:
    """Choose disjoint runs of consecutive frame indexes, in order.

    times_s: presentation times in seconds of all frames, sorted; equal times are allowed. Returns
    at most `sampling.bursts` ranges of exactly `sampling.burst_frames` indexes each, for `head` at most
    `SEARCHED` times as many. A clip with fewer frames than one burst gives a single shorter range, an
    empty clip none.

    `head` takes the bursts back to back from the first frame; whoever follows them stops at the first
    face that was in `sampling.bursts` of them. `even` places their first frames at
    equal distances in *time*, the first burst at the start and the last one at the end, so that a
    variable frame rate shifts no weight to the dense parts. A run that would leave the clip, or no
    room for those after it, is shifted left instead of being shortened.
    """
    total, length = len(times_s), sampling.burst_frames
    if total == 0:
        return []
    if total < length:
        return [range(total)]
    if sampling.spread == "head":
        bursts = min(SEARCHED * sampling.bursts, total // length)
        return [range(k * length, (k + 1) * length) for k in range(bursts)]
    bursts = min(sampling.bursts, total // length)
    first, last = times_s[0], times_s[total - length]
    step = (last - first) / (bursts - 1) if bursts > 1 else 0.0
    runs: list[range] = []
    for k in range(bursts):
        free = runs[-1].stop if runs else 0
        room = total - (bursts - k) * length
        start = min(max(_nearest(times_s, first + k * step), free), room)
        runs.append(range(start, start + length))
    return runs


def spread_first(count: int) -> list[int]:
    """The runs of a plan in an order of which every beginning is spread over the clip: the first and the
    last, then twice as many and so on, each pass in order of time. 8 runs: 0 7, 2 5, 1 3 4 6."""
    order: list[int] = []
    taken = 2
    while len(order) < count:
        step = (count - 1) / (taken - 1)
        places = {round(k * step) for k in range(taken)} if taken < count else set(range(count))
        order += sorted(places - set(order))
        taken *= 2
    return order


def _nearest(times_s: Sequence[float], time_s: float) -> int:
    """Index of the frame presented closest to a time; the earlier one of two equally close."""
    at = bisect_left(times_s, time_s)
    if at == len(times_s) or (at > 0 and time_s - times_s[at - 1] <= times_s[at] - time_s):
        return max(at - 1, 0)
    return at


def key_frames(count: int, every: int) -> list[int]:
    """Positions inside a burst of `count` frames on which faces are detected.

    0, every, 2 * every and so on; the last frame too when `every` is less than `count`, so that
    positions between two detections are interpolated and never extrapolated.
    """
    if count < 1 or every < 1:
        raise ValueError(f"a burst of {count} frames has no detections every {every}")
    positions = list(range(0, count, every))
    if every < count and positions[-1] != count - 1:
        positions.append(count - 1)
    return positions
