"""A worker inside somebody else's program: it enters itself, shows that it lives by a lock and a lease, and reaps
the dead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from yaotask.chance import Chance
from yaotask.clock import Clock
from yaotask.errors import StorageError
from yaotask.hosting import Hosting
from yaotask.lifecycle import every
from yaotask.runtime import reaper
from yaotask.runtime.keeper import Keeper
from yaotask.runtime.leases import Leases
from yaotask.runtime.runner import Runner
from yaotask.settings import Settings
from yaotask.store import hints, presence
from yaotask.store.access import Access


class Embedded:
    """Runs a project's jobs on a loop of this process; each run of it is a new incarnation."""

    def __init__(
        self,
        runner: Runner,
        access: Access,
        state: Path,
        settings: Settings,
        told: Mapping[str, Any],
        *,
        clock: Clock,
        chance: Chance,
    ) -> None:
        """People are shown what is `told` of it."""
        self._runner = runner
        self._told = told
        self._access = access
        self._settings = settings
        self._folder = state / presence.FOLDER
        self._clock = clock
        self._chance = chance

    @property
    def ended(self) -> Counter[type]:
        """See Runner."""
        return self._runner.ended

    async def drained(self) -> None:
        """See Runner."""
        await self._runner.drained()

    def running(self, grace: float) -> Hosting:
        """Work while the block lasts; see Runner.working."""
        return Hosting(self._working, grace, self._runner.hurry)

    @asynccontextmanager
    async def _working(self, grace: Callable[[], float]) -> AsyncIterator[None]:
        """Holds a lock file meanwhile, by which others see that it lives."""
        incarnation = self._chance.uuid()
        lock = await anyio.to_thread.run_sync(presence.Lock.take, self._folder, incarnation)
        try:
            leases = Leases(self._access, self._clock, self._settings.lease)
            worker = await self._enter(incarnation, lock, leases.microseconds)
            watch = reaper.Reaper(self._access, worker, leases.lapsed_before, leases.see, self._folder)
            # Before the first claim: what a dead worker had comes first.
            await watch.reap()
            ear = lock.path.with_suffix(hints.SUFFIX)
            working = self._runner.working(worker, grace, ear, lock.release)
            async with self._kept(leases, worker), working, anyio.create_task_group() as group:
                reaping = partial(every, clock=self._clock, chance=self._chance, what="look for dead workers")
                group.start_soon(reaping, reaper.EVERY, watch.reap, name="yaotask reaper")
                yield
                group.cancel_scope.cancel()
        finally:
            # Where it was not released: this process may live on, and nobody else could prove that we do not.
            lock.abandon()

    @asynccontextmanager
    async def _kept(self, leases: Leases, worker: int) -> AsyncIterator[None]:
        keeper = Keeper(leases, worker, self._told, self._settings.heartbeat, self._chance)
        keeper.start()
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(keeper.stop)

    async def _enter(self, incarnation: str, lock: presence.Lock, lease: int) -> int:
        enter = partial(presence.register, incarnation=incarnation, lock=lock, lease=lease)
        try:
            await anyio.to_thread.run_sync(presence.dedicate, self._access.reading, lock)
            worker: int = await self._access.aask(lambda ledger, ticket: ledger.errand(enter, ticket))
        except StorageError:
            lock.release()
            raise
        return worker
