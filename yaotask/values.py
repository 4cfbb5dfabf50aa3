"""The edge between users' values and JSON text: everything that is stored passes here.

Without orjson the same values are taken and refused, and read back equal; only floats with an
exponent may be spelled differently (`1e+16` for `1e16`).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from yaotask.codec import decode, encode
from yaotask.errors import InvalidPayload, ResultNotJson
from yaotask.jsoncheck import DEPTH, NODES, Rules, checked, is_plain, mend

_LONGEST_INTEGER = 1_000


def loads(text: str | bytes) -> Any:
    """Read JSON that yaotask itself wrote; for text from outside use `parse`."""
    return decode(text)


def dumps(value: Any) -> str:
    """Compact JSON of a value that is known to be good; nothing is checked."""
    return encode(value).decode()


def parse(text: str | bytes) -> Any:
    """Read JSON that somebody else wrote.

    InvalidPayload where it is not JSON as RFC 8259 has it: NaN and Infinity, bad UTF-8, a key twice
    in one object; and for numbers that Python cannot hold, and nesting that exhausts its reader.
    """
    try:
        text = text if isinstance(text, str) else text.decode()
        return json.loads(
            text, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_int=_integer, parse_float=_float
        )
    except RecursionError:
        raise InvalidPayload("is nested too deeply to be read") from None
    except UnicodeDecodeError as error:
        raise InvalidPayload(f"is not UTF-8 at byte {error.start}") from None
    except ValueError as error:
        raise InvalidPayload(f"is not JSON: {error}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {json.dumps(twice[:40])} is there twice")
    return members


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _integer(digits: str) -> int:
    # Python itself refuses thousands of digits, in words about its own settings.
    if len(digits) > _LONGEST_INTEGER:
        raise ValueError(f"an integer of {len(digits):,} digits is too large")
    return int(digits)


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


# --- for values that users give ----------------------------------------------------------------------


def encode_argument(
    value: Any, *, path: str = "$", limit: int, setting: str, depth: int = DEPTH, nodes: int = NODES
) -> str:
    """Compact JSON of what a caller gave, or InvalidPayload with the path of the first value at fault.

    Taken are None, booleans, integers up to 2**53 - 1, finite floats, text without NUL, lists,
    tuples (as arrays), dicts with text for keys, and subclasses of these. `limit` counts bytes of
    JSON; `setting` is where users raise it.
    """
    if not is_plain(value, depth, nodes):
        value = checked(value, InvalidPayload, path, Rules(depth, nodes))
    try:
        data = encode(value)
    except (TypeError, UnicodeEncodeError):  # lone surrogates; the slow check knows where
        data = encode(checked(value, InvalidPayload, path, Rules(depth, nodes)))
    if len(data) > limit:
        raise InvalidPayload(f"is {len(data):,} bytes of JSON; the limit is {limit:,} ({setting})", path)
    return data.decode()


def encode_result(value: Any, *, limit: int, depth: int = DEPTH, nodes: int = NODES) -> tuple[str, bool]:
    """Compact JSON of what a handler returned, and whether its text had to be mended to be stored.

    NUL becomes U+2400 and a lone surrogate U+FFFD; anything else that `encode_argument` would refuse
    raises ResultNotJson.
    """
    mended: list[str] = []
    rules = Rules(depth, nodes, mended)
    if not is_plain(value, depth, nodes):
        value = checked(value, ResultNotJson, "$", rules)
    try:
        data = encode(value)
    except (TypeError, UnicodeEncodeError):
        data = encode(checked(value, ResultNotJson, "$", rules))
    if len(data) > limit:
        raise ResultNotJson(f"is {len(data):,} bytes of JSON; the limit is {limit:,} (limits.result_bytes)")
    return data.decode(), bool(mended)


def clean_text(text: str, limit: int) -> str:
    """Text that any store can hold, of at most `limit` bytes in UTF-8.

    NUL becomes U+2400, a lone surrogate U+FFFD; what is too long is cut and says so at its end.
    """
    text = mend(text)
    data = text.encode()
    if len(data) <= limit:
        return text
    mark = f" … [cut from {len(data):,} bytes]"
    room = limit - len(mark.encode())
    if room < 0:
        return data[:limit].decode(errors="ignore")
    return data[:room].decode(errors="ignore") + mark
