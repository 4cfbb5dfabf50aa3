"""A process's way to its store: opened at the first use, asked from threads and from loops."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any, NamedTuple, Protocol

import anyio
import anyio.to_thread
from sqlalchemy.engine import Connection

from yaotask import context
from yaotask.bell import Bell
from yaotask.clock import Clock
from yaotask.errors import StorageError, StorageUnavailable, TransactionError
from yaotask.spelling import class_name
from yaotask.store.cycle import SqlCycle
from yaotask.store.forks import forks
from yaotask.store.ledger import Ledger
from yaotask.store.ledger_thread import CLOSED, LedgerThread
from yaotask.store.protocol import Ticket
from yaotask.store.sql import SqlStore

Request = Callable[[Ledger, Ticket], None]

# Seconds between two tries of who insists.
PAUSE = 0.2


class Driver(Protocol):
    """Takes the turns of a ledger, from its first request to its end: a thread, or whoever stands in for one."""

    on_death: Callable[[], None]

    def refuse_if_over(self) -> None:
        """Answer what was asked too late: nothing will be written any more."""
        ...

    def close(self) -> None:
        """Write what has come in, then stop and let go of the store. More than once is fine."""
        ...


class Opened(NamedTuple):
    """A store, the ledger through which this process writes to it, and what drives that."""

    store: SqlStore
    ledger: Ledger
    driver: Driver


class Access:
    """Opens a store when it is first needed, and again in a child that this process forks.

    Safe to use from any thread.
    """

    def __init__(
        self,
        open_: Callable[[], SqlStore],
        ledger_of: Callable[[SqlStore], Ledger],
        drive: Callable[[Ledger], Driver] = LedgerThread,
    ) -> None:
        self._open = open_
        self._ledger_of = ledger_of
        self._drive = drive
        # Called by the ledger's driver when it ends by an error, after which nothing can be written any more.
        self.on_death: Callable[[], None] = lambda: None
        # Whether it has ended so.
        self.has_died = False
        self._opened: Opened | None = None
        self._opening = threading.Lock()
        # Why the store cannot be used any more.
        self._over: str | None = None
        forks.tell(self)

    @property
    def opened(self) -> Opened:
        """The store of this process. Raises StorageUnavailable where it cannot be opened, or after `close`."""
        return self._opened or self._open_now()

    def _open_now(self) -> Opened:
        with self._opening:
            if self._over is not None:
                raise StorageUnavailable(self._over)
            if self._opened is None:
                store = self._open()
                ledger = self._ledger_of(store)
                driver = self._drive(ledger)
                driver.on_death = self._note_death
                self._opened = Opened(store, ledger, driver)
            return self._opened

    def _note_death(self) -> None:
        self.has_died = True
        # The one of this moment: it may be said before the store is opened, and again later.
        self.on_death()

    # --- the ledger ---------------------------------------------------------------------------------------

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
        if self._opened is None:
            await anyio.to_thread.run_sync(lambda: self.opened)
        answered, bell = anyio.Event(), Bell.of_this_loop()
        ticket = Ticket(settle=lambda: bell.call(answered.set))
        self._submit(request, ticket)
        await answered.wait()
        return _answer(ticket)

    async def insist(self, request: Request, patience: float, clock: Clock) -> Any:
        """Like `aask`, for what may be done twice: a store that is away has `patience` seconds to come back."""
        deadline = clock.monotonic() + patience
        while True:
            try:
                return await self.aask(request)
            except StorageError:
                # Without a ledger there is nothing to wait for.
                if self.has_died or clock.monotonic() >= deadline:
                    raise
            await clock.sleep(PAUSE)

    def _submit(self, request: Request, ticket: Ticket) -> None:
        opened = self.opened
        request(opened.ledger, ticket)
        # Looked at afterwards: a thread that ends now has either seen the request or is seen here.
        opened.driver.refuse_if_over()

    # --- without the ledger ---------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read from: the transaction of the job that runs in this context, or one of our own."""
        own = self.own_transaction()
        if own is not None:
            yield own
            return
        with self.opened.store.reading() as connection:
            yield connection

    @contextmanager
    def borrowing(self, connection: object) -> Iterator[SqlCycle]:
        """See SqlStore.borrow. Raises TransactionError for what is no connection of SQLAlchemy's."""
        if not isinstance(connection, Connection):
            kind = class_name(type(connection))
            raise TransactionError(
                f"connection: must be a Connection of SQLAlchemy, not {kind}; of a Session it is session.connection()"
            )
        with self.opened.store.borrow(connection) as cycle:
            yield cycle

    def own_transaction(self) -> Connection | None:
        """The transaction on this store that the job of this context has open: all its calls go through it."""
        transaction = context.transaction.get()
        if transaction is None or not transaction.is_on(self.opened.store.dialect):
            return None
        connection: Connection = transaction.connection
        return connection

    # --- the end --------------------------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """Whether that was said."""
        return self._over == CLOSED

    def close(self) -> None:
        """Write what has been asked for, then let go of the store. More than once is fine."""
        with self._opening:
            self._over = self._over or CLOSED
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.driver.close()

    def let_go(self) -> None:
        """See Holder."""
        if self._opened is not None:
            self._opened.store.close()

    def begin_anew(self, clean: bool) -> None:
        """See Holder."""
        if self._opened is not None and not clean:
            self._over = (
                "this process was forked while its parent used the store: start it by subprocess,"
                " or by multiprocessing's spawn or forkserver"
            )
        # The lock may have been held by a thread that is not in this process.
        self._opened, self._opening, self.has_died = None, threading.Lock(), False


def _answer(ticket: Ticket) -> Any:
    error = ticket.error
    if error is None:
        return ticket.value
    # One failure of the store is the answer to many: each asker gets an exception of its own.
    raise copy(error) if isinstance(error, StorageError) else error
