"""The runner: all that works in one worker process, from its first claim to its orderly end."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from yaotask.bell import Bell
from yaotask.chance import Chance
from yaotask.clock import Clock
from yaotask.lifecycle import every
from yaotask.runtime import reaper
from yaotask.runtime.deadlines import Deadlines
from yaotask.runtime.hooks import Courier
from yaotask.runtime.pool import Pool
from yaotask.runtime.spawner import Spawner
from yaotask.store import hints, presence, reads
from yaotask.store.access import Access
from yaotask.store.cycle import SqlCycle

log = logging.getLogger(__name__)

# Between two looks whether all is done.
GLANCE = 0.01
DRAIN_GLANCE = 0.05


class Runner:
    """One incarnation of a worker: it registers, claims, runs, and leaves nothing behind.

    It holds a lock file for life, by which others see that it lives.
    """

    def __init__(
        self,
        access: Access,
        pools: Sequence[Pool],
        courier: Courier,
        deadlines: Deadlines,
        *,
        state: Path,
        losses: int,
        start: Callable[[], Context],
        clock: Clock,
        chance: Chance,
    ) -> None:
        self._access = access
        self._pools = pools
        self._courier = courier
        self._deadlines = deadlines
        self._state = state
        self._losses = losses
        self._start = start
        self._clock = clock
        self._chance = chance
        self._worker = 0
        self._hurried = False
        # Set once nothing is claimed by this runner any more.
        self.left = threading.Event()

    @property
    def ended(self) -> Counter[type]:
        """How the attempts of this process ended, by kind of outcome."""
        return self._access.opened.ledger.ended

    def hurry(self) -> None:
        """Give no grace, or no more of it."""
        self._hurried = True

    def abandon(self) -> None:
        """Hand everything back from another thread: for a loop that is blocked, and cannot come to its end."""
        self._access.opened.ledger.dismiss(self._worker)
        self._access.ask(
            lambda ledger, ticket: ledger.errand(lambda cycle: presence.leave(cycle, self._worker), ticket)
        )

    @asynccontextmanager
    async def running(self, grace: float) -> AsyncIterator[None]:
        """Work until the block is left; then let running jobs go on for `grace` seconds, and hand back the rest.

        When the block is cancelled, or raises, there is no grace. Where nothing can be written any more the
        block is cancelled, and StorageUnavailable raised. Raises RuntimeError while this process runs the
        project's jobs already.
        """
        incarnation = self._chance.uuid()
        lock = await anyio.to_thread.run_sync(presence.Lock.take, self._state / presence.FOLDER, incarnation)
        failed: BaseException | None = None
        try:
            self._worker = await self._do(lambda cycle: presence.register(cycle, incarnation, lock))
            async with anyio.create_task_group() as group, self._working(group, grace):
                group.start_soon(self._listen, lock.path.with_suffix(hints.SUFFIX), name="yaotask hints")
                yield
        except BaseExceptionGroup as several:
            failed = _alone(several)
        finally:
            lock.release()
        if failed is not None:
            # Outside of the handler above, which would make the group its context.
            raise failed

    @asynccontextmanager
    async def _working(self, group: TaskGroup, grace: float) -> AsyncIterator[None]:
        left, bell = 0.0, Bell.of_this_loop()
        self._access.opened.thread.on_death = partial(bell.call, group.cancel_scope.cancel)
        try:
            await self._begin(group)
            yield
            left = grace
        finally:
            with anyio.CancelScope(shield=True):
                await self._finish(left)
            group.cancel_scope.cancel()

    async def _begin(self, group: TaskGroup) -> None:
        watch = reaper.Reaper(self._access, self._worker, self._losses)
        # Before the first claim: what a dead worker had comes first.
        await watch.reap()
        # Made in a thread, so that it does not say that a loop runs: what a sync handler calls, an async hook
        # for one, may need a loop of its own.
        start = await anyio.to_thread.run_sync(self._start)
        spawner = Spawner()
        self._courier.open(spawner)
        for pool in self._pools:
            pool.open(spawner, start)
        group.start_soon(spawner.run, group, start, name="yaotask spawner")
        group.start_soon(self._deadlines.run, name="yaotask deadlines")
        reaping = partial(every, clock=self._clock, chance=self._chance, what="look for dead workers")
        group.start_soon(reaping, reaper.EVERY, watch.reap, name="yaotask reaper")
        consumers = {pool.work.task: pool for pool in self._pools}
        self._access.opened.ledger.employ(self._worker, consumers, self._courier)

    async def _listen(self, path: Path) -> None:
        """Look at once when another process of this machine says that it has added jobs."""
        try:
            ear = hints.Ear(path)
        except OSError as error:
            log.info("jobs that other processes add are found by polling alone: %s", error)
            return
        try:
            while True:
                await ear.hear()
                self._access.opened.ledger.poke()
        finally:
            ear.close()

    async def drained(self) -> None:
        """Wait until of our tasks nothing is ready, running or retrying, and every hook is settled."""
        while await anyio.to_thread.run_sync(self._unsettled):
            await self._clock.sleep(DRAIN_GLANCE)

    def _unsettled(self) -> bool:
        with self._access.opened.store.reading() as connection:
            return reads.unsettled(connection, [pool.work.task for pool in self._pools])

    # --- the end ----------------------------------------------------------------------------------------

    async def _finish(self, grace: float) -> None:
        """No new claims; running jobs get their grace, then hooks are told, then the rest is handed back."""
        deadline = self._clock.monotonic() + grace
        for pool in self._pools:
            pool.stop()
        if not await self._until(lambda: not self._running(), deadline):
            log.warning("%d jobs did not end in time: they are handed back and run again", self._running())
        for pool in self._pools:
            pool.interrupt()
        await self._until(self._all_told, deadline)
        self._courier.stop()
        zombies = [slot for pool in self._pools for slot in pool.dissolve()]
        if zombies:
            log.warning("%d sync handlers still run in their threads; nothing they do will be stored", len(zombies))
        await self._do(lambda cycle: presence.leave(cycle, self._worker))
        self._access.opened.ledger.dismiss(self._worker)
        self.left.set()

    def _running(self) -> int:
        return sum(1 for pool in self._pools for _ in pool.attempts())

    def _all_told(self) -> bool:
        return self._access.opened.ledger.is_quiet and self._courier.is_idle

    async def _until(self, is_so: Callable[[], bool], deadline: float) -> bool:
        while not is_so():
            if self._hurried or self._clock.monotonic() >= deadline:
                return False
            await self._clock.sleep(GLANCE)
        return True

    async def _do(self, errand: Callable[[SqlCycle], Any]) -> Any:
        return await self._access.aask(lambda ledger, ticket: ledger.errand(errand, ticket))


def _alone(error: BaseException) -> BaseException:
    """The one error in a group of one, else the group."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
