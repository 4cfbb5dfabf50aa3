"""One thing that was looked at, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from yaotask import durations
from yaotask.clock import SECOND

Level = Literal["ok", "warn", "fault"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`about` names what was looked at, `what` is how it is; `advice`, what to do, is empty where all is well.

    With a fault work is not done, or not safe; a warning can wait.
    """

    level: Level
    about: str
    what: str
    advice: str = ""


Findings = Iterator[Finding]


def ok(about: str, what: str) -> Finding:
    """All is well."""
    return Finding("ok", about, what)


def warn(about: str, what: str, advice: str) -> Finding:
    """Something to see to."""
    return Finding("warn", about, what, advice)


def fault(about: str, what: str, advice: str) -> Finding:
    """Something that keeps work from being done."""
    return Finding("fault", about, what, advice)


def span(microseconds: float) -> str:
    """`1h30m`, to the second."""
    return durations.show(timedelta(seconds=round(microseconds / SECOND)))
