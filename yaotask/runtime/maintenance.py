"""What keeps statistics small and events moving: done now and then by the services of a node."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio

from yaotask.bell import Bell
from yaotask.chance import Chance
from yaotask.clock import Clock
from yaotask.lifecycle import every
from yaotask.store import upkeep
from yaotask.store.access import Access
from yaotask.store.cycle import SqlCycle

log = logging.getLogger(__name__)

# Seconds between two rounds.
FOLD_EVERY = 3_600.0
RELEASE_EVERY = 15.0
# Between two transactions of one round, so that others come in between.
BREATH = 0.1


class Maintenance:
    """The rounds of one node. Those of several do no harm to each other: what one has done is nothing to the next."""

    def __init__(self, access: Access, clock: Clock, chance: Chance) -> None:
        self._access = access
        self._clock = clock
        self._chance = chance

    async def run(self) -> None:
        """Do all rounds, until cancelled, or until nothing can be written any more.

        Where the store is out of reach when they begin, they go on trying.
        """
        async with anyio.create_task_group() as group:
            self._access.on_death = partial(Bell.of_this_loop().call, group.cancel_scope.cancel)
            group.start_soon(self._every, FOLD_EVERY, self.fold_rollups, "fold the statistics of earlier days")
            group.start_soon(self._every, RELEASE_EVERY, self.release_events, "give out stale events")

    async def _every(self, seconds: float, work: Callable[[], Any], what: str) -> None:
        await every(seconds, work, clock=self._clock, chance=self._chance, what=what)

    async def fold_rollups(self) -> None:
        """Keep earlier statistics by the hour instead of by the minute, some at a time."""
        while minutes := await anyio.to_thread.run_sync(self._minutes_to_fold):
            await self._do(partial(upkeep.fold_rollups, minutes=minutes))
            await self._clock.sleep(BREATH)

    def _minutes_to_fold(self) -> list[Any]:
        with self._access.opened.store.reading() as connection:
            return upkeep.minutes_to_fold(connection, self._clock.now())

    async def release_events(self) -> None:
        """Give events out again whose worker is gone."""
        if await anyio.to_thread.run_sync(self._any_stale):
            released = await self._do(upkeep.release_events)
            if released:
                log.warning("%d events of workers that are gone are delivered by others", released)

    def _any_stale(self) -> bool:
        with self._access.opened.store.reading() as connection:
            return upkeep.any_stale_event(connection)

    async def _do(self, errand: Callable[[SqlCycle], int]) -> int:
        done: int = await self._access.aask(lambda ledger, ticket: ledger.errand(errand, ticket))
        return done
