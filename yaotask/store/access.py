"""A process's way to its store: opened at the first use, asked from threads and from loops."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import anyio

from yaotask.bell import Bell
from yaotask.errors import StorageUnavailable
from yaotask.store.ledger import Ledger, LedgerThread
from yaotask.store.protocol import Ticket
from yaotask.store.sql import SqlStore

Request = Callable[[Ledger, Ticket], None]


class Opened(NamedTuple):
    """A store, and the ledger through which this process writes to it."""

    store: SqlStore
    ledger: Ledger
    thread: LedgerThread


class Access:
    """Opens a store when it is first needed, and again in a child that this process forks.

    Safe to use from any thread. What was opened before a fork is neither used nor closed in the
    child, as SQLite demands.
    """

    def __init__(self, open_: Callable[[], SqlStore], ledger_of: Callable[[SqlStore], Ledger]) -> None:
        self._open = open_
        self._ledger_of = ledger_of
        self._pid = os.getpid()
        self._opened: Opened | None = None
        self._opening = threading.Lock()
        self._closed = False
        self._inherited: list[Opened] = []

    @property
    def opened(self) -> Opened:
        """The store of this process. Raises StorageUnavailable where it cannot be opened, or after `close`."""
        if self._pid != os.getpid():
            self._leave_to_parent()
        return self._opened or self._open_now()

    def _leave_to_parent(self) -> None:
        if self._opened is not None:
            self._inherited.append(self._opened)
        # The lock may have been held by a thread that is not in this process.
        self._pid, self._opened, self._opening = os.getpid(), None, threading.Lock()

    def _open_now(self) -> Opened:
        with self._opening:
            if self._closed:
                raise StorageUnavailable("this app was closed")
            if self._opened is None:
                store = self._open()
                ledger = self._ledger_of(store)
                self._opened = Opened(store, ledger, LedgerThread(ledger))
            return self._opened

    def ask(self, request: Request) -> Any:
        """Have something written and wait, in a thread without a loop; the answer, or its error raised."""
        answered = threading.Lock()
        answered.acquire()
        ticket = Ticket(settle=answered.release)
        self._submit(request, ticket)
        answered.acquire()
        return _answer(ticket)

    async def aask(self, request: Request) -> Any:
        """Have something written and wait, on a loop. Cancelled, it is written all the same."""
        opened = self._opened
        if opened is None or self._pid != os.getpid():
            await anyio.to_thread.run_sync(lambda: self.opened)
        answered, bell = anyio.Event(), Bell.of_this_loop()
        ticket = Ticket(settle=lambda: bell.call(answered.set))
        self._submit(request, ticket)
        await answered.wait()
        return _answer(ticket)

    def _submit(self, request: Request, ticket: Ticket) -> None:
        opened = self.opened
        request(opened.ledger, ticket)
        # Looked at afterwards: a thread that ends now has either seen the request or is seen here.
        opened.thread.refuse_if_over()

    def close(self) -> None:
        """Write what has been asked for, then let go of the store. More than once is fine."""
        if self._pid != os.getpid():
            self._leave_to_parent()
        with self._opening:
            self._closed = True
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.thread.close()


def _answer(ticket: Ticket) -> Any:
    if ticket.error is not None:
        raise ticket.error
    return ticket.value
