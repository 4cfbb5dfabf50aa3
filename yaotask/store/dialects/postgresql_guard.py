"""PostgreSQL's connection for users' own statements: it cannot be ended by them, and can be by another thread.

Whatever goes to the server passes `wait`, which finds the reason once the transaction is over. Whoever ends it takes
psycopg's own lock, so that no statement is under way; one that is gets cancelled. Behind that no statement can run
outside the transaction: the connection is closed with it.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import errors, pq, sql

from yaotask.errors import TransactionError
from yaotask.store.dialects.base import COMMIT_ADVICE, ROLLBACK_ADVICE
from yaotask.store.dialects.postgresql_endings import ending_in

Reason = Callable[[], Exception]

# Between two tries to stop a statement: the first may come before the server has it.
_INTERVAL = 0.05
# After so many tries the server is taken for lost, and the line is cut.
_MOST_TRIES = 100

_FAILED_ADVICE = (
    "a statement of the job's transaction has failed, and PostgreSQL undoes all of it then: put a statement that may"
    " fail between `with connection.begin_nested():`"
)
_SLIPPED = "the handler has ended the job's transaction behind its back; what it stored since stays"


class GuardedConnection(psycopg.Connection[Any]):
    """Free until `guard` is called; from then on only `end` and `cut` end its transaction."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.cursor_factory = GuardedCursor
        self.server_cursor_factory = GuardedServerCursor
        self._guarded = False
        # What a late statement is told: it is over, or soon will be.
        self.over: Reason | None = None
        self._cut: Reason | None = None
        self.doomed = False
        # The thread that is just ending it.
        self._ender: int | None = None

    def guard(self) -> None:
        """From now on its transaction is ours to end."""
        self._guarded = True

    def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
        """Where everything passes that goes to the server. Raises what the transaction was ended with."""
        if self._ender == threading.get_ident():
            return super().wait(gen, *arguments, **options)
        self.refuse_late()
        try:
            answer = super().wait(gen, *arguments, **options)
        except psycopg.Error as error:
            self.refuse_late()
            if isinstance(error, errors.InFailedSqlTransaction):
                raise TransactionError(_FAILED_ADVICE) from error
            raise
        if self._guarded and self.pgconn.transaction_status == pq.TransactionStatus.IDLE:
            self._cut = self._cut or _slipped
        return answer

    def refuse_late(self) -> None:
        """Raises what the transaction was ended with, if it was."""
        reason = self.over or self._cut
        if reason is not None:
            raise reason()

    def refuse_endings(self, query: object) -> None:
        """Raises TransactionError for SQL text that would end the transaction."""
        if not self._guarded:
            return
        self.refuse_late()
        plain = self.pgconn.parameter_status(b"standard_conforming_strings") != b"off"
        ending = ending_in(_text(query, self), plain_backslashes=plain)
        if ending is not None:
            self.doomed = self.doomed or ending == "rollback"
            raise TransactionError(ROLLBACK_ADVICE if self.doomed else COMMIT_ADVICE)

    # --- its end ------------------------------------------------------------------------------------------

    def cut(self, reason: Reason) -> bool:
        """Roll back from any thread, at once; whatever comes later is told `reason`. False if it was over."""
        tries = 0
        while not self.lock.acquire(timeout=_INTERVAL if tries else 0):
            if self.over is not None:
                return False
            # A statement is under way: it is stopped, and the next one finds the reason.
            self._cut = self._cut or reason
            if tries == _MOST_TRIES:
                return self._abandon(reason)
            self._stop()
            tries += 1
        try:
            if self.over is not None:
                return False
            self.over = reason
        finally:
            self.lock.release()
        with self._ending(), suppress(psycopg.Error):  # where the line is down, the server rolls back by itself
            super().rollback()
        return True

    def _stop(self) -> None:
        # A server that cannot be asked is left when the tries are used up.
        with suppress(psycopg.Error, OSError):
            self.cancel_safe(timeout=2)

    def _abandon(self, reason: Reason) -> bool:
        """Cut the line of a statement that cannot be stopped: the server rolls back, its thread finds the reason."""
        self.over = reason
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self.pgconn.socket)) as line:
            line.shutdown(socket.SHUT_RDWR)
        return True

    def end(self, statement: str, reason: Reason) -> None:
        """COMMIT or ROLLBACK, then close; whatever comes later is told `reason`.

        Raises TransactionError for a commit that would break a rule of the tables, else the database's errors.
        """
        with self.lock:
            self.refuse_late()
            self.over = reason
        with self._ending():
            try:
                done = psycopg.Cursor(self).execute(statement.encode()).statusmessage
            except errors.IntegrityError as error:
                raise TransactionError(f"the transaction was rolled back, its commit was refused: {error}") from error
            except psycopg.Error:
                if self._cut is not None:
                    self.over = self._cut
                    self.refuse_late()
                raise
            if done != statement:
                # What PostgreSQL answers to the commit of a transaction in which a statement has failed.
                raise TransactionError(f"the transaction was rolled back: {_FAILED_ADVICE}")

    @contextmanager
    def _ending(self) -> Iterator[None]:
        self._ender = threading.get_ident()
        try:
            yield
        finally:
            self._ender = None
            # Where the statement failed, this rolls back.
            super().close()

    # --- what SQLAlchemy and users call -------------------------------------------------------------------

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        self.refuse_late()
        return super().cursor(*arguments, **options)

    def commit(self) -> None:
        if self._guarded:
            self.refuse_late()
            raise TransactionError(COMMIT_ADVICE)
        super().commit()

    def rollback(self) -> None:
        if self._guarded:
            self.refuse_late()
            self.doomed = True
            raise TransactionError(ROLLBACK_ADVICE)
        super().rollback()

    def close(self) -> None:
        """Also the pool's, when nobody holds the connection any more."""
        self.over = self.over or _closed
        super().close()


