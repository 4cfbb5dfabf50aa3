"""Time on running attempts: who is to be shown as running, whose time is up."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import anyio

from yaotask.bell import Bell
from yaotask.clock import Clock
from yaotask.runtime.attempt import Attempt
from yaotask.store.ledger import Ledger
from yaotask.store.protocol import Started

if TYPE_CHECKING:
    from yaotask.runtime.pool import Pool

# A job that still runs after this is shown as RUNNING; most have ended by then, and cost no write for it.
SHOW_AFTER = 0.02


class Deadlines:
    """One timer for all attempts of this process.

    Between two looks it sleeps until the next attempt is due. A look is over all that runs, so that starting and
    ending a job costs nothing but a comparison.
    """

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._pools: list[Pool] = []
        self._next = math.inf
        self._noticed = anyio.Event()
        self._bell: Bell | None = None

    def watch(self, pool: Pool) -> None:
        """Look at the attempts of this pool too."""
        self._pools.append(pool)

    def notice(self, attempt: Attempt) -> None:
        """An attempt starts; from any thread."""
        self.wake_by(attempt.since + SHOW_AFTER)

    def wake_by(self, moment: float) -> None:
        """Look again at this moment at the latest; from any thread."""
        if moment < self._next and self._bell is not None:
            # Once is enough until the next look, however many ask.
            self._next = moment
            self._bell.call(self._wake)

    def _wake(self) -> None:
        self._noticed.set()

    async def run(self) -> None:
        """Keep time, until cancelled."""
        self._bell = Bell.of_this_loop()
        while True:
            self._noticed = anyio.Event()
            # Both before the look: an attempt that starts during it is either seen or wakes us.
            self._next = math.inf
            upcoming = self.look()
            self._next = min(self._next, upcoming)
            with anyio.move_on_after(self._next - self._clock.monotonic()):
                await self._noticed.wait()

    def look(self) -> float:
        """Do what is due; when the next will be."""
        now = self._clock.monotonic()
        upcoming = math.inf
        for pool in self._pools:
            for attempt in list(pool.attempts()):
                upcoming = min(upcoming, self._look_at(pool, attempt, now))
        return upcoming

    def _look_at(self, pool: Pool, attempt: Attempt, now: float) -> float:
        if attempt.deadline <= now:
            pool.time_out(attempt)
            return math.inf
        cap = math.inf if (opened := attempt.job.open_transaction) is None or opened.transaction.expired else opened.cap
        if cap <= now:
            pool.desk.expire(attempt)
            cap = math.inf
        if not attempt.shown and attempt.since + SHOW_AFTER <= now:
            attempt.shown = True
            claim = attempt.job.claim
            self._ledger.started(Started(claim.key, claim.fence, attempt.job.started))
        due = attempt.deadline if attempt.shown else min(attempt.deadline, attempt.since + SHOW_AFTER)
        return min(due, cap)
