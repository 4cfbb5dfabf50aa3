"""A hint to the workers of other machines, through the database: worth little, so it costs little.

Losing one costs time and nothing else, for the poll is the truth.
"""

from __future__ import annotations

import logging

from yaotask.clock import Clock
from yaotask.errors import StorageError
from yaotask.store.sql import SqlStore

log = logging.getLogger(__name__)

# At most one in so many seconds, because each wakes every worker of every node.
EVERY = 0.005


class Shout:
    """What a ledger calls out after a commit that left something to others. Belongs to the ledger's thread."""

    def __init__(self, store: SqlStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._owed = False
        self._next = 0.0

    def owe(self) -> None:
        """There is something for others."""
        self._owed = True

    def pay(self) -> float | None:
        """Call it out, unless that was done just now; then the answer is how many seconds to wait with it."""
        if not self._owed:
            return None
        now = self._clock.monotonic()
        if now < self._next:
            return self._next - now
        self._owed, self._next = False, now + EVERY
        try:
            self._store.announce()
        except StorageError as error:
            log.info("other nodes find their jobs by polling alone: %s", error)
        return None
