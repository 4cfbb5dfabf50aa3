"""The runner: all that works in one worker process, from its first claim to its orderly end."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from yaotask.bell import Bell
from yaotask.clock import Clock
from yaotask.runtime.calling import Call
from yaotask.runtime.children import Children
from yaotask.runtime.deadlines import Deadlines
from yaotask.runtime.hooks import Courier
from yaotask.runtime.listening import Listener
from yaotask.runtime.pool import Pool
from yaotask.runtime.spawner import Spawner
from yaotask.store import presence, reads
from yaotask.store.access import Access

log = logging.getLogger(__name__)

# Between two looks whether all have ended, once the end has begun.
GLANCE = 0.01
# Seconds in which what jobs came to must be on its way to the store, when the end is in a hurry.
LAST_WORDS = 2.0
# Between two looks whether all is done: a twentieth of the time that it has taken so far, within these bounds.
SHORTEST_LOOK, LONGEST_LOOK, PART = 0.02, 0.5, 20


class Runner:
    """Works for one incarnation of a worker, which somebody else has entered among the workers of the store."""

    def __init__(
        self,
        access: Access,
        pools: Sequence[Pool],
        courier: Courier,
        deadlines: Deadlines,
        children: Children,
        listener: Listener,
        *,
        start: Callable[[], Context],
        clock: Clock,
    ) -> None:
        self.pools = pools
        self._access = access
        self.courier = courier
        self._deadlines = deadlines
        self.children = children
        self._listener = listener
        self._start = start
        self._clock = clock
        self._worker = 0
        self._left: Callable[[], None] = lambda: None
        self._hurried = False

    @property
    def ended(self) -> Counter[type]:
        """How the attempts of this process ended, by kind of outcome."""
        return self._access.opened.ledger.ended

    def late_hooks(self) -> list[Call]:
        """The hooks that run although their time is up, those of progress in threads; from any thread."""
        heralds = [pool.desk.herald for pool in self.pools if pool.desk.herald is not None]
        return [*self.courier.late(), *(call for herald in heralds for call in herald.late())]

    def hurry(self) -> None:
        """Give no grace, or no more of it."""
        self._hurried = True

    @asynccontextmanager
    async def working(
        self, worker: int, grace: Callable[[], float], ear: Path, left: Callable[[], None] = lambda: None
    ) -> AsyncIterator[None]:
        """Work until the block is left; then let running jobs go on for `grace` seconds, and hand back the rest.

        `worker` is the key that claims will carry, `ear` where hints are heard. `left` is called once all is handed
        back, which handlers that go on in spite of all may outlast. When the block is cancelled, or raises, there is
        no grace. Where nothing can be written any more, or others took this worker for dead, the
        block is cancelled; in the first case StorageUnavailable is raised. Raises RuntimeError while this
        process runs the project's jobs already.
        """
        self._worker, self._left = worker, left
        failed: BaseException | None = None
        try:
            async with anyio.create_task_group() as group, self._employed(group, grace):
                group.start_soon(self._listener.near, ear, name="yaotask hints")
                group.start_soon(self._listener.far, name="yaotask hints of other nodes")
                yield
        except BaseExceptionGroup as several:
            failed = _alone(several)
        if failed is not None:
            # Outside of the handler above, which would make the group its context.
            raise failed

    @asynccontextmanager
    async def _employed(self, group: TaskGroup, grace: Callable[[], float]) -> AsyncIterator[None]:
        left, ledger = 0.0, self._access.opened.ledger
        cancel = partial(Bell.of_this_loop().call, group.cancel_scope.cancel)
        try:
            await self._begin(group)
            # Not before: another runner may be employed, and this one refused.
            self._access.on_death = ledger.dismissed = cancel
            if self._access.has_died:
                cancel()
            yield
            left = grace()
        finally:
            with anyio.CancelScope(shield=True):
                await self._finish(left)
            group.cancel_scope.cancel()

    async def _begin(self, group: TaskGroup) -> None:
        # Made in a thread, so that it does not say that a loop runs: what a sync handler calls, an async hook
        # for one, may need a loop of its own.
        start = await anyio.to_thread.run_sync(self._start)
        spawner = Spawner()
        self.courier.open(spawner)
        self.children.open(spawner)
        for pool in self.pools:
            pool.open(spawner, start)
        group.start_soon(spawner.run, group, start, name="yaotask spawner")
        group.start_soon(self._deadlines.run, name="yaotask deadlines")
        consumers = {pool.work.task: pool for pool in self.pools}
        self._access.opened.ledger.employ(self._worker, consumers, self.courier)

    async def drained(self) -> None:
        """Wait until of our tasks nothing is ready, running or retrying, and every hook is settled."""
        await until_settled(self._unsettled, self._clock)

    def _unsettled(self) -> bool:
        with self._access.opened.store.snapshot() as connection:
            return reads.unsettled(connection, [pool.work.task for pool in self.pools])

    # --- the end ----------------------------------------------------------------------------------------

    async def _finish(self, grace: float) -> None:
        """No new claims; running jobs get their grace, then hooks are told, then the rest is handed back."""
        deadline = self._clock.monotonic() + grace
        self.children.stop()
        for pool in self.pools:
            pool.stop()
        if not await self._until(lambda: not self._running(), deadline):
            log.warning("%d jobs did not end in time: they are handed back and run again", self._running())
        for pool in self.pools:
            pool.interrupt()
        await self._until(self._all_told, deadline)
        self.courier.stop()
        await self._close_children()
        zombies = [slot for pool in self.pools for slot in pool.dissolve()]
        if zombies:
            log.warning(
                "sync handlers that still run in their threads: %d; nothing they do will be stored", len(zombies)
            )
        # Else what jobs came to would be overtaken, and refused.
        await self._until_written()
        try:
            await self._leave()
        finally:
            self._access.opened.ledger.dismiss(self._worker)
        self._left()

    async def _leave(self) -> None:
        late = {call.seq for call in self.courier.late()}
        await self._access.insist(
            lambda ledger, ticket: ledger.errand(lambda cycle: presence.leave(cycle, self._worker, late), ticket),
            LAST_WORDS,
            self._clock,
        )

    async def _close_children(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self.children.close)
            group.start_soon(self.courier.children.close)

    def _running(self) -> int:
        return sum(1 for pool in self.pools for _ in pool.attempts())

    def _all_told(self) -> bool:
        return self._access.opened.ledger.is_quiet and self.courier.is_idle

    async def _until_written(self) -> None:
        """Wait for what is on its way to the store, in a hurry too, unless it cannot be written."""
        deadline = self._clock.monotonic() + LAST_WORDS
        while self._is_hopeful and self._clock.monotonic() < deadline:
            await self._clock.sleep(GLANCE)

    @property
    def _is_hopeful(self) -> bool:
        return self._access.opened.ledger.is_behind and not self._access.has_died

    async def _until(self, is_so: Callable[[], bool], deadline: float) -> bool:
        while not is_so():
            if self._hurried or self._clock.monotonic() >= deadline:
                return False
            await self._clock.sleep(GLANCE)
        return True


def _alone(error: BaseException) -> BaseException:
    """The one error in a group of one, else the group."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def until_settled(is_unsettled: Callable[[], bool], clock: Clock) -> None:
    """Wait, asking in a thread: often at first, seldom where it takes long, for each look takes time from the work."""
    started = clock.monotonic()
    while await anyio.to_thread.run_sync(is_unsettled):
        taken = clock.monotonic() - started
        await clock.sleep(min(max(taken / PART, SHORTEST_LOOK), LONGEST_LOOK))
