"""How many jobs are claimed ahead: what will be started very soon, and no more."""

from __future__ import annotations

import pytest
from store_support import ManualClock

from yaotask.clock import MILLISECOND, SECOND
from yaotask.runtime.pace import MOST_AHEAD, Pace


def ahead(*, slots: int, seconds: float, jobs: int, each: float) -> int:
    """After so many jobs in so many seconds, of which each took its handler so many microseconds."""
    clock = ManualClock()
    pace = Pace(clock, slots)
    clock.advance(seconds)
    return pace.ahead(jobs, round(jobs * each))


def test_nothing_is_claimed_ahead_before_anything_is_known() -> None:
    assert Pace(ManualClock(), 10).ahead(0, 0) == 0


def test_of_quick_jobs_twenty_milliseconds_worth_are_claimed_ahead() -> None:
    assert ahead(slots=1, seconds=1, jobs=10_000, each=50) == 200


def test_there_is_a_bound() -> None:
    assert ahead(slots=1, seconds=1, jobs=1_000_000, each=1) == MOST_AHEAD


@pytest.mark.parametrize("slots", [1, 10, 100, 1_000])
def test_jobs_of_a_second_are_never_claimed_ahead_also_when_all_end_at_once(slots: int) -> None:
    assert ahead(slots=slots, seconds=1, jobs=slots, each=SECOND) == 0
    assert ahead(slots=slots, seconds=0.01, jobs=slots, each=SECOND) == 0


def test_jobs_as_long_as_the_look_ahead_are_not_claimed_ahead() -> None:
    assert ahead(slots=100, seconds=1, jobs=4_000, each=25 * MILLISECOND) == 0


def test_a_pool_that_rests_claims_nothing_ahead() -> None:
    clock = ManualClock()
    pace = Pace(clock, 1)
    clock.advance(1)
    busy = pace.ahead(10_000, 10_000)
    clock.advance(1)

    assert (busy, pace.ahead(10_000, 10_000)) == (200, 0)


def test_a_glance_that_is_too_short_changes_nothing() -> None:
    clock = ManualClock()
    pace = Pace(clock, 1)
    clock.advance(1)
    pace.ahead(10_000, 10_000)
    clock.advance(0.000_1)

    assert pace.ahead(10_001, 10_001) == 200
