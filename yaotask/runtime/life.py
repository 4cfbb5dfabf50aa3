"""One process of a node as its supervisor sees it, from its birth to its burial."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import anyio

from yaotask.processes import Spawned
from yaotask.runtime.estate import Legacy


@dataclass(slots=True, eq=False)
class Life:
    """One process, from its birth on. Times are seconds of the monotonic clock."""

    spawned: Spawned
    born: float
    heard: float
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    # Its key in the store, once it was ready and has been entered there.
    worker: int | None = None
    beat: dict[str, Any] = field(default_factory=dict)
    # The first beat that named a job which the store says is not its own.
    doubted: dict[str, Any] | None = None
    draining: bool = False
    # When its patience, and ours, is over.
    due: float | None = None
    left: bool = False
    silent: bool = False
    # Whether it was said that we wait for its start.
    is_slow: bool = False
    complaint: str | None = None
    # The process groups that it has started: children that run jobs of their own.
    groups: set[int] = field(default_factory=set)
    # What is to become of its jobs, where we ended it.
    legacy: Legacy | None = None

    @property
    def state(self) -> str:
        """A word for people."""
        if self.worker is None:
            return "starting"
        return "silent" if self.silent else "draining" if self.draining else "working"