class _Guarded:
    """Of both kinds of cursor: nothing is sent that ends the transaction, nothing fetched once it is over."""

    connection: Any

    def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
        self.connection.refuse_endings(query)
        return super().execute(query, *arguments, **options)  # type: ignore[misc]

    def executemany(self, query: Any, *arguments: Any, **options: Any) -> None:
        self.connection.refuse_endings(query)
        super().executemany(query, *arguments, **options)  # type: ignore[misc]

    def copy(self, statement: Any, *arguments: Any, **options: Any) -> Any:
        self.connection.refuse_endings(statement)
        return super().copy(statement, *arguments, **options)  # type: ignore[misc]

    def stream(self, query: Any, *arguments: Any, **options: Any) -> Any:
        self.connection.refuse_endings(query)
        return super().stream(query, *arguments, **options)  # type: ignore[misc]

    def fetchone(self) -> Any:
        self.connection.refuse_late()
        return super().fetchone()  # type: ignore[misc]

    def fetchmany(self, size: int = 0) -> list[Any]:
        self.connection.refuse_late()
        return super().fetchmany(size)  # type: ignore[misc, no-any-return]

    def fetchall(self) -> list[Any]:
        self.connection.refuse_late()
        return super().fetchall()  # type: ignore[misc, no-any-return]

    def __next__(self) -> Any:
        self.connection.refuse_late()
        return super().__next__()  # type: ignore[misc]


class GuardedCursor(_Guarded, psycopg.Cursor[Any]):
    """A cursor whose rows came with the statement."""


class GuardedServerCursor(_Guarded, psycopg.ServerCursor[Any]):
    """A cursor whose rows are fetched from the server."""


def _text(query: object, connection: GuardedConnection) -> str:
    match query:
        case str():
            return query
        case bytes():
            return query.decode(errors="replace")
        case sql.Composable():
            return query.as_string(connection)
        case Iterable():
            # A template: its strings; what stands between them is bound.
            return " ".join(part if isinstance(part, str) else "$1" for part in query)
        case _:
            return str(query)


def _closed() -> TransactionError:
    return TransactionError("the connection of this transaction was closed")


def _slipped() -> TransactionError:
    return TransactionError(_SLIPPED)
