"""A task definition as the rest of yaotask sees it: checked, complete, in typed units."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from yaotask.backoff import Backoff


@dataclass(frozen=True, slots=True)
class Hooks:
    """The dotted paths under `event:`; None where the definition names none."""

    next: str | None = None
    add: str | None = None
    success: str | None = None
    error: str | None = None
    progress: str | None = None
    retry: str | None = None
    cancel: str | None = None
    ignore: str | None = None


@dataclass(frozen=True, slots=True)
class Definition:
    """One task: what its file says, with the defaults filled in.

    `source` is the file, relative to the project; `missing` names the keys that the file
    leaves to their defaults and `check --strict` reports. `secrets` are the paths of values that
    came from the environment, which are masked when shown.
    """

    id: str
    name: str
    process: str
    worker_nums: int = 1
    attempts: int = 0
    attempt_after: timedelta = timedelta(milliseconds=200)
    backoff: Backoff = field(default_factory=Backoff)
    timeout: timedelta = timedelta(seconds=300)
    size: int = 1024
    event: Hooks = field(default_factory=Hooks)
    executor: str | None = None
    priority: int = 0
    input: Any = None
    fail_on: tuple[str, ...] = ()
    ignore_on: tuple[str, ...] = ()
    transaction: bool = False
    sensitive: tuple[str, ...] = ()
    source: Path | None = None
    missing: tuple[str, ...] = ()
    secrets: frozenset[tuple[Any, ...]] = frozenset()
