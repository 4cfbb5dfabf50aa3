"""How long to wait before the n-th retry."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from yaotask.chance import Chance
from yaotask.durations import LONGEST

Strategy = Literal["fixed", "linear", "quadratic", "exponential"]


@dataclass(frozen=True, slots=True)
class Backoff:
    """A strategy, the longest wait it may reach, and how much chance may add to each wait.

    `jitter` is a fraction of the wait: 0.5 adds between nothing and half of it. It only ever adds,
    so that `attempt_after` stays a lower bound, and it adds to `max` too, so that retries that have
    reached it do not all come at once. Nothing waits longer than 30 days.
    """

    strategy: Strategy = "fixed"
    max: timedelta | None = None
    jitter: float = 0.0

    def delay(self, base: timedelta, retry: int, chance: Chance) -> timedelta:
        """The wait before retry number `retry`, counted from 1.

        With a base a, retry n waits a, a*n, a*n*n or a*2**(n-1).
        """
        match self.strategy:
            case "fixed":
                factor = 1
            case "linear":
                factor = retry
            case "quadratic":
                factor = retry * retry
            case "exponential":
                # Beyond 2**60 the cap has long been reached; the bound keeps the integer small.
                factor = 2 ** min(retry - 1, 60)
        # In seconds: a timedelta overflows before the caps can do their work.
        wait = min(base.total_seconds() * factor, (self.max or LONGEST).total_seconds())
        more = chance.uniform(0, wait * self.jitter) if self.jitter else 0
        return timedelta(seconds=min(wait + more, LONGEST.total_seconds()))
