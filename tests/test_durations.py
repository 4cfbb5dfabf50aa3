"""Lengths of time as people write them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yaotask.durations import LONGEST, LONGEST_MS, PATTERN, Unit, milliseconds, parse, show


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0, "s", 0),
        (200, "ms", 200),
        (30, "s", 30_000),
        (0.5, "s", 500),
        (0.0004, "s", 0),
        (1.6, "ms", 2),
        ("500ms", "s", 500),
        ("2s", "ms", 2_000),
        ("5m", "ms", 300_000),
        ("1h30m", "s", 5_400_000),
        ("1.5h", "s", 5_400_000),
        ("1d2h3m4s5ms", "s", 93_784_005),
        ("0s", "s", 0),
        ("30d", "s", LONGEST_MS),
        (2_592_000, "s", LONGEST_MS),
    ],
)
def test_a_number_has_the_units_of_its_key_and_text_its_own(value: Any, unit: Unit, expected: int) -> None:
    assert milliseconds(value, unit=unit) == expected
    assert parse(value, unit) == timedelta(milliseconds=expected)


@pytest.mark.parametrize(
    ("value", "got"),
    [
        ("", '""'),
        ("5", '"5"'),
        ("5 m", '"5 m"'),
        ("m", '"m"'),
        ("5min", '"5min"'),
        ("30m1h", '"30m1h"'),
        ("-5m", '"-5m"'),
        ("5m\n", '"5m\\n"'),
        ("1e3s", '"1e3s"'),
        ("٣s", '"٣s"'),
        ("12345678901s", '"12345678901s"'),
        (True, "true"),
        (None, "nothing"),
        ([], "a list"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
    ],
)
def test_what_is_no_duration_is_refused_with_examples(value: Any, got: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f", got {got}")) as caught:
        milliseconds(value, unit="s")

    assert str(caught.value) == (
        f'must be a number of seconds or a duration such as "500ms", "2s", "5m" or "1h30m", got {got}'
    )


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (-1, "must not be negative, got -1"),
        (-0.5, "must not be negative, got -0.5"),
        (2_592_001, "must be at most 30 days, got 2592001"),
        ("31d", "must be at most 30 days, got 31d"),
        (10**1_000, "must be at most 30 days, got a huge number"),
        (-(10**1_000), "must not be negative, got a huge number"),
        (1e300, "must be at most 30 days, got 1e+300"),
    ],
)
def test_a_duration_out_of_bounds_is_refused(value: Any, says: str) -> None:
    with pytest.raises(ValueError, match="must") as caught:
        milliseconds(value, unit="s")

    assert str(caught.value) == says


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(), "0s"),
        (timedelta(milliseconds=500), "500ms"),
        (timedelta(seconds=90), "1m30s"),
        (timedelta(hours=1, minutes=30), "1h30m"),
        (timedelta(days=1, milliseconds=1), "1d1ms"),
        (LONGEST, "30d"),
    ],
)
def test_a_duration_is_shown_as_it_is_written(duration: timedelta, text: str) -> None:
    assert show(duration) == text


@given(st.integers(0, LONGEST_MS))
def test_what_is_shown_reads_back_the_same(count: int) -> None:
    duration = timedelta(milliseconds=count)

    assert parse(show(duration), "s") == duration
    assert re.search(PATTERN, show(duration))


@given(st.text(st.sampled_from("0123456789.dhms \n")))
def test_the_pattern_that_editors_see_takes_what_is_read(text: str) -> None:
    try:
        milliseconds(text, unit="s")
    except ValueError as error:
        assert not re.search(PATTERN, text) or "at most 30 days" in str(error)
    else:
        assert re.search(PATTERN, text)
