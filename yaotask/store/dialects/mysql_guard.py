"""PyMySQL's connection for users' own statements: it cannot be ended by them, and can be by another thread.

Everything that is sent or fetched goes through one lock. Whoever ends it takes the lock, so that no statement is under
way; one that is gets killed on the server. Later statements find the reason instead of a connection, which is closed
with its transaction.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, NoReturn

import pymysql
from pymysql.constants.SERVER_STATUS import SERVER_STATUS_IN_TRANS, SERVER_STATUS_NO_BACKSLASH_ESCAPES
from pymysql.cursors import SSCursor

from yaotask.errors import TransactionError
from yaotask.store.dialects.base import COMMIT_ADVICE, ROLLBACK_ADVICE
from yaotask.store.dialects.mysql_connection import Plain, TlsOnceConnection
from yaotask.store.dialects.mysql_endings import ending_in
from yaotask.store.dialects.mysql_errors import code_of

Reason = Callable[[], Exception]

# Between two tries to stop a statement: the first may come before the server has it.
_INTERVAL = 0.05
# After so many tries the server is taken for lost, and the line is cut.
_MOST_TRIES = 100
# What the server says of a statement that it was told to stop.
_INTERRUPTED = 1317

_DEFINITION_ADVICE = (
    "MySQL commits whatever is under way before a statement that defines something: run it outside job.transaction()"
)
_SLIPPED = "the handler has ended the job's transaction behind its back; what was stored by it stays"
_GAVE_WAY = "the database has rolled the job's transaction back for the sake of another one; nothing of it was stored"


class GuardedConnection(TlsOnceConnection):
    """Free until `guard` is called; from then on only `end` and `cut` end its transaction."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        # Reentrant, because the garbage collector may close a cursor from anywhere.
        self.lock = threading.RLock()
        self._options = options
        self._guarded = False
        # What a late statement is told: it is over, or soon will be.
        self.over: Reason | None = None
        self._cut: Reason | None = None
        self.doomed = False
        super().__init__(*arguments, **options)

    def guard(self) -> None:
        """From now on its transaction is ours to end."""
        self._guarded = True

    @contextmanager
    def using(self) -> Iterator[None]:
        """Nothing else runs on the connection meanwhile. Raises what it was ended with."""
        with self.lock:
            self.refuse_late()
            try:
                yield
            except pymysql.Error:
                self.refuse_late()
                self._look_for_transaction()
                raise
            if self._guarded and not self._is_in_transaction():
                self._cut = self._cut or _slipped

    def refuse_late(self) -> None:
        """Raises what the transaction was ended with, if it was."""
        reason = self.over or self._cut
        if reason is not None:
            raise reason()

    def _is_in_transaction(self) -> bool:
        return bool(self.server_status & SERVER_STATUS_IN_TRANS)

    def _look_for_transaction(self) -> None:
        """After an error: some end the whole transaction, and what came later would be one of its own."""
        if self._guarded and self._sock is not None:
            with suppress(pymysql.Error):  # then the connection is gone, and the transaction with it
                Plain.ping(self)
                if not self._is_in_transaction():
                    self._cut = self._cut or _gave_way

    def _refuse_endings(self, text: str | bytes) -> None:
        read = text if isinstance(text, str) else text.decode(errors="replace")
        plain = bool(self.server_status & SERVER_STATUS_NO_BACKSLASH_ESCAPES)
        match ending_in(read, plain_backslashes=plain):
            case "definition":
                raise TransactionError(f"{COMMIT_ADVICE}; {_DEFINITION_ADVICE}")
            case "rollback":
                self._refuse_rollback()
            case "commit":
                raise TransactionError(COMMIT_ADVICE)

    def _refuse_rollback(self) -> NoReturn:
        self.doomed = True
        raise TransactionError(ROLLBACK_ADVICE)

    # --- its end ------------------------------------------------------------------------------------

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
            self._roll_back()
            return True
        finally:
            self.lock.release()

    def _stop(self) -> None:
        quick = {"connect_timeout": 2, "read_timeout": 2, "write_timeout": 2}
        # A server that cannot be asked is left when the tries are used up.
        with suppress(pymysql.Error, OSError):
            helper = TlsOnceConnection(**{**self._options, **quick})
            try:
                # Gone already where the statement has ended by itself.
                helper.query(f"KILL QUERY {self.thread_id()}")
            finally:
                helper.close()

    def _abandon(self, reason: Reason) -> bool:
        """Cut the line of a statement that cannot be stopped: the server rolls back, its thread finds the reason."""
        self.over = reason
        with suppress(OSError, AttributeError):  # its thread may just have given the line up
            self._sock.shutdown(socket.SHUT_RDWR)
        return True

    def _roll_back(self) -> None:
        try:
            if self._is_streaming():
                # Rows that were not fetched could be many: without a line the server rolls back by itself.
                self._result.unbuffered_active = False
            elif self._sock is not None:
                with suppress(pymysql.Error):
                    Plain.rollback(self)
        finally:
            self._force_close()

    def _is_streaming(self) -> bool:
        return self._result is not None and bool(self._result.unbuffered_active)

    def end(self, statement: str, reason: Reason) -> None:
        """COMMIT or ROLLBACK, then close; whatever comes later is told `reason`.

        Raises TransactionError for a commit that would break a rule of the tables, else the database's errors.
        """
        with self.lock:
            self.refuse_late()
            self.over = reason
            try:
                if self._is_streaming():
                    self._result._finish_unbuffered_query()
                Plain.query(self, statement)
            except pymysql.IntegrityError as error:
                raise TransactionError(f"the transaction was rolled back, its commit was refused: {error}") from error
            except pymysql.Error as error:
                if self._cut is not None and code_of(error) == _INTERRUPTED:
                    self.over = self._cut
                    self.refuse_late()
                raise
            finally:
                # Where the statement failed, this rolls back.
                self._force_close()

    # --- what SQLAlchemy and users call -------------------------------------------------------------

    def query(self, sql: str | bytes, unbuffered: bool = False) -> Any:
        with self.using():
            if self._guarded:
                self._refuse_endings(sql)
            return super().query(sql, unbuffered)

    def cursor(self, cursor: Any = None) -> Any:
        with self.lock:
            self.refuse_late()
            return _guarded(cursor or self.cursorclass)(self)

    def begin(self) -> None:
        self._refuse_once_guarded()
        super().begin()

    def commit(self) -> None:
        self._refuse_once_guarded()
        super().commit()

    def autocommit(self, value: Any) -> None:
        self._refuse_once_guarded()
        super().autocommit(value)

    def _refuse_once_guarded(self) -> None:
        if self._guarded:
            self.refuse_late()
            raise TransactionError(COMMIT_ADVICE)

    def rollback(self) -> None:
        if self._guarded:
            self.refuse_late()
            self._refuse_rollback()
        super().rollback()

    def ping(self, reconnect: bool = False) -> None:
        # Never a new connection in its place: nothing would be in a transaction there.
        with self.using():
            super().ping()

    def select_db(self, db: Any) -> None:
        with self.using():
            super().select_db(db)

    def show_warnings(self) -> Any:
        with self.using():
            return super().show_warnings()

    def close(self) -> None:
        """Also the pool's, when nobody holds the connection any more."""
        with self.lock:
            self.over = self.over or _closed
            if self._sock is not None:
                super().close()


