"""What dead processes of a node leave behind: their supervisor gives it back, until the store has it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio

from yaotask.clock import Clock
from yaotask.errors import StorageError
from yaotask.runtime import reaper
from yaotask.store import presence
from yaotask.store.access import Access
from yaotask.store.cycle import SqlCycle
from yaotask.store.protocol import Finish

log = logging.getLogger(__name__)

PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class Legacy:
    """A process that has ended, and been waited for.

    With `death`, how it died in words, its jobs are lost (T7); without one they are handed back (T10), but
    for those that are `overdue` (T5, T6), and those of `suspects`, which are lost.
    """

    worker: int
    death: str | None = None
    overdue: Sequence[Finish] = ()
    suspects: frozenset[int] = field(default_factory=frozenset)


class Estate:
    """Settles one legacy after the other."""

    def __init__(self, access: Access, clock: Clock) -> None:
        self._access = access
        self._clock = clock
        self._open: deque[Legacy] = deque()
        self._came = anyio.Event()
        self.failed: StorageError | None = None
        self.handed_back = 0
        self._told: Legacy | None = None

    def take(self, legacy: Legacy) -> None:
        """Settle this, soon."""
        self._open.append(legacy)
        self._came.set()

    @property
    def is_settled(self) -> bool:
        return not self._open

    async def run(self) -> None:
        """Settle what comes, until cancelled."""
        while True:
            while self._open:
                await self._settle(self._open[0])
            self._came = anyio.Event()
            await self._came.wait()

    async def _settle(self, legacy: Legacy) -> None:
        try:
            if legacy is not self._told:
                # Once: the ledger keeps them until they are written.
                self._told = legacy
                for finish in legacy.overdue:
                    self._access.opened.ledger.finish(finish)
            lost, handed_back = await self._ask(lambda cycle: _give_back(cycle, legacy))
        except StorageError as error:
            if self.failed is None:
                log.error("the jobs of a dead worker cannot be given back yet: %s", error)
            self.failed = error
            await self._clock.sleep(PAUSE)
            return
        self.failed = None
        self._open.popleft()
        self.handed_back += handed_back
        for one in lost:
            reaper.tell(one)

    async def _ask(self, errand: Callable[[SqlCycle], Any]) -> Any:
        return await self._access.aask(lambda ledger, ticket: ledger.errand(errand, ticket))


def _give_back(cycle: SqlCycle, legacy: Legacy) -> tuple[list[presence.Lost], int]:
    """The jobs that are lost, and how many were handed back."""
    if legacy.death is not None:
        return presence.bury(cycle, legacy.worker, legacy.death), 0
    lost: list[presence.Lost] = []
    if legacy.suspects:
        lost = presence.lose(cycle, legacy.worker, "it was one of those that may have hung its worker", legacy.suspects)
    more, handed_back = presence.leave_or_bury(cycle, legacy.worker)
    return [*lost, *more], handed_back
