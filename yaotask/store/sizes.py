"""How many callers' jobs of each task wait: what `size` bounds, kept exact without counting rows."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from sqlalchemy.engine import Connection

from yaotask.store import statements
from yaotask.store.dialects.base import Dialect
from yaotask.store.direct import execute
from yaotask.values import dumps


class Sizes(Protocol):
    """The counters as one transaction sees and changes them."""

    def waiting(self, task: str) -> int:
        """How many callers' jobs of the task were never claimed."""
        ...

    def change(self, task: str, by: int) -> None:
        """So many more, or fewer, wait."""
        ...

    def write(self) -> None:
        """Store what is not stored yet: the last statement of the transaction."""
        ...

    def copy(self) -> Counter[str]:
        """The changes that are not stored yet."""
        ...

    def restore(self, changes: Counter[str]) -> None:
        """Back to the changes of a copy."""
        ...


class Counted:
    """The ledger's way. Many processes share the counter rows, so they are touched as late as can be."""

    def __init__(self, connection: Connection, dialect: Dialect) -> None:
        self._connection = connection
        self._dialect = dialect
        self._stored: dict[str, int] = {}
        self._changes: Counter[str] = Counter()

    def waiting(self, task: str) -> int:
        if task not in self._stored:
            found = execute(self._connection, statements.WAITING_OF, {"task": task}).scalar()
            self._stored[task] = found or 0
        return self._stored[task] + self._changes[task]

    def change(self, task: str, by: int) -> None:
        self._changes[task] += by

    def write(self) -> None:
        rows = [[task, by] for task, by in self._changes.items() if by]
        if rows:
            execute(self._connection, self._dialect.add_sizes, {"rows": dumps(rows)})

    def copy(self) -> Counter[str]:
        return self._changes.copy()

    def restore(self, changes: Counter[str]) -> None:
        self._changes = changes


class Owed:
    """The way inside somebody else's transaction, which may last: each change is left as a row of its
    own, for the next cycle of any ledger to pay in. What is rolled back takes its row along.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def waiting(self, task: str) -> int:
        found = execute(self._connection, statements.WAITING_WITH_DEBTS, {"task": task}).scalar_one()
        return int(found)

    def change(self, task: str, by: int) -> None:
        if by:
            execute(self._connection, statements.INSERT_SIZE_DEBT, {"task": task, "added": by})

    def write(self) -> None:
        """Each change was stored as it came."""

    def copy(self) -> Counter[str]:
        return Counter()

    def restore(self, changes: Counter[str]) -> None:
        """The savepoint did it."""
