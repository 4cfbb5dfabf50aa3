"""The places of a pool, each running one job after the other: on the loop, or in a thread."""

from __future__ import annotations

import threading
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from yaotask import invoke
from yaotask.jobs import Claim
from yaotask.runtime.apart import run_apart
from yaotask.runtime.attempt import Attempt
from yaotask.runtime.execute import INTERRUPTED, ScopeCancelled, execute, execute_here

if TYPE_CHECKING:
    from yaotask.runtime.pool import Pool

# After so many jobs that never waited for anything, the loop gets a turn.
JOBS_A_TURN = 50


class LoopSlot:
    """Runs async handlers, or those of child processes, one at a time, in a task that stays."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.done = 0
        self.busy = 0
        self.attempt: Attempt | None = None
        self._backlog = pool.backlog
        self._is_apart = pool.work.handler.executor == "process"
        self._ended = False
        # Whether it has no claim.
        self._is_free = True
        self._scope: anyio.CancelScope | None = None
        self._called: anyio.Event | None = None

    async def run(self) -> None:
        """Until `end`. A scope is good for one cancellation; there is a new one after each."""
        while not self._ended:
            try:
                with anyio.CancelScope() as self._scope:
                    await self._work(self._scope)
            except BaseException as error:
                # A cancellation for a job that has ended, unless there is another.
                if not (self._is_free and invoke.takes_back(error)):
                    raise
                with suppress(ValueError):
                    self.pool.idle.remove(self)

    async def _work(self, scope: anyio.CancelScope) -> None:
        turn, task = 0, invoke.own_task()
        while not (self._ended or scope.cancel_called):
            claim = self._backlog.next()
            if claim is None:
                await self._rest()
                turn = 0
                continue
            self._is_free = False
            if claim.losses or self._is_apart:
                await run_apart(self, claim)
            else:
                await self._run(claim)
            self._is_free = True
            if task is not None and task.cancelling() and not scope.cancel_called:
                await invoke.forget_cancels(task)
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
        attempt = self.attempt = pool.begin(claim, self._stop, self._stop)
        pool.deadlines.notice(attempt)
        try:
            outcome = await execute(attempt.job, pool.work.handler, pool.work.policy, pool.context)
        except ScopeCancelled:
            # Whoever cancelled it has closed the attempt, or left word in it; else the whole worker is being ended.
            self._ended = self._ended or not (attempt.job.over or attempt.cancelling)
            outcome = INTERRUPTED
        except BaseException:
            pool.end(attempt, INTERRUPTED)
            raise
        else:
            outcome = pool.judge(attempt, outcome)
        if pool.waits_for_hooks:
            await pool.desk.announced(attempt, outcome)
        late, self.attempt = attempt.job.over, None
        self.busy += pool.end(attempt, outcome)
        self.done += 1
        if late:
            # Its end was stored while it held this place, and nobody has looked for a next job since.
            pool.ledger.poke()

    def _stop(self) -> None:
        if self._scope is not None:
            self._scope.cancel()


class ThreadSlot:
    """Runs sync handlers, one at a time, in a thread that stays.

    A thread cannot be stopped: an attempt that timed out is closed, its handler goes on until it returns,
    and until then the slot is taken.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.done = 0
        self.busy = 0
        self.attempt: Attempt | None = None
        self._queue = pool.backlog.queue
        self._context = Context()
        # Set once a job that runs elsewhere has ended.
        self._returned = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"yaotask-{pool.work.task}", daemon=True)

    def start(self, context: Context) -> None:
        self._context = context
        self._thread.start()

    def end(self) -> None:
        """Take no further job."""
        self._queue.put(None)
        self._returned.set()

    def join(self, timeout: float) -> bool:
        """Wait for the thread to end after `end`; False if a handler still holds it."""
        self._thread.join(timeout)
        return self.has_ended

    @property
    def has_ended(self) -> bool:
        """Whether its thread runs no more."""
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (claim := self._queue.get()) is not None:
            if claim.losses:
                self._wait_for(claim)
            else:
                self._run(claim)

    def _wait_for(self, claim: Claim) -> None:
        """A job that must run apart is run by the loop, while this thread keeps its place."""
        self.pool.start(self._run_apart, claim)
        self._returned.wait()
        self._returned.clear()

    async def _run_apart(self, claim: Claim) -> None:
        try:
            await run_apart(self, claim)
        finally:
            self._returned.set()

    def _run(self, claim: Claim) -> None:
        pool = self.pool
        attempt = self.attempt = pool.begin(claim, None)
        pool.deadlines.notice(attempt)
        outcome = execute_here(attempt.job, pool.work.handler, pool.work.policy, self._context)
        outcome = pool.judge(attempt, outcome)
        if attempt.job.open_transaction is not None:
            outcome = pool.desk.conclude(attempt, outcome)
        late, self.attempt = attempt.job.over, None
        self.busy += pool.end(attempt, outcome)
        self.done += 1
        if late:
            # Its end was stored while it held this place, and nobody has looked for a next job since.
            pool.ledger.poke()
