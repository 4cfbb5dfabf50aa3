"""Lengths of time as people write them: a number in a known unit, or text such as "1h30m"."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Literal

from yaotask.scalars import shown

Unit = Literal["ms", "s"]

# Nothing in yaotask waits or runs longer than this.
LONGEST = timedelta(days=30)
LONGEST_MS = LONGEST // timedelta(milliseconds=1)

_NUMBER = r"[0-9]{1,10}(?:\.[0-9]{1,6})?"

# JSON Schema shows this one to editors, so it keeps to what JavaScript understands too. The last
# look-ahead is there because `$` alone would let a trailing newline through.
PATTERN = rf"^(?=.)(?:{_NUMBER}d)?(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?(?:{_NUMBER}ms)?(?!\n)$"

_MILLISECONDS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_WORDS = {"ms": "milliseconds", "s": "seconds"}
_WHOLE = re.compile(PATTERN)
_PART = re.compile(rf"({_NUMBER})(ms|[dhms])")


def milliseconds(value: object, *, unit: Unit) -> int:
    """Whole milliseconds, from a number in `unit` or from text with units of its own.

    Fractions are rounded to the nearest millisecond. ValueError says what was expected, where the
    value is neither, is negative or is longer than 30 days.
    """
    match value:
        case bool():
            raise ValueError(_expected(unit, value))
        case int():
            exact: float = value * _MILLISECONDS[unit]
        case float() if math.isfinite(value):
            exact = value * _MILLISECONDS[unit]
        case str() if _WHOLE.match(value):
            exact = sum(float(number) * _MILLISECONDS[part] for number, part in _PART.findall(value))
        case _:
            raise ValueError(_expected(unit, value))
    if exact < 0:
        raise ValueError(f"must not be negative, got {_brief(value)}")
    if exact > LONGEST_MS:
        raise ValueError(f"must be at most 30 days, got {_brief(value)}")
    return round(exact)


def parse(value: object, unit: Unit) -> timedelta:
    """Like `milliseconds`, as a timedelta."""
    return timedelta(milliseconds=milliseconds(value, unit=unit))


def seconds(name: str, value: float | str | timedelta) -> float:
    """What a caller gave under this name: seconds, text, or a timedelta. ValueError where it is none of these."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    try:
        return parse(value, "s").total_seconds()
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None


def show(duration: timedelta) -> str:
    """The shortest text that `parse` reads back as the same whole milliseconds: `1h30m`, `500ms`, `0s`."""
    rest = duration // timedelta(milliseconds=1)
    text = ""
    for part, size in _MILLISECONDS.items():
        count, rest = divmod(rest, size)
        text += f"{count}{part}" if count else ""
    return text or "0s"


def _expected(unit: Unit, value: object) -> str:
    got = shown(value)
    return f'must be a number of {_WORDS[unit]} or a duration such as "500ms", "2s", "5m" or "1h30m", got {got}'


def _brief(value: object) -> str:
    # An integer of thousands of digits cannot even be turned into text.
    return "a huge number" if isinstance(value, int) and abs(value) > 10**20 else f"{value}"
