"""A claim that is being run here, and the rule that it ends once, whoever ends it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from yaotask.context import Job
from yaotask.jobs import Outcome


class Attempt:
    """One try under way. Its handler, the deadline and the end of the worker may all want to end it: one does."""

    __slots__ = ("_open", "deadline", "job", "outcome", "shown", "since", "stop")

    def __init__(self, job: Job, since: float, stop: Callable[[], None]) -> None:
        self.job = job
        # Seconds of the monotonic clock, as `deadline`.
        self.since = since
        self.deadline = since + job.timeout_ms / 1_000
        # What came of the handler, where the end waits for hooks.
        self.outcome: Outcome | None = None
        # Whether the store was told that it has started.
        self.shown = False
        # Makes the handler end, as far as that can be done.
        self.stop = stop
        self._open = threading.Lock()

    def returned(self, outcome: Outcome) -> None:
        """Its handler has ended in time, whatever else it still waits for."""
        self.outcome = outcome
        self.deadline = math.inf

    def close(self) -> bool:
        """Whether the caller is the first to end it, and so the one whose outcome counts."""
        first = self._open.acquire(blocking=False)
        if first:
            self.job.over = True
        return first
