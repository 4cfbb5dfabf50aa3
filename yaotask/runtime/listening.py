"""How a worker hears that there is something to claim or to cancel, before its poll would find it."""

from __future__ import annotations

import logging
from pathlib import Path

import anyio
import anyio.to_thread

from yaotask.chance import Chance
from yaotask.clock import Clock
from yaotask.errors import StorageError
from yaotask.store import hints
from yaotask.store.access import Access
from yaotask.store.dialects.base import Notices

log = logging.getLogger(__name__)

# How many seconds to leave a server alone that does not let us listen any more: about so many, drawn each time.
PAUSE = 1.0
# Where listening ends again and again before so many seconds, that is told once.
LASTING = 60.0


class Listener:
    """Hears the hints of this machine's processes, and those of other nodes where the database passes them on."""

    def __init__(self, access: Access, clock: Clock, chance: Chance, *, deaf: bool) -> None:
        """One that is `deaf` hears nothing: polling alone is sufficient."""
        self._access = access
        self._clock = clock
        self._chance = chance
        self._deaf = deaf

    async def near(self, path: Path) -> None:
        """Look at once when another process of this machine says that there is something, until cancelled."""
        if self._deaf:
            return
        try:
            ear = hints.Ear(path)
        except OSError as error:
            log.info("jobs that other processes add are found by polling alone: %s", error)
            return
        try:
            while True:
                self._access.opened.ledger.hinted(await ear.hear())
        finally:
            ear.close()

    async def far(self) -> None:
        """The same for what other nodes say, as long as the database passes it on."""
        told = False
        while not self._deaf:
            began = self._clock.monotonic()
            try:
                notices = await anyio.to_thread.run_sync(self._access.opened.store.listen)
                if notices is None:
                    return
                await self._hear(notices)
            except (StorageError, RuntimeError) as error:  # or there is no thread to be had
                if not told or self._clock.monotonic() - began > LASTING:
                    log.info("jobs of other nodes are found by polling alone for now: %s", error)
                    told = True
                await self._clock.sleep(PAUSE * self._chance.uniform(0.5, 1.5))

    async def _hear(self, notices: Notices) -> None:
        ledger = self._access.opened.ledger
        try:
            # Something may have been said just before we listened.
            ledger.hinted()
            while True:
                await anyio.wait_readable(notices.fileno())
                heard = notices.heard()
                if heard is not None:
                    ledger.hinted(heard)
        finally:
            notices.close()
