"""What an add may say about its job, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from store_support import ManualClock

from yaotask import InvalidPayload, UnknownName
from yaotask.clock import SECOND
from yaotask.options import NAMES, Options, moment


def test_an_option_that_is_none_was_not_given() -> None:
    assert Options.of(dict.fromkeys(NAMES)) == Options()


def test_an_unknown_option_says_what_was_meant() -> None:
    with pytest.raises(UnknownName, match=r'no option "prioritty"; did you mean "priority"\?; known are key, '):
        Options.of({"prioritty": 1})


@pytest.mark.parametrize("later", ["unique", "ref", "labels", "queue", "expires"])
def test_an_option_whose_feature_comes_later_is_refused(later: str) -> None:
    with pytest.raises(UnknownName, match=f'no option "{later}"'):
        Options.of({later: "x"})


@pytest.mark.parametrize(
    ("given", "priority"), [(5, 5), (-(2**31) + 1, -(2**31) + 1), ("low", -10), ("normal", 0), ("high", 10), ("7", 7)]
)
def test_priority_is_an_integer_or_a_word(given: object, priority: int) -> None:
    assert Options.of({"priority": given}).priority == priority


@pytest.mark.parametrize("given", [True, 1.5, "highest", "", 2**31, [1]])
def test_any_other_priority_is_refused(given: object) -> None:
    with pytest.raises(InvalidPayload) as refused:
        Options.of({"priority": given})

    assert refused.value.path == "$.priority"


@pytest.mark.parametrize("given", [-1, True, "3", 2**31, 1.0])
def test_attempts_are_retries_counted_from_0(given: object) -> None:
    assert Options.of({"attempts": 0}).attempts == 0
    with pytest.raises(InvalidPayload, match=r"\$\.attempts"):
        Options.of({"attempts": given})


@pytest.mark.parametrize(
    ("given", "milliseconds"), [(2, 2_000), (0.5, 500), ("2", 2_000), ("500ms", 500), ("5m", 300_000)]
)
def test_a_timeout_is_seconds_or_a_duration(given: object, milliseconds: int) -> None:
    assert Options.of({"timeout": given}).timeout == milliseconds
    assert Options.of({"timeout": timedelta(milliseconds=milliseconds)}).timeout == milliseconds


@pytest.mark.parametrize("given", [0, -1, "0s", float("nan"), float("inf"), "nan", "soon", True, 10**12, [2]])
def test_any_other_timeout_is_refused(given: object) -> None:
    with pytest.raises(InvalidPayload, match=r"\$\.timeout"):
        Options.of({"timeout": given})


def test_a_delay_counts_from_the_add() -> None:
    clock, options = ManualClock(), Options.of({"delay": "10s"})
    clock.advance(5)

    assert options.ready_at(clock) == clock.now() + 10 * SECOND


def test_run_at_is_an_instant() -> None:
    instant = datetime(2026, 11, 22, 8, tzinfo=UTC)

    assert Options.of({"run_at": instant}) == Options.of({"run_at": "2026-11-22T16:00:00+08:00"})
    assert Options.of({"run_at": instant}).ready_at(ManualClock()) == int(instant.timestamp()) * SECOND


@pytest.mark.parametrize("given", ["2026-11-22", "2026-11-22T08:00:00", datetime(2026, 11, 22), "tomorrow", 12, True])  # noqa: DTZ001
def test_an_instant_without_a_time_zone_is_refused(given: object) -> None:
    with pytest.raises(InvalidPayload, match=r"\$\.run_at: must be a time such as"):
        Options.of({"run_at": given})


@pytest.mark.parametrize("given", ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00"])
def test_an_instant_that_could_not_be_shown_is_refused(given: str) -> None:
    for instant in (given, given.lower(), datetime.fromisoformat(given)):
        with pytest.raises(InvalidPayload, match=r"\$\.run_at: must be a time such as .*: .* out of the calendar"):
            Options.of({"run_at": instant})


def test_delay_and_run_at_exclude_each_other() -> None:
    with pytest.raises(InvalidPayload, match="either delay or run_at"):
        Options.of({"delay": 1, "run_at": "2026-11-22T08:00:00Z"})


@pytest.mark.parametrize("name", ["key", "created_by"])
@pytest.mark.parametrize("given", ["", "x" * 256, "a\0b", "\ud800", 12, b"x"])
def test_a_text_option_that_no_store_can_hold_is_refused(name: str, given: object) -> None:
    with pytest.raises(InvalidPayload) as refused:
        Options.of({name: given})

    assert refused.value.path == f"$.{name}"


def test_later_options_stand_beside_earlier_ones() -> None:
    options = Options().but({"priority": 5, "delay": 1}).but({"attempts": 2, "priority": None})

    assert options == Options.of({"priority": 5, "delay": 1, "attempts": 2})


@pytest.mark.parametrize(
    ("first", "then"), [({"delay": 1}, {"run_at": "2026-11-22T08:00:00Z"}), ({"delay": 1}, {"delay": 2})]
)
def test_a_later_time_takes_the_place_of_an_earlier_one(first: dict[str, Any], then: dict[str, Any]) -> None:
    assert Options().but(first).but(then) == Options.of(then)


def test_a_moment_says_which_value_it_is() -> None:
    with pytest.raises(InvalidPayload) as refused:
        moment("soon", "since")

    assert refused.value.path == "$.since"
