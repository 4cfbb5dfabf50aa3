"""A short word for what a task's definition says of its jobs: by it nodes see that they do not mean the same task."""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import timedelta
from typing import Any

from yaotask.definitions.model import Definition

# Hexadecimal digits: of two definitions that differ, one pair in 16 million has the same.
LENGTH = 6

# What no job fares differently by: words for people, how many run on one node, and where all that was written.
_UNTOLD = frozenset({"id", "name", "worker_nums", "source", "missing", "secrets"})


def digest(definition: Definition) -> str:
    """Equal where jobs of the task would be treated alike, whichever of the definitions they met.

    What is left to its default counts for nothing, so that a version of yaotask with more keys has the same word.
    """
    told = {name: value for name, value in _chosen(definition).items() if name not in _UNTOLD}
    text = json.dumps(told, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def _chosen(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not as they would be by themselves."""
    return {field.name: found for field in fields(value) if (found := getattr(value, field.name)) != _default(field)}


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _plain(value: object) -> Any:
    if isinstance(value, timedelta):
        return value.total_seconds()
    return _chosen(value) if is_dataclass(value) else str(value)
