"""Time and chance as they come in through their doors."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yaotask.chance import SystemChance
from yaotask.clock import SECOND, SystemClock, instant, microseconds, rfc3339

MORNING = 1_795_334_400_123_456


@pytest.mark.parametrize(
    ("stored", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (MORNING, "2026-11-22T08:00:00.123456Z"),
        (MORNING - 123_456, "2026-11-22T08:00:00.000000Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (-62_135_596_800_000_000, "0001-01-01T00:00:00.000000Z"),
        (None, None),
    ],
)
def test_a_stored_time_is_shown_in_utc_to_the_microsecond(stored: int | None, text: str | None) -> None:
    assert rfc3339(stored) == text


def test_an_aware_time_is_stored_whatever_its_zone() -> None:
    shanghai = timezone(timedelta(hours=8))

    assert microseconds(datetime(2026, 11, 22, 16, 0, 0, 123_456, tzinfo=shanghai)) == MORNING


class Nowhere(tzinfo):
    """A zone that does not know its offset, so that its times are naive."""

    def utcoffset(self, moment: datetime | None, /) -> None:
        return None

    dst = tzname = utcoffset


@pytest.mark.parametrize("zone", [None, Nowhere()])
def test_a_naive_time_is_refused_with_the_cure(zone: tzinfo | None) -> None:
    with pytest.raises(ValueError, match="2026-11-22T08:00:00 has no time zone; write it with an offset"):
        microseconds(datetime(2026, 11, 22, 8, tzinfo=zone))


@given(st.datetimes(timezones=st.timezones()))
def test_a_time_that_was_stored_is_the_same_instant(moment: datetime) -> None:
    assert instant(microseconds(moment)) == moment.astimezone(UTC)


async def test_the_machines_clock_goes_on_while_it_sleeps() -> None:
    clock = SystemClock()
    wall, steady = clock.now(), clock.monotonic()

    await clock.sleep(0.01)
    clock.pause(0.01)

    assert clock.monotonic() - steady >= 0.02
    assert abs(clock.now() - wall) < 60 * SECOND


def test_chance_stays_between_its_bounds_and_names_are_new() -> None:
    chance = SystemChance()
    names = {chance.uuid() for _ in range(100)}

    assert all(2 <= chance.uniform(2, 3) <= 3 for _ in range(100))
    assert len(names) == 100
    assert {len(name) for name in names} == {32}


@pytest.mark.parametrize("hours", [1, -1])
def test_two_who_ask_at_once_have_the_clock_go_by_the_other_once(hours: int) -> None:
    clock, jump = SystemClock(), hours * 3600 * SECOND
    before = clock.now()
    for _ in range(2):
        # What the other clock showed in the middle of the second that both of them waited for its answer.
        clock.follow(before + jump, 1.0)

    assert abs(clock.now() - before - jump) < 2 * SECOND
