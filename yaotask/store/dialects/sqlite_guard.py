"""SQLite's connection for users' own statements: it cannot be ended by them, and can be by another thread.

Everything that runs on it, fetches too, goes through one lock. Whoever ends it takes the lock, so
that no statement is under way; later statements find the reason instead of a connection, and none
of them can ever run in autocommit.
"""

from __future__ import annotations

import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy.engine import ExceptionContext

from yaotask.errors import TransactionError
from yaotask.store.dialects.base import COMMIT_ADVICE, ROLLBACK_ADVICE

T = TypeVar("T")
Reason = Callable[[], Exception]


class GuardedConnection(sqlite3.Connection):
    """Free until `guard` is called; from then on only `end` ends its transaction."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # Reentrant, because the garbage collector may close a connection from anywhere.
        self.lock = threading.RLock()
        self._cursors: weakref.WeakSet[GuardedCursor] = weakref.WeakSet()
        self._guarded = False
        # What a late statement is told: it is over, or soon will be.
        self.over: Reason | None = None
        self._cut: Reason | None = None
        self.doomed = False

    def guard(self) -> None:
        """From now on its transaction is ours to end."""
        self._guarded = True
        self.set_authorizer(self._authorize)

    def _authorize(self, action: int, what: str | None, *_: Any) -> int:
        if action != sqlite3.SQLITE_TRANSACTION:
            return sqlite3.SQLITE_OK
        self.doomed = self.doomed or what == "ROLLBACK"
        return sqlite3.SQLITE_DENY

    @contextmanager
    def using(self) -> Iterator[None]:
        """Nothing else runs on the connection meanwhile. Raises what it was ended with."""
        with self.lock:
            self._refuse_late()
            try:
                yield
            except sqlite3.DatabaseError as error:
                self._refuse_late()
                if getattr(error, "sqlite_errorname", None) == "SQLITE_AUTH":
                    raise TransactionError(ROLLBACK_ADVICE if self.doomed else COMMIT_ADVICE) from error
                raise

    def _refuse_late(self) -> None:
        reason = self.over or self._cut
        if reason is not None:
            raise reason()

    def cut(self, reason: Reason) -> bool:
        """Roll back from any thread, at once; whatever comes later is told `reason`. False if it was over."""
        if not self.lock.acquire(blocking=False):
            # A statement is under way: it is stopped, and the next one finds the reason.
            self._cut = reason
            self._interrupt()
            self.lock.acquire()
        try:
            if self.over is not None:
                return False
            self._end("ROLLBACK", reason)
            return True
        finally:
            self.lock.release()

    def _interrupt(self) -> None:
        try:
            self.interrupt()
        except sqlite3.ProgrammingError:
            pass  # it was closed between our two looks, so that there is nothing to stop

    def end(self, statement: str, reason: Reason) -> None:
        """COMMIT or ROLLBACK, then close; whatever comes later is told `reason`.

        Raises TransactionError for a commit that would break a rule of the tables, else SQLite's errors.
        """
        with self.lock:
            self._refuse_late()
            try:
                self._end(statement, reason)
            except sqlite3.IntegrityError as error:
                raise TransactionError(f"the transaction was rolled back, its commit was refused: {error}") from error
            except sqlite3.Error:
                if self._cut is not None:
                    self.over = self._cut
                    self._refuse_late()
                raise

    def _end(self, statement: str, reason: Reason) -> None:
        self.over = reason
        # A cursor that was read half-way would keep the file's lock, or refuse the commit.
        for cursor in list(self._cursors):
            sqlite3.Cursor.close(cursor)
        self.set_authorizer(None)
        try:
            if self.in_transaction:
                sqlite3.Connection.cursor(self).execute(statement)
        finally:
            # Where the statement failed, this rolls back.
            sqlite3.Connection.close(self)

    # --- what SQLAlchemy and users call -------------------------------------------------------------

    def cursor(self, factory: Any = None) -> Any:
        with self.using():
            cursor = super().cursor(factory or GuardedCursor)
            if isinstance(cursor, GuardedCursor):
                self._cursors.add(cursor)
            return cursor

    def commit(self) -> None:
        if self._guarded:
            self._refuse_late()
            raise TransactionError(COMMIT_ADVICE)
        super().commit()

    def rollback(self) -> None:
        if self._guarded:
            self._refuse_late()
            self.doomed = True
            raise TransactionError(ROLLBACK_ADVICE)
        super().rollback()

    def close(self) -> None:
        """Also the pool's, when nobody holds the connection any more."""
        with self.lock:
            self.over = self.over or _closed
            super().close()


def unwrap(context: ExceptionContext) -> Exception | None:
    """For SQLAlchemy: our errors reach users as they are, not wrapped in its own."""
    error = context.original_exception
    return type(error)(*error.args) if isinstance(error, TransactionError) else None


def _closed() -> TransactionError:
    return TransactionError("the connection of this transaction was closed")


class GuardedCursor(sqlite3.Cursor):
    """A cursor that does nothing but under its connection's lock."""

    connection: GuardedConnection

    def _guarded(self, call: Callable[..., T], *arguments: Any) -> T:
        with self.connection.using():
            return call(*arguments)

    def execute(self, *arguments: Any) -> GuardedCursor:
        self._guarded(super().execute, *arguments)
        return self

    def executemany(self, sql: str, rows: Iterable[Any]) -> GuardedCursor:
        self._guarded(super().executemany, sql, rows)
        return self

    def executescript(self, sql: str) -> GuardedCursor:
        self._guarded(super().executescript, sql)
        return self

    def close(self) -> None:
        with self.connection.lock:
            if self.connection.over is None:  # else it was closed then
                super().close()

    def fetchone(self) -> Any:
        return self._guarded(super().fetchone)

    def fetchmany(self, *arguments: Any) -> list[Any]:
        return self._guarded(super().fetchmany, *arguments)

    def fetchall(self) -> list[Any]:
        return self._guarded(super().fetchall)

    def __next__(self) -> Any:
        return self._guarded(super().__next__)
