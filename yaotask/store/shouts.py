"""A hint to the workers of other machines, through the database: worth little, so it costs little.

Losing one costs time and nothing else, for the poll is the truth.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from yaotask.clock import Clock
from yaotask.errors import StorageError
from yaotask.store import hints
from yaotask.store.sql import SqlStore

log = logging.getLogger(__name__)

# At most one in so many seconds, because each wakes every worker of every node.
EVERY = 0.005


class Shout:
    """What a ledger calls out after a commit that left something to others. Belongs to the ledger's thread."""

    def __init__(self, store: SqlStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        # Where others are to look.
        self._owed: set[frozenset[str]] = set()
        self._next = 0.0

    @property
    def is_free(self) -> bool:
        """Whether it could be called out now, and nothing is owed."""
        return not self._owed and self._clock.monotonic() >= self._next

    def passed_on(self) -> None:
        """Somebody else has called out just now."""
        self._next = self._clock.monotonic() + EVERY

    def owe(self, tasks: Collection[str]) -> None:
        """There is something for others, of these tasks; of none: look everywhere."""
        self._owed.add(frozenset(tasks))

    def pay(self) -> float | None:
        """Call it out, unless that was done just now; then the answer is how many seconds to wait with it."""
        if not self._owed:
            return None
        now = self._clock.monotonic()
        if now < self._next:
            return self._next - now
        where, self._next = hints.together(self._owed), now + EVERY
        self._owed.clear()
        try:
            self._store.announce(where)
        except StorageError as error:
            log.info("other nodes find their jobs by polling alone: %s", error)
        return None