class GuardedCursor:
    """What every kind of cursor does under its connection's lock, besides what goes through `query`."""

    connection: GuardedConnection | None

    @contextmanager
    def _using(self) -> Iterator[None]:
        if self.connection is None:  # a closed cursor says so itself
            yield
            return
        with self.connection.using():
            yield

    def fetchone(self) -> Any:
        with self._using():
            return super().fetchone()  # type: ignore[misc]

    def fetchmany(self, size: int | None = None) -> Any:
        with self._using():
            return super().fetchmany(size)  # type: ignore[misc]

    def fetchall(self) -> Any:
        with self._using():
            return super().fetchall()  # type: ignore[misc]

    def nextset(self) -> Any:
        with self._using():
            return super().nextset()  # type: ignore[misc]

    def close(self) -> None:
        connection = self.connection
        if connection is None:
            return
        with connection.lock:
            if connection.over is None:
                super().close()  # type: ignore[misc]
            self.connection = None


@cache
def _guarded(kind: Any) -> Any:
    members = {"__del__": GuardedCursor.close} if issubclass(kind, SSCursor) else {}
    return type(f"Guarded{kind.__name__}", (GuardedCursor, kind), members)


def _closed() -> TransactionError:
    return TransactionError("the connection of this transaction was closed")


def _slipped() -> TransactionError:
    return TransactionError(_SLIPPED)


def _gave_way() -> TransactionError:
    return TransactionError(_GAVE_WAY)
