"""The one connection through which a process writes, and its transactions. Belongs to one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Engine
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from yaotask.chance import Chance
from yaotask.clock import Clock
from yaotask.errors import OutcomeUnknown, StorageBusy, StorageError, StorageFull, StorageUnavailable
from yaotask.store.dialects.base import Dialect
from yaotask.store.direct import execute, expect_answers, forget, post, settle_or_take_along, was_undone

T = TypeVar("T")

# How long a writer waits for another one, in seconds, and how long between its looks: short, and
# drawn anew each time, because SQLite serves waiting writers in no order.
PATIENCE = 30.0
SHORTEST_WAIT, LONGEST_WAIT = 0.000_2, 0.002
# Seconds for which a server that has answered is taken to be there still.
FRESH = 2.0


class Conflict(StorageBusy):
    """The transaction had to give way to another one; nothing was stored."""


class _Gone(StorageUnavailable):
    """The connection was lost before a commit was sent on it; nothing was stored."""


class Refused(StorageError):
    """What went along with the commit could not be done, so that nothing was stored."""


class Writer:
    """Opens its connection when it is first used, and a new one where the last is of no more use."""

    def __init__(self, dialect: Dialect, clock: Clock, chance: Chance) -> None:
        self.engine: Engine = dialect.engine(writer=True)
        self.patience = PATIENCE
        # How many it has had.
        self.connections = 0
        self._dialect = dialect
        self._clock = clock
        self._chance = chance
        self._connection: Connection | None = None
        self._mark: int | None = None
        # When the server has last answered on this connection.
        self._heard = -FRESH

    def write(self, work: Callable[[Connection], T]) -> T:
        """See SqlStore. What had to give way to another transaction is done once more, as a whole."""
        deadline = self._clock.monotonic() + self.patience
        while True:
            try:
                return self._write(work)
            except Conflict:
                if self._clock.monotonic() > deadline:
                    raise
            self._clock.pause(self._chance.uniform(SHORTEST_WAIT, LONGEST_WAIT))

    def _write(self, work: Callable[[Connection], T]) -> T:
        was_open = self._connection is not None
        try:
            return self._write_once(work)
        except _Gone:
            # A server may have ended an idle connection.
            if not was_open:
                raise
        return self._write_once(work)

    def _write_once(self, work: Callable[[Connection], T]) -> T:
        connection = self._begin()
        try:
            self._dialect.database.must_be_in_place()
            result = work(connection)
            settle_or_take_along(connection)
        except BaseException as error:
            is_gone = _is_gone(connection, error)
            self._rollback(connection)
            if isinstance(error, DBAPIError) and not isinstance(error, IntegrityError):
                raise self._reason(error, is_gone) from error
            raise
        self._commit(connection)
        return result

    def changed(self) -> bool:
        """Whether another connection has committed since the last time this was asked."""
        self._dialect.database.must_be_in_place()
        with self.translated():
            mark = self._dialect.change_mark(self.connected())
        known, self._mark = self._mark, mark
        return mark != known

    def connected(self) -> Connection:
        """The connection, outside a transaction of ours."""
        if self._connection is None:
            self._connection = self.engine.connect()
            self.connections += 1
        return self._connection

    def heard(self) -> None:
        """The server has answered just now."""
        self._heard = self._clock.monotonic()

    def disconnect(self) -> None:
        """Give the connection up. More than once is fine."""
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None
        self.engine.dispose()
        self._mark = None
        self._heard = -FRESH

    @contextmanager
    def translated(self) -> Iterator[None]:
        """The database's errors come in our words."""
        try:
            yield
        except DBAPIError as error:
            raise self._explained(error) from error

    def _begin(self) -> Connection:
        def begin() -> Connection:
            connection = self.connected()
            expect_answers(connection, self._clock.monotonic() - self._heard < FRESH)
            post(connection, self._dialect.begin)
            return connection

        try:
            return wait_for_lock(begin, self.patience, self._dialect, self._clock, self._chance)
        except DBAPIError as error:
            is_gone = self._connection is not None and _is_gone(self._connection, error)
            raise self._reason(error, is_gone) from error

    def _commit(self, connection: Connection) -> None:
        try:
            execute(connection, "COMMIT")
        except DBAPIError as error:
            if was_undone(connection):
                self._rollback(connection)
                raise self._refusal(error) from error
            explained = self._explained(error)
            if isinstance(explained, StorageBusy | StorageFull):
                self._rollback(connection)
                raise explained from error
            # Never asked again on the same connection: after a failed fsync a second one may lie.
            self.disconnect()
            raise OutcomeUnknown(f"{explained}; the change may or may not have been stored") from error
        except BaseException:
            # What went along may have been begun.
            self.disconnect()
            raise
        self.heard()

    def _rollback(self, connection: Connection) -> None:
        try:
            forget(connection)
            execute(connection, "ROLLBACK")
        except SQLAlchemyError:
            # Some errors end the transaction, or the connection, by themselves; a new one is in a known state.
            self.disconnect()

    def _reason(self, error: DBAPIError, is_gone: bool) -> StorageError:
        """Why a transaction has failed of which no commit was sent."""
        explained = self._explained(error)
        return _Gone(str(explained)) if is_gone else explained

    def _refusal(self, error: DBAPIError) -> Exception:
        """Why what went along with a commit could not be done."""
        errors = self._dialect.errors
        if isinstance(error, IntegrityError):
            return error
        kind = Conflict if errors.is_conflict(error) and not errors.is_held(error) else Refused
        return kind(str(errors.explain(error.orig)))

    def _explained(self, error: DBAPIError) -> StorageError:
        if self._dialect.errors.is_conflict(error):
            return Conflict(str(self._dialect.errors.explain(error.orig)))
        explained = self._dialect.errors.explain(error.orig)
        if isinstance(explained, StorageUnavailable):
            self.disconnect()
        return explained


def _is_gone(connection: Connection, error: BaseException) -> bool:
    if not isinstance(error, DBAPIError) or error.orig is None or connection.invalidated:
        return False
    line: Any = connection.connection.driver_connection
    cause: Any = error.orig
    return connection.dialect.is_disconnect(cause, line, None)


def wait_for_lock(begin: Callable[[], T], patience: float, dialect: Dialect, clock: Clock, chance: Chance) -> T:
    """Begin a transaction, asking again while another writer has the store, for `patience` seconds."""
    deadline = clock.monotonic() + patience
    while True:
        try:
            return begin()
        except DBAPIError as error:
            busy = isinstance(dialect.errors.explain(error.orig), StorageBusy)
            if not busy or clock.monotonic() > deadline:
                raise
        clock.pause(chance.uniform(SHORTEST_WAIT, LONGEST_WAIT))
