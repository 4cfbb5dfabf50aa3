"""How a process forks although it has a store open.

SQLite knows its locks by process: a child that inherits an open database takes the locks of its parent for
its own, and waits for them for ever. So a fork waits until nobody uses a store, and gives up all connections
first; parent and child open new ones when they need them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol
from weakref import WeakValueDictionary

from yaotask import context, processes

# A little longer than a job's own transaction may last.
PATIENCE = 6.0


class Holder(Protocol):
    """Whoever has a store open."""

    def let_go(self) -> None:
        """Give up all connections until they are needed again; nobody uses them now."""
        ...

    def begin_anew(self, clean: bool) -> None:
        """In a child: forget what the parent has. Not `clean`, something of it was in use, and cannot be let go."""
        ...


class Gate:
    """Counts the uses of stores in this process. A fork waits until there are none, and keeps new ones waiting.

    First it waits for the end of transactions, which is up to users' code: that may need the store until then, or fork
    itself, so that only new transactions are kept waiting.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        # Transactions are uses too.
        self._uses = self._transactions = 0
        # How many forks wait for the end of transactions.
        self._waiting = 0
        self._shut = False

    def enter(self) -> None:
        with self._changed:
            while self._shut:
                self._changed.wait()
            self._uses += 1

    def leave(self) -> None:
        with self._changed:
            self._uses -= 1
            self._changed.notify_all()

    def begin(self) -> None:
        """Enter with a transaction."""
        with self._changed:
            while self._shut or self._waiting:
                self._changed.wait()
            self._uses += 1
            self._transactions += 1

    def end(self) -> None:
        """Leave with one."""
        with self._changed:
            self._transactions -= 1
            self.leave()

    def shut(self, patience: float) -> bool:
        """Let nobody in; whether all were out within so many seconds, for transactions and for the rest."""
        with self._changed:
            self._waiting += 1
            try:
                if not self._changed.wait_for(lambda: not self._transactions, patience):
                    patience = 0.0
                # Another fork. It waits for no transaction any more, or has given up, as we have.
                self._changed.wait_for(lambda: not self._shut)
            finally:
                self._waiting -= 1
            self._shut = True
            return self._changed.wait_for(lambda: not self._uses, patience)

    def open(self) -> None:
        with self._changed:
            self._shut = False
            self._changed.notify_all()


class Forks:
    """What the forks of this process must know. Python keeps such callbacks for ever, so there is one of it."""

    def __init__(self) -> None:
        self._gate = Gate()
        self._holders: WeakValueDictionary[int, Holder] = WeakValueDictionary()
        self._clean = False
        os.register_at_fork(before=self._before, after_in_parent=self._in_parent, after_in_child=self._in_child)

    def tell(self, holder: Holder) -> None:
        """Let a holder know of forks, as long as it lives."""
        self._holders[id(holder)] = holder

    @contextmanager
    def held_off(self) -> Iterator[None]:
        """No fork of this process happens meanwhile. Not to be nested."""
        gate = self._gate
        gate.enter()
        try:
            yield
        finally:
            gate.leave()

    def hold_off(self) -> HeldOff:
        """Like `held_off`, for a transaction: until the answer is ended. Users' code may do anything meanwhile."""
        return HeldOff(self._gate)

    def _before(self) -> None:
        # A thread that has a transaction open would wait for itself.
        patience = PATIENCE if context.transaction.get() is None else 0.0
        self._clean = self._gate.shut(patience)
        if self._clean:
            for holder in self._all():
                holder.let_go()
        # Last, and for a moment: a loop may wait to start a process.
        processes.starting.acquire()

    def _in_parent(self) -> None:
        self._gate.open()
        processes.starting.release()

    def _in_child(self) -> None:
        # Of the threads that may have been inside it, none is in this process.
        self._gate = Gate()
        processes.starting.release()
        for holder in self._all():
            holder.begin_anew(self._clean)
        self._clean = False

    def _all(self) -> list[Holder]:
        found = [reference() for reference in self._holders.valuerefs()]
        return [holder for holder in found if holder is not None]


class HeldOff:
    """Forks wait until this is ended."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._once = threading.Lock()
        gate.begin()

    def end(self) -> None:
        """More than once, and from any thread, is fine."""
        if self._once.acquire(blocking=False):
            self._gate.end()


forks = Forks()
