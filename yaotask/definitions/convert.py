"""From the keys of a definition as they are written to values in typed units."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from yaotask import durations
from yaotask.definitions.fault import Fault
from yaotask.definitions.schema import PRIORITIES
from yaotask.marks import Path

# The keys that hold keys of yaotask themselves.
_NESTED: tuple[Path, ...] = ((), ("event",), ("backoff",))


def typed(value: Any, faults: list[Fault], path: Path = ()) -> Any:
    """The keys of a definition, or of the defaults, that fit the schema: durations as timedelta, words as numbers.

    Keys that yaotask does not read are left out, and `backoff` is always a mapping, so that the keys
    of two sources can be merged one by one. What the schema could not see is added to `faults`.
    """
    if path == ("backoff",) and isinstance(value, str):
        value = {"strategy": value}
    if path in _NESTED and isinstance(value, Mapping):
        return {key: typed(member, faults, (*path, key)) for key, member in value.items() if not _is_unread(key)}
    if convert := _CONVERTERS.get(path):
        try:
            return convert(value)
        except ValueError as error:
            wanted = str(error).rpartition(", got ")[0]
            faults.append(Fault(path, wanted or str(error), bad=True))
            return None
    return value


def _is_unread(key: str) -> bool:
    return key == "$schema" or key.startswith("x-")


def _wait(value: Any) -> timedelta:
    return durations.parse(value, "ms")


def _timeout(value: Any) -> timedelta:
    timeout = durations.parse(value, "s")
    if not timeout:
        raise ValueError(f"must be at least 1ms, got {value}")
    return timeout


def _priority(value: Any) -> int:
    return PRIORITIES[value] if isinstance(value, str) else value


_CONVERTERS: Mapping[Path, Callable[[Any], Any]] = {
    ("attempt_after",): _wait,
    ("backoff", "max"): _wait,
    ("timeout",): _timeout,
    ("priority",): _priority,
    ("fail_on",): tuple,
    ("ignore_on",): tuple,
    ("sensitive",): tuple,
}
