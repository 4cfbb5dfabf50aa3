"""The places of a pool, each running one job after the other: on the loop, or in a thread."""

from __future__ import annotations

import threading
from contextvars import Context
from queue import SimpleQueue
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from yaotask.jobs import Claim
from yaotask.runtime.attempt import Attempt
from yaotask.runtime.execute import INTERRUPTED, Cancelled, execute, execute_here

if TYPE_CHECKING:
    from yaotask.runtime.pool import Pool

# After so many jobs that never waited for anything, the loop gets a turn.
JOBS_A_TURN = 50


class LoopSlot:
    """Runs async handlers, one at a time, in a task that stays."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.done = 0
        self.busy = 0
        self.attempt: Attempt | None = None
        self._ended = False
        self._scope: anyio.CancelScope | None = None
        self._called: anyio.Event | None = None

    async def run(self) -> None:
        """Until `end`. A scope is good for one cancellation; there is a new one after each."""
        while not self._ended:
            with anyio.CancelScope() as self._scope:
                await self._work(self._scope)

    async def _work(self, scope: anyio.CancelScope) -> None:
        turn = 0
        while not (self._ended or scope.cancel_called):
            claim = self.pool.next_claim()
            if claim is None:
                await self._rest()
                turn = 0
                continue
            await self._run(claim)
            turn += 1
            if turn % JOBS_A_TURN == 0:
                await anyio.lowlevel.checkpoint()

    async def _rest(self) -> None:
        self._called = anyio.Event()
        self.pool.idle.append(self)
        await self._called.wait()

    def call(self) -> None:
        """There is work."""
        if self._called is not None:
            self._called.set()

    def end(self) -> None:
        """Take no further job."""
        self._ended = True
        self.call()

    async def _run(self, claim: Claim) -> None:
        pool = self.pool
        attempt = self.attempt = pool.begin(claim, self._stop)
        pool.deadlines.notice(attempt)
        try:
            outcome = await execute(attempt.job, pool.work.handler, pool.work.policy, pool.context)
        except Cancelled:
            # Whoever cancelled it has closed the attempt with its outcome; else the whole worker is being ended.
            self._ended = self._ended or not attempt.job.over
            outcome = INTERRUPTED
        except BaseException:
            pool.end(attempt, INTERRUPTED)
            raise
        else:
            outcome = pool.judge(attempt, outcome)
        if pool.waits_for_hooks:
            await pool.desk.announced(attempt, outcome)
        self.attempt = None
        self.busy += pool.end(attempt, outcome)
        self.done += 1

    def _stop(self) -> None:
        if self._scope is not None:
            self._scope.cancel()


class ThreadSlot:
    """Runs sync handlers, one at a time, in a thread that stays.

    A thread cannot be stopped: an attempt that timed out is closed, its handler goes on until it returns,
    and until then the slot is taken.
    """

    def __init__(self, pool: Pool, queue: SimpleQueue[Claim | None]) -> None:
        self.pool = pool
        self.done = 0
        self.busy = 0
        self.attempt: Attempt | None = None
        self._queue = queue
        self._context = Context()
        self._thread = threading.Thread(target=self._work, name=f"yaotask-{pool.work.task}", daemon=True)

    def start(self, context: Context) -> None:
        self._context = context
        self._thread.start()

    def join(self, timeout: float) -> bool:
        """Wait for the thread to end after `end`; False if a handler still holds it."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (claim := self._queue.get()) is not None:
            self._run(claim)

    def _run(self, claim: Claim) -> None:
        pool = self.pool
        attempt = self.attempt = pool.begin(claim, _cannot_stop)
        pool.deadlines.notice(attempt)
        outcome = execute_here(attempt.job, pool.work.handler, pool.work.policy, self._context)
        outcome = pool.judge(attempt, outcome)
        if attempt.job.open_transaction is not None:
            outcome = pool.desk.conclude(attempt, outcome)
        self.attempt = None
        self.busy += pool.end(attempt, outcome)
        self.done += 1


def _cannot_stop() -> None:
    """The flag `job.cancelled` is all that a thread can be told."""
