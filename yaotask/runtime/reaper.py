"""Takes back the jobs of processes that have died, or whose leases have run out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread

from yaotask.errors import StorageError
from yaotask.store import presence
from yaotask.store.access import Access
from yaotask.store.cycle import SqlCycle
from yaotask.store.sql import SqlStore

log = logging.getLogger(__name__)

EVERY = 1.0

# Which leases have run out, by their end; 0 where none may be judged. It asks for the time of the store.
Lapsed = Callable[[Callable[[], int]], int]


class Reaper:
    """Looks for the dead in the name of a living worker or supervisor, and gives their claims back (T7)."""

    def __init__(
        self,
        access: Access,
        worker: int,
        lapsed_before: Lapsed = lambda ask: 0,
        see: presence.See = presence.see_once,
        folder: Path | None = None,
    ) -> None:
        """One with a `folder` also removes the locks there that the dead have left behind."""
        self._access = access
        self._worker = worker
        self._lapsed_before = lapsed_before
        self._see = see
        self._folder = folder
        # Jobs of which the log knows that they cannot be taken back.
        self._told: set[int] = set()
        # Locks whose removal was tried: once is enough.
        self._swept: set[Path] = set()

    async def reap(self) -> None:
        """Take back all that can be taken back; nothing is written where everybody lives.

        What could not be changed is left for the next time.
        """
        while await anyio.to_thread.run_sync(self._any_dead, self._access.opened.store):
            lost = await self._access.aask(lambda ledger, ticket: ledger.errand(self._take_back, ticket))
            if not lost:
                break
            for one in lost:
                tell(one)
        if self._folder is not None:
            # Where that cannot be done now, the next look does it.
            with suppress(OSError, StorageError):
                await anyio.to_thread.run_sync(self._sweep, self._folder, self._access.opened.store)

    def _take_back(self, cycle: SqlCycle) -> list[presence.Lost]:
        return presence.reap(cycle, self._worker, partial(self._lapsed, cycle.connection), self._told, self._see)

    def _any_dead(self, store: SqlStore) -> bool:
        with store.reading() as connection:
            return presence.any_dead(connection, self._worker, partial(self._lapsed, connection), self._see)

    def _sweep(self, folder: Path, store: SqlStore) -> None:
        free = {lock: told for lock, told in presence.unheld(folder).items() if lock not in self._swept}
        if not free:
            return
        with store.reading() as connection:
            found = presence.strays(connection, free)
        for lock in found:
            presence.remove(lock)
        self._swept.update(found)

    def _lapsed(self, connection: Any) -> int:
        return self._lapsed_before(partial(self._access.opened.store.exact_now, connection))


def tell(lost: presence.Lost) -> None:
    """Log what became of a job whose worker died."""
    if lost.poisoned:
        log.error("%s has failed as PoisonedJob: its workers keep dying", lost.name)
    elif lost.cancelled:
        log.info("%s was cancelled: its worker died before it could end it", lost.name)
    else:
        log.warning("%s runs again: its worker died while it had the job", lost.name)
