"""Where bursts are laid in a clip."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sample import SEARCHED, key_frames, plan_bursts, spread_first
from pipeline.spec import SamplingSpec

gaps = st.lists(st.sampled_from([0.0, 0.001, 0.02, 0.04, 0.5, 3.0]), max_size=200)
specs = st.builds(
    SamplingSpec,
    bursts=st.integers(1, 40),
    burst_frames=st.integers(1, 16),
    spread=st.sampled_from(["even", "head"]),
)


def times_of(gaps_s: list[float]) -> list[float]:
    times = [0.0]
    for gap in gaps_s:
        times.append(times[-1] + gap)
    return times


def even(bursts: int, burst_frames: int) -> SamplingSpec:
    return SamplingSpec(bursts=bursts, burst_frames=burst_frames)


@given(gaps, specs)
def test_runs_are_whole_disjoint_ordered_and_inside(gaps_s, spec):
    times = times_of(gaps_s)
    plan = plan_bursts(times, spec)
    assert plan == plan_bursts(times, spec)
    most = spec.bursts * (SEARCHED if spec.spread == "head" else 1)
    assert 1 <= len(plan) <= most
    assert all(a.stop <= b.start for a, b in pairwise(plan))
    assert plan[0].start >= 0
    assert plan[-1].stop <= len(times)
    if len(times) >= spec.burst_frames:
        assert all(len(run) == spec.burst_frames for run in plan)
        assert len(plan) == min(most, len(times) // spec.burst_frames)
    else:
        assert plan == [range(len(times))]


@given(gaps, st.integers(2, 40), st.integers(1, 16))
def test_even_reaches_from_the_first_to_the_last_frame(gaps_s, bursts, length):
    times = times_of(gaps_s)
    plan = plan_bursts(times, even(bursts, length))
    if len(plan) > 1:
        assert times[plan[0].start] == times[0]
        assert times[plan[-1].start] == times[len(times) - length]


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 16))
def test_head_is_back_to_back_from_the_start(count, bursts, length):
    plan = plan_bursts(
        [k / 25 for k in range(count)], SamplingSpec(bursts=bursts, burst_frames=length, spread="head")
    )
    assert [i for run in plan for i in run] == list(range(plan[-1].stop))


def test_even_is_even_in_time_not_in_frames():
    dense = [k / 100 for k in range(100)]
    sparse = [1 + k / 10 for k in range(91)]
    starts = [([*dense, *sparse])[run.start] for run in plan_bursts([*dense, *sparse], even(11, 1))]
    assert starts == pytest.approx([float(k) for k in range(11)], abs=0.05)


def test_a_run_at_the_end_is_shifted_left_rather_than_shortened():
    times = [0.0, 1.0, 2.0, 3.0, 4.0, 4.1, 4.2]
    assert plan_bursts(times, even(2, 3)) == [range(3), range(4, 7)]
    assert plan_bursts([0.0, 9.0, 9.1, 9.2, 9.3, 9.4], even(3, 2)) == [range(2), range(2, 4), range(4, 6)]


def test_an_empty_clip_has_no_plan():
    assert plan_bursts([], even(4, 4)) == []


def test_one_burst_is_the_first():
    assert plan_bursts([k / 25 for k in range(50)], even(1, 4)) == [range(4)]


@given(st.integers(1, 64), st.integers(1, 64))
def test_key_frames_begin_and_end_a_burst(count, every):
    keys = key_frames(count, every)
    assert keys[0] == 0
    assert all(0 < b - a <= every for a, b in pairwise(keys))
    assert all(k % every == 0 for k in keys[:-1])
    assert keys[-1] == count - 1 if every < count else keys == [0]


@pytest.mark.parametrize(("count", "every"), [(0, 1), (1, 0)])
def test_key_frames_of_nothing_are_refused(count, every):
    with pytest.raises(ValueError, match="no detections"):
        key_frames(count, every)


def test_every_beginning_of_the_order_is_spread_over_the_clip():
    assert spread_first(8) == [0, 7, 2, 5, 1, 3, 4, 6]
    assert spread_first(0) == []
    assert spread_first(1) == [0]
    assert spread_first(2) == [0, 1]


@given(st.integers(0, 200))
def test_no_run_is_left_out_or_taken_twice(count):
    order = spread_first(count)
    assert sorted(order) == list(range(count))
    for taken in range(2, count):
        seen = sorted(order[:taken])
        assert max(b - a for a, b in pairwise(seen)) <= 4 * count / taken
