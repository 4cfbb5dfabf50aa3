"""How many callers' jobs of each task wait: what `size` bounds, kept exact without counting rows."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from sqlalchemy.engine import Connection

from yaotask.clock import Clock
from yaotask.store import statements
from yaotask.store.dialects.base import Dialect
from yaotask.store.direct import Posted, ask_ahead, execute, post
from yaotask.values import dumps


class Sizes(Protocol):
    """The counters as one transaction sees and changes them."""

    def room(self, task: str, size: int, wanted: int) -> int:
        """How many more callers' jobs may wait where `size` is the most and so many are wanted."""
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


class Overfull(Exception):
    """More jobs would wait than may, as far as can be seen without care."""


class Estimates:
    """What one ledger knows of the counters that it shares with others: good enough for so many seconds."""

    GOOD_FOR = 1.0

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[int, float]] = {}

    def get(self, task: str) -> int | None:
        """How many waited when this was last seen, unless that is too long ago."""
        waiting, moment = self._seen.get(task, (0, -self.GOOD_FOR))
        return waiting if self._clock.monotonic() - moment < self.GOOD_FOR else None

    def forget(self) -> None:
        """They have proved wrong."""
        self._seen.clear()

    def put(self, task: str, waiting: int) -> None:
        self._seen[task] = (waiting, self._clock.monotonic())


class Counted:
    """The ledger's way. Many processes share the counter rows, so they are touched as late as can be.

    With `estimates` it does not look at them before it writes, or keeps nobody from them: where there seems to
    be too little room, before or after, Overfull is raised, or the database refuses the transaction, and all is to
    be done again with care: without.
    """

    def __init__(self, connection: Connection, dialect: Dialect, estimates: Estimates | None) -> None:
        self._connection = connection
        self._dialect = dialect
        self._estimates = estimates
        self._stored: dict[str, int] = {}
        self._changes: Counter[str] = Counter()
        # The least size that was asked for, of tasks whose rows we have not locked.
        self._bounds: dict[str, int] = {}
        # How many wait now, of each task.
        self._seen = Posted()

    def room(self, task: str, size: int, wanted: int) -> int:
        if task not in self._stored:
            self._stored[task] = self._waiting(task)
        room = max(0, size - self._stored[task] - self._changes[task])
        if self._estimates is not None:
            if room < wanted:
                raise Overfull(task)
            self._bounds[task] = min(size, self._bounds.get(task, size))
        return room

    def _waiting(self, task: str) -> int:
        if self._estimates is None:
            waiting = self._dialect.statements.waiting(self._connection, task)
            # Whoever is paying debts in cannot commit while we have the counter: they still count.
            return self._read(task) if self._dialect.shared else waiting
        known = self._estimates.get(task)
        if known is None:
            known = self._read(task)
            self._estimates.put(task, known)
        return known

    def change(self, task: str, by: int) -> None:
        self._changes[task] += by

    def write(self) -> None:
        # In one order everywhere, so that no two transactions wait for each other.
        rows = sorted([task, by] for task, by in self._changes.items() if by)
        if not rows:
            return
        own, values = self._dialect.statements, {"rows": dumps(rows)}
        if self._estimates is None:
            post(self._connection, own.ADD_SIZES, values)
            return
        # Nobody else can change them any more before the commit.
        if own.ADD_SIZES_WITHIN is not None:
            bounds = {task: bound for task, bound in self._bounds.items() if self._changes[task] > 0}
            self._seen = ask_ahead(self._connection, own.ADD_SIZES_WITHIN, {**values, "bounds": dumps(bounds)})
            return
        post(self._connection, own.ADD_SIZES, values)
        for task in self._bounds:
            self._see(self._estimates, task, self._read(task))

    def learn(self) -> None:
        """Keep what was answered, once it was committed."""
        if self._estimates is not None and self._seen.answer is not None:
            for task, waiting in self._seen.answer.all():
                self._estimates.put(task, waiting)

    def _read(self, task: str) -> int:
        """With what callers' own transactions owe, which is paid in when the ledger hears of others."""
        return int(execute(self._connection, statements.WAITING_WITH_DEBTS, {"task": task}).scalar_one())

    def _see(self, estimates: Estimates, task: str, waiting: int) -> None:
        estimates.put(task, waiting)
        if self._changes[task] > 0 and waiting > self._bounds.get(task, waiting):
            raise Overfull(task)

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

    def room(self, task: str, size: int, wanted: int) -> int:
        found = execute(self._connection, statements.WAITING_WITH_DEBTS, {"task": task}).scalar_one()
        return max(0, size - int(found))

    def change(self, task: str, by: int) -> None:
        if by:
            execute(self._connection, statements.INSERT_SIZE_DEBT, {"task": task, "added": by})

    def write(self) -> None:
        """Each change was stored as it came."""

    def copy(self) -> Counter[str]:
        return Counter()

    def restore(self, changes: Counter[str]) -> None:
        """The savepoint did it."""
