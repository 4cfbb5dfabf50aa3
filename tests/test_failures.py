"""What is kept of an error: all that Python would print, but for the frames that are ours, in so many bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from yaotask.runtime.failures import brief, failure
from yaotask.settings import Limits


async def _fetch(host: str) -> None:
    raise ConnectionError(f"cannot reach {host}")


async def _fetch_all() -> None:
    async with asyncio.TaskGroup() as group:
        for host in ("here", "there"):
            group.create_task(_fetch(host))


def in_a_group() -> None:
    asyncio.run(_fetch_all())


def from_another() -> None:
    try:
        int("x")
    except ValueError as error:
        raise RuntimeError("the import failed") from error


def with_a_note() -> None:
    error = ValueError("bad")
    error.add_note("row 17 of sales.csv")
    raise error


def each_others_cause() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    raise one


CASES: dict[Callable[[], None], list[str]] = {
    in_a_group: [
        "\nExceptionGroup: unhandled errors",
        "\n  1. ",
        "\n     ConnectionError: cannot reach here",
        "\n  2. ",
        "\n     ConnectionError: cannot reach there",
    ],
    from_another: ["\nValueError: invalid literal", "the direct cause", "\nRuntimeError: the import failed"],
    with_a_note: ["ValueError: bad\nrow 17 of sales.csv"],
    each_others_cause: ["ValueError: other", "the direct cause", "ValueError: one"],
}


def raised(function: Callable[[], None]) -> BaseException:
    with pytest.raises(Exception) as caught:
        function()
    return caught.value


@pytest.mark.parametrize("function", CASES)
def test_all_of_it_is_kept_in_the_order_in_which_it_happened(function: Callable[[], None]) -> None:
    told = failure(raised(function), Limits()).traceback
    assert told is not None
    places = [told.find(words) for words in CASES[function]]

    assert -1 not in places, told
    assert places == sorted(places)


@pytest.mark.parametrize("room", [120, 400, 1_000])
@pytest.mark.parametrize("function", CASES)
def test_it_keeps_to_its_bounds_and_ends_with_what_went_wrong(function: Callable[[], None], room: int) -> None:
    error = raised(function)
    told = failure(error, Limits(error_bytes=room)).traceback

    assert told is not None
    assert len(told.encode()) <= room
    assert type(error).__name__ in told


def test_what_was_handled_before_is_told_too() -> None:
    def lookup() -> None:
        try:
            dict[str, str]()["key"]
        except KeyError:
            int("x")

    told = failure(raised(lookup), Limits()).traceback

    assert told is not None
    assert (
        told.index("KeyError: 'key'") < told.index("During handling of the above") < told.index("ValueError: invalid")
    )


def test_what_was_silenced_is_not_told() -> None:
    def lookup() -> None:
        try:
            dict[str, str]()["key"]
        except KeyError:
            raise LookupError("none") from None

    assert "KeyError" not in str(failure(raised(lookup), Limits()).traceback)


def test_a_group_says_in_one_line_what_went_wrong_first() -> None:
    assert brief(raised(in_a_group), Limits()).endswith("(2 sub-exceptions): ConnectionError: cannot reach here")


def test_what_is_hidden_is_hidden_everywhere() -> None:
    def hide(text: str) -> str:
        return text.replace("row 17", "***").replace("here", "***")

    for function in (with_a_note, in_a_group):
        told = failure(raised(function), Limits(), hide)

        assert "row 17" not in str(told)
        assert "reach here" not in str(told)


class Proxy(Exception):
    """As many clients of services have: what it does not know it looks up in an answer."""

    def __getattr__(self, name: str) -> Any:
        return {"status": 500}[name]


def test_an_error_that_answers_to_any_name_is_told() -> None:
    told = failure(Proxy("no"), Limits())

    assert (told.message, told.traceback) == ("no", "test_failures.Proxy: no")


def test_a_chain_without_end_is_told_in_part() -> None:
    error = ValueError(0)
    for number in range(1, 5_000):
        other = ValueError(number)
        other.__cause__, error = error, other
    told = failure(error, Limits(error_bytes=65_536)).traceback

    assert told is not None
    assert told.endswith("ValueError: 4999")


def test_no_half_of_a_secret_is_left_where_a_group_is_cut() -> None:
    secret = "SECRET-" + "0123456789" * 6
    error = ExceptionGroup("several", [ValueError(f"{secret} " * 300)])
    told = failure(error, Limits(), lambda text: text.replace(secret, "***"))

    assert "SECRET" not in f"{told.message}{told.traceback}"
