"""Takes back the jobs of workers that have died."""

from __future__ import annotations

import logging

import anyio.to_thread

from yaotask.store import presence
from yaotask.store.access import Access
from yaotask.store.sql import SqlStore

log = logging.getLogger(__name__)

EVERY = 1.0


class Reaper:
    """Looks for dead workers in the name of a living one, and gives their claims back (T7)."""

    def __init__(self, access: Access, worker: int, losses: int) -> None:
        self._access = access
        self._worker = worker
        self._losses = losses

    async def reap(self) -> None:
        """Take back all that can be taken back; nothing is written where everybody lives.

        What could not be changed is left for the next time.
        """
        store = self._access.opened.store
        while await anyio.to_thread.run_sync(self._any_dead, store):
            lost = await self._access.aask(
                lambda ledger, ticket: ledger.errand(
                    lambda cycle: presence.reap(cycle, self._worker, self._losses), ticket
                )
            )
            if not lost:
                return
            for one in lost:
                self._tell(one)

    def _any_dead(self, store: SqlStore) -> bool:
        with store.reading() as connection:
            return presence.any_dead(connection, self._worker)

    def _tell(self, lost: presence.Lost) -> None:
        if lost.poisoned:
            log.error("%s has failed as PoisonedJob: its workers keep dying", lost.name)
        else:
            log.warning("%s runs again: its worker died while it had the job", lost.name)
