"""A claim that is being run here, and the rule that it ends once, whoever ends it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from yaotask.context import Job
from yaotask.jobs import Outcome


class Attempt:
    """One try under way. Its handler, the deadline and the end of the worker may all want to end it: one does."""

    __slots__ = ("_open", "cancel", "cancelling", "deadline", "job", "outcome", "shown", "since", "stop")

    def __init__(
        self, job: Job, since: float, stop: Callable[[], None] | None, cancel: Callable[[], None] | None = None
    ) -> None:
        """`stop` is None for a handler that nothing but its own will can end."""
        self.job = job
        # Seconds of the monotonic clock, as `deadline`.
        self.since = since
        self.deadline = since + job.timeout_ms / 1_000
        # What came of the handler, where the end waits for hooks.
        self.outcome: Outcome | None = None
        # Whether the store was told that it has started.
        self.shown = False
        # Makes the handler end, whatever it is doing.
        self.stop = stop
        # Asks the handler to end, where more than the flag and callbacks of the job can be done.
        self.cancel = cancel
        # Whether its cancellation was asked for: only a success, or Cancelled, can come of it.
        self.cancelling = False
        self._open = threading.Lock()

    def ask_to_stop(self) -> None:
        """Its cancellation is asked for; from any thread. A handler that has returned hears nothing of it."""
        self.cancelling = True
        if self.outcome is None:
            self.job.ask_to_stop()

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
