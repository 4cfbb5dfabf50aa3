"""Whether a Python value is one that JSON, and every store, can hold; and where it is not.

Two passes: a fast one that says yes to what nearly every job has, and a careful one that knows paths.
Neither recurses, so that no value can exhaust the stack.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from yaotask.spelling import class_name

# Integers beyond this lose digits in readers that keep numbers as doubles (RFC 8259 section 6).
MAX_INTEGER = 2**53 - 1
DEPTH = 64
NODES = 10_000

_SURROGATE = re.compile("[\ud800-\udfff]")
_SIMPLE_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CURES = {
    "bytes": "decode them to text first",
    "bytearray": "decode it to text first",
    "set": "make it a list",
    "frozenset": "make it a list",
    "generator": "make it a list",
    "coroutine": "was an await forgotten?",
    "datetime.datetime": "use its isoformat()",
    "datetime.date": "use its isoformat()",
    "decimal.Decimal": "make it text or a float",
    "uuid.UUID": "use str() of it",
}


def mend(text: str) -> str:
    return _SURROGATE.sub("\ufffd", text.replace("\0", "\u2400"))


def is_plain(root: Any, depth: int, nodes: int) -> bool:
    """Whether a value can be encoded as it is; False means "look closer", not "refused".

    Runs for every job, so it asks for exact types and keeps no paths. It goes level by level, which
    bounds cycles. Lone surrogates are left to the encoder, which finds them for nothing.
    """
    level: list[Any] = [root]
    nodes -= 1
    for room in range(depth, -1, -1):
        below: list[Any] = []
        for value in level:
            kind = type(value)
            if kind is str:
                if "\0" in value:
                    return False
            elif kind is int:
                if not -MAX_INTEGER <= value <= MAX_INTEGER:
                    return False
            elif kind is dict:
                nodes -= len(value)
                if room == 0 or nodes < 0:
                    return False
                for key in value:
                    if type(key) is not str or "\0" in key:
                        return False
                below += value.values()
            elif kind is list or kind is tuple:
                nodes -= len(value)
                if room == 0 or nodes < 0:
                    return False
                below += value
            elif kind is float:
                if not math.isfinite(value):
                    return False
            elif not (value is None or kind is bool):
                return False
        if not below:
            return True
        level = below
    return False


class _Step(NamedTuple):
    """The way to a value: from its parent by a key or an index. Rendered only for a fault."""

    parent: _Step | None
    name: str | int


class _Place(NamedTuple):
    """A value still to be checked, and the slot of the copy that it will fill."""

    value: Any
    target: Any
    slot: Any
    step: _Step | None


@dataclass(slots=True)
class Rules:
    """How deep and how many; with a list for `mended`, faulty text is mended and noted instead of refused."""

    depth: int
    nodes: int
    mended: list[str] | None = None


class _NotJson(Exception):
    """A value at fault; the step to it is known where this is caught."""


_Refuse = Callable[[str, str], Exception]


def checked(root: Any, refuse: _Refuse, path: str, rules: Rules) -> Any:
    """A copy in exact JSON types, or the exception that `refuse` makes of a fault and its path."""
    copy: list[Any] = [None]
    level = [_Place(root, copy, 0, None)]
    left = rules.nodes - 1
    for room in range(rules.depth, -1, -1):
        below: list[_Place] = []
        for place in level:
            size = len(place.value) if isinstance(place.value, dict | list | tuple) else None
            left -= size or 0
            try:
                if size is not None and room == 0:
                    raise _NotJson(f"is nested more than {rules.depth} deep")
                if left < 0:
                    raise _NotJson(f"makes it more than {rules.nodes:,} values in all")
                mine, members = _copied(place.value, rules)
            except _NotJson as fault:
                raise refuse(str(fault), path + _render(place.step)) from None
            place.target[place.slot] = mine
            below += [_Place(value, mine, slot, _Step(place.step, slot)) for slot, value in members]
        level = below
    return copy[0]


def _copied(value: Any, rules: Rules) -> tuple[Any, Iterable[tuple[Any, Any]]]:
    """One value in its exact JSON type, a container still empty, and the members to fill it with."""
    match value:
        case None | bool():
            return value, ()
        case str():
            return _text(value, rules), ()
        case int():
            number = int.__int__(value)
            if not -MAX_INTEGER <= number <= MAX_INTEGER:
                raise _NotJson("is an integer beyond 2**53 - 1, which many JSON readers cannot keep; make it text")
            return number, ()
        case float():
            if not math.isfinite(value):
                raise _NotJson(f"is {float.__repr__(value)}, which JSON does not have; make it None or text")
            return float.__float__(value), ()
        case list() | tuple():
            items = list(value)
            return [None] * len(items), enumerate(items)
        case dict():
            return {}, [(_key(key, rules), member) for key, member in value.items()]
        case _:
            raise _NotJson(_no_json_type(value))


def _text(text: str, rules: Rules, holds: str = "holds") -> str:
    text = str.__str__(text)
    if "\0" not in text and not _SURROGATE.search(text):
        return text
    if rules.mended is None:
        what = "a NUL character" if "\0" in text else "half of a surrogate pair"
        raise _NotJson(f"{holds} {what}, which databases cannot store as text")
    rules.mended.append(text)
    return mend(text)


def _key(key: object, rules: Rules) -> str:
    if not isinstance(key, str):
        raise _NotJson(f"has a key that is {_kind(key)}; the keys of a JSON object are text")
    return _text(key, rules, "has a key that holds")


def _no_json_type(value: object) -> str:
    # Never with a repr: the value may be a secret.
    kind = class_name(type(value))
    cure = _CURES.get(kind)
    return f"is {_kind(value)}, which JSON does not have" + (f"; {cure}" if cure else "")


def _kind(value: object) -> str:
    name = class_name(type(value))
    return f"{'an' if name[:1].lower() in 'aeio' else 'a'} {name}"


def show_path(path: Iterable[str | int]) -> str:
    """The way from the root of a value, its keys and indexes, as users read it: `.args[0].to`."""
    return "".join(map(_name, path))


def _render(step: _Step | None) -> str:
    names: list[str | int] = []
    while step is not None:
        names.append(step.name)
        step = step.parent
    return show_path(reversed(names))


def _name(name: str | int) -> str:
    if isinstance(name, int):
        return f"[{name}]"
    if _SIMPLE_KEY.fullmatch(name):
        return f".{name[:40]}"
    return f"[{json.dumps(name[:40], ensure_ascii=False)}]"
