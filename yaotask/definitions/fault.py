"""What is wrong with a value of a definition."""

from __future__ import annotations

from typing import NamedTuple

from yaotask.marks import Path


class Fault(NamedTuple):
    """What is wrong at a path.

    `name` is set where the fault is about a key that is not there. `bad` says that `message` names
    what was expected of a value, so that the value may be told as well, and then the `hint`.
    """

    path: Path
    message: str
    name: str | None = None
    bad: bool = False
    hint: str = ""
