"""What a plain piece of text means, and how messages show values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yaotask.scalars import MAX_INTEGER, masked, scalar, shown, storable


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("Null", None),
        ("nULL", "nULL"),
        ("true", True),
        ("TRUE", True),
        ("false", False),
        ("0", 0),
        ("-0", 0),
        ("+12", 12),
        ("010", 10),
        ("0o17", 15),
        ("0xfF", 255),
        ("9007199254740991", MAX_INTEGER),
        ("000000000000000000000000000012", 12),
        ("1.5", 1.5),
        ("1.", 1.0),
        (".5", 0.5),
        ("-1e3", -1000.0),
        ("1E+2", 100.0),
        ("0.0", 0.0),
    ],
)
def test_text_that_means_something_in_the_core_schema(text: str, value: Any) -> None:
    assert repr(scalar(text)) == repr(value)


@pytest.mark.parametrize(
    "text",
    [
        *("on", "off", "yes", "no", "y", "n", "On", "NO"),
        *("22:30", "1:2:3", "1_000", "0b11", "0O17", "-0x1", "0x", "0o8", "+", "-", ".", "e3", "1e", "1,000"),
        *("2026-11-22", "2026-11-22T08:00:00Z", "12 ", " 12", "１２", "٣", "inf", "nan", "Infinity", "12\n"),
    ],
)
def test_text_that_means_itself(text: str) -> None:
    assert scalar(text) == text


@pytest.mark.parametrize("text", [".inf", "-.Inf", "+.INF", ".nan", ".NaN", "1e999", "-1e999"])
def test_numbers_that_are_not_finite_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a finite number; quote it to make it text"):
        scalar(text)


@pytest.mark.parametrize(
    "text", ["9007199254740992", "-9007199254740992", "0x20000000000000", "1" * 5_000, "0x" + "f" * 5_000]
)
def test_integers_that_readers_cannot_keep_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is an integer beyond 2\*\*53 - 1"):
        scalar(text)


@given(st.one_of(st.text(st.sampled_from("0123456789+-.eExob_:naif")), st.text()))
def test_any_text_means_something_or_is_refused_in_our_words(text: str) -> None:
    try:
        value = scalar(text)
    except ValueError as error:
        assert "quote it to make it text" in str(error)
    else:
        assert value is None or value == text or not isinstance(value, str)


@given(st.integers(-MAX_INTEGER, MAX_INTEGER))
def test_every_integer_that_json_keeps_is_read(number: int) -> None:
    assert scalar(str(number)) == number


def test_the_halves_of_a_surrogate_pair_are_one_character() -> None:
    assert storable("a\ud83d\ude00") == "a\U0001f600"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a\0", "holds a NUL character"),
        ("\ud83d", "half of a surrogate pair"),
        ("\ude00\ud83d", "half of a surrogate pair"),
    ],
)
def test_text_that_no_store_can_hold_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        storable(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "nothing"),
        ({"a": 1}, "a mapping"),
        ([1], "a list"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (1.5, "1.5"),
        ("发送", '"发送"'),
        ("two\nlines", '"two\\nlines"'),
        ("x" * 61, '"' + "x" * 60 + '..."'),
    ],
)
def test_a_value_is_shown_in_one_short_line(value: Any, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize("value", ["hunter2", 4711, True])
def test_a_secret_is_not_shown(value: Any) -> None:
    assert shown(value, secret=True) == "***"


def test_a_message_about_a_secret_says_what_was_expected() -> None:
    assert str(masked(ValueError('must be an integer, got "hunter2"'))) == "must be an integer, got ***"
    assert masked(ValueError("must not be empty")) == "must not be empty"


def test_a_secret_that_looks_like_part_of_the_message_is_masked_whole() -> None:
    assert masked(ValueError('must be an integer, got "hunter2, got 1"')) == "must be an integer, got ***"
