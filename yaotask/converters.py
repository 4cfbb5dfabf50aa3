"""What each setting may be: a function that gives the value in its own unit, or says what it must be."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from yaotask import durations
from yaotask.scalars import shown

STORE = "sqlite:///.yaotask/yaotask.db"

# The most each limit may be raised to. JSON writers in C give up at a depth of about 250.
_CEILINGS = {"depth": 200, "nodes": 10_000_000}
_BYTES_CEILING = 64 * 1024 * 1024

# Raises ValueError, whose text follows the name of the setting.
Converter = Callable[[Any], Any]


def _store(value: Any) -> str:
    if isinstance(value, str) and re.match(r"[a-z][a-z0-9+]*://", value):
        return value
    raise ValueError(f"must be a database URL such as {STORE}, got {shown(value, secret=True)}")


def mapping(value: Any) -> Mapping[str, Any]:
    """What holds other values by name."""
    if isinstance(value, Mapping):
        return value
    raise ValueError(f"must be a mapping, got {shown(value)}")


def _whole(least: int, most: int) -> Converter:
    def convert(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"must be an integer, got {shown(value)}")
        if not least <= value <= most:
            raise ValueError(f"must be {f'at least {least}' if value < least else f'at most {most}'}, got {value}")
        return value

    return convert


def ceiling(limit: str) -> Converter:
    """How far a limit on stored values may be raised."""
    return _whole(1, _CEILINGS.get(limit, _BYTES_CEILING))


def _duration(least: timedelta) -> Converter:
    def convert(value: Any) -> timedelta:
        duration = durations.parse(value, "s")
        if duration < least:
            raise ValueError(f"must be at least {durations.show(least)}, got {value}")
        return duration

    return convert


def _batch(value: Any) -> int | None:
    if value == "auto":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return int(_whole(1, 10_000)(value))
    raise ValueError(f'must be "auto" or an integer, got {shown(value)}')


def _hints(value: Any) -> bool:
    if value in ("auto", "off"):
        return bool(value == "auto")
    raise ValueError(f'must be "auto" or "off", got {shown(value)}')


def _processes(value: Any) -> int:
    if value == "off":
        return 0
    if isinstance(value, int) and not isinstance(value, bool):
        return int(_whole(1, 1_000)(value))
    raise ValueError(f'must be an integer or "off", got {shown(value)}')


def _log(value: Any) -> str:
    if value in ("text", "json"):
        return str(value)
    raise ValueError(f'must be "text" or "json", got {shown(value)}')


CONVERTERS: Mapping[str, Converter] = {
    "store": _store,
    "poll": _duration(timedelta(milliseconds=10)),
    "claim_batch": _batch,
    "hints": _hints,
    "processes": _processes,
    "lease": _duration(timedelta(seconds=1)),
    "heartbeat": _duration(timedelta(milliseconds=100)),
    "cancel_grace": _duration(timedelta(0)),
    "max_jobs_per_child": _whole(1, 1_000_000),
    "losses": _whole(1, 1_000),
    "grace": _duration(timedelta(0)),
    "hook_timeout": _duration(timedelta(milliseconds=1)),
    "hook_attempts": _whole(1, 1_000),
    "log": _log,
}
