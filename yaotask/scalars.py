"""What a single piece of text in a file or in the environment means."""

from __future__ import annotations

import json
import math
import re
from typing import Any

# The largest integer that every reader of JSON keeps exactly (RFC 8259 section 6).
MAX_INTEGER = 2**53 - 1

_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_BASES = {"0o": 8, "0x": 16}


def scalar(text: str) -> Any:
    """What plain text means in YAML 1.2's core schema: None, a boolean, a number, or itself.

    ValueError for numbers that JSON cannot hold or readers cannot keep.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text) and math.isfinite(value := float(text)):
        return value
    if _FLOAT.fullmatch(text) or _NOT_FINITE.fullmatch(text):
        raise ValueError("is not a finite number; quote it to make it text")
    return text


def _integer(text: str) -> int:
    base = _BASES.get(text[:2], 10)
    digits = text if base == 10 else text[2:]
    # Python refuses to read thousands of digits at all, so the length comes first.
    if len(digits.lstrip("+-0")) > 20 or abs(number := int(digits, base)) > MAX_INTEGER:
        raise ValueError("is an integer beyond 2**53 - 1, which many readers cannot keep; quote it to make it text")
    return number


def storable(text: str) -> str:
    """The text, or ValueError where no database could store it."""
    if "\0" in text:
        raise ValueError("holds a NUL character, which databases cannot store as text")
    try:
        # YAML and the environment may hold a character as the two halves of a surrogate pair.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise ValueError("holds half of a surrogate pair, which is no character") from None


def shown(value: Any, *, secret: bool = False) -> str:
    """A value as a message about it says it: briefly, and not at all where it is secret."""
    match value:
        case None:
            return "nothing"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _ if secret:
            return "***"
        case bool():
            return "true" if value else "false"
        case str():
            # As JSON, so that the message stays on its line.
            return json.dumps(value if len(value) <= 60 else f"{value[:60]}...", ensure_ascii=False)
        case _:
            return str(value)


def masked(error: ValueError) -> str:
    """What was expected of a value, without the value: it came from the environment."""
    expected, got, _ = str(error).partition(", got ")
    return f"{expected}{got}***" if got else str(error)
