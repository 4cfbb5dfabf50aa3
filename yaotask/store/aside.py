"""A connection beside the ledger's, for what must not be late: nothing that the ledger waits for delays it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.engine import Connection

from yaotask.chance import Chance
from yaotask.clock import Clock
from yaotask.store.dialects.base import Dialect
from yaotask.store.writer import Writer

T = TypeVar("T")


class Aside:
    """Writes short transactions of any thread, one after the other; connects when the first of them comes."""

    def __init__(self, dialect: Dialect, clock: Clock, chance: Chance) -> None:
        self._writer = Writer(dialect, clock, chance)
        self._one_by_one = threading.Lock()

    def write(self, work: Callable[[Connection], T]) -> T:
        """See Writer."""
        with self._one_by_one:
            return self._writer.write(work)

    def close(self) -> None:
        """Give the connection up, once nobody writes; one that is needed again is opened again."""
        with self._one_by_one:
            self._writer.disconnect()
