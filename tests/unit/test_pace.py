"""How fast requests are answered, and when the refused are told to come back."""

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.pace import FIRST_GUESS_S, LONGEST_RETRY_S, Pace


def busy(seconds, answers=50):
    """After so many answers, one after the other without a pause."""
    pace = Pace()
    pace.begun(0.0)
    for k in range(answers):
        pace.begun(k * seconds)
        pace.ended((k + 1) * seconds)
    return pace, answers * seconds


@pytest.mark.parametrize("seconds", [0.01, 0.8, 7.0])
def test_pace_is_the_time_between_answers(seconds):
    pace, now = busy(seconds)
    assert pace.seconds == pytest.approx(seconds, rel=0.01)
    for _ in range(9):
        pace.begun(now)
    assert pace.working == 10
    assert pace.expected_s == pytest.approx(10 * seconds, rel=0.01)


def test_pace_follows_what_changes():
    pace, now = busy(1.0)
    for k in range(50):
        pace.begun(now)
        pace.ended(now + 3.0 * (k + 1))
    assert pace.seconds == pytest.approx(3.0, rel=0.01)


def test_time_without_work_says_nothing_of_the_pace():
    pace, now = busy(1.0)
    pace.ended(now + 1.0)
    pace.begun(now + 1000.0)
    pace.ended(now + 1001.0)
    assert pace.seconds == pytest.approx(1.0)


def test_what_is_not_answered_says_nothing_of_the_pace():
    pace, now = busy(1.0)
    for k in range(50):
        pace.begun(now)
        pace.ended(now + 0.001 * k, answered=False)
    assert pace.seconds == pytest.approx(1.0)


def test_one_slow_clip_alone_says_little():
    pace = Pace()
    pace.begun(0.0)
    pace.ended(70.0)
    assert pace.seconds < 20


@pytest.mark.parametrize("fails", [False, True])
def test_work_is_counted_while_it_lasts(fails):
    async def main():
        pace = Pace()
        before = pace.seconds
        with contextlib.suppress(ValueError), pace.work():
            assert pace.working == 1
            await asyncio.sleep(0.01)
            if fails:
                raise ValueError
        assert pace.working == 0
        assert (pace.seconds == before) == fails

    asyncio.run(main())


def test_before_the_first_answer_it_is_guessed():
    assert Pace().retry_after(5.0) == FIRST_GUESS_S


def test_each_who_is_refused_is_sent_to_a_place_of_his_own():
    pace, now = busy(0.5)
    assert [pace.retry_after(now) for _ in range(4)] == pytest.approx([0.5, 1.0, 1.5, 2.0], rel=0.01)
    assert pace.retry_after(now + 100.0) == pytest.approx(0.5, rel=0.01)


@given(st.lists(st.floats(0, 1e3), max_size=20), st.integers(1, 300))
def test_nobody_is_sent_away_for_long(lasted, refused):
    pace, now = Pace(), 0.0
    for seconds in lasted:
        pace.begun(now)
        now += seconds
        pace.ended(now)
    assert all(0 <= pace.retry_after(now) <= LONGEST_RETRY_S for _ in range(refused))
