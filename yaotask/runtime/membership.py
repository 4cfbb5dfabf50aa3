"""A node and its processes among the workers of the store: entered, renewed, and taken out; and it judges others."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from yaotask.chance import Chance
from yaotask.clock import Clock
from yaotask.errors import StorageError
from yaotask.plan import Place
from yaotask.runtime.leases import Leases
from yaotask.runtime.reaper import Reaper
from yaotask.store import presence
from yaotask.store.access import Access
from yaotask.store.cycle import SqlCycle
from yaotask.values import dumps

log = logging.getLogger(__name__)

PAUSE = 1.0


class Membership:
    """What one node has in the store besides jobs. `lock` proves that it lives."""

    def __init__(self, access: Access, lock: presence.Lock, lease: timedelta, clock: Clock, chance: Chance) -> None:
        self.version = importlib.metadata.version("yaotask")
        self._access = access
        self._lock = lock
        self._clock = clock
        self._chance = chance
        self._leases = Leases(access, clock, lease)
        self._node = 0
        self._leaves = False
        # Whether it was said that the store cannot be written.
        self._is_away = False
        self._reaper: Reaper

    async def enter_node(self) -> None:
        """Enter the node itself, for the first time or anew. Raises StorageError."""
        await anyio.to_thread.run_sync(presence.dedicate, self._access.reading, self._lock)
        self._node = await self._do(partial(self._register, kind="supervisor"))
        # In its new name: it must not judge its own processes, of which its supervisor knows better.
        folder = self._lock.path.parent
        self._reaper = Reaper(self._access, self._node, self._leases.lapsed_before, self._leases.see, folder)

    async def enter(self, place: Place, pid: int) -> int:
        """Enter a process of the node, once that can be done; its key."""
        row: dict[str, Any] = {"kind": place.kind, "number": place.number, "pid": pid}
        while True:
            try:
                # Not to be given up half-way: a row whose key nobody knows would stay.
                with anyio.CancelScope(shield=True):
                    return int(await self._do(partial(self._register, node=self._node, **row)))
            except StorageError as error:
                if not self._is_away:
                    log.error("%s cannot be entered into the store yet, will go on trying: %s", place.name, error)
                self._is_away = True
                await self._clock.sleep(PAUSE)

    def _register(self, cycle: SqlCycle, **row: Any) -> int:
        return presence.register(cycle, self._chance.uuid(), self._lock, lease=self._leases.microseconds, **row)

    async def renew(self, node: Mapping[str, Any], infos: Mapping[int, Mapping[str, Any]]) -> set[int]:
        """Renew the leases of the node and these processes; which of them were taken for dead meanwhile.

        People are shown what is told of the `node` and in `infos`.

        So was the node itself, where the store does not have it any more: it is entered anew. Raises StorageError.
        """
        told = {worker: dumps({"version": self.version, **info}) for worker, info in infos.items()}
        missing = await self._leases.renew({self._node: dumps({"version": self.version, **node}), **told})
        # Taken out while we asked, or by a try to leave of which we did not hear: it is not to be there.
        if self._node in missing and not self._leaves:
            log.error("this node was out of reach for longer than its lease: others have taken over its jobs")
            await self.enter_node()
        return missing & infos.keys()

    async def reap(self) -> bool:
        """Take back what the dead of other nodes had; whether leases want to be renewed at once."""
        await self._reaper.reap()
        return self._leases.take_jump()

    async def leave(self, patience: float) -> None:
        """Take the node out; a store that is away has `patience` seconds to come back. Raises StorageError."""
        self._leaves = True
        await self._access.insist(
            lambda ledger, ticket: ledger.errand(lambda cycle: presence.leave(cycle, self._node), ticket),
            patience,
            self._clock,
        )

    async def _do(self, errand: Callable[[SqlCycle], Any]) -> Any:
        done = await self._access.aask(lambda ledger, ticket: ledger.errand(errand, ticket))
        if self._is_away:
            self._is_away = False
            log.info("processes can be entered into the store again")
        return done
