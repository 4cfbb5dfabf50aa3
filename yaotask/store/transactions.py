"""A job's own transaction: what its handler writes, and the end of the attempt, in one commit.

The handler's thread begins and finishes it; the timer that limits it may cut it off from another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, cast

from sqlalchemy import Engine
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from yaotask.clock import Clock
from yaotask.errors import (
    OutcomeUnknown,
    StorageBusy,
    StorageFull,
    TransactionError,
    TransactionTooLong,
)
from yaotask.store import statements
from yaotask.store.cycle import SqlCycle
from yaotask.store.dialects.base import COMMIT_ADVICE, ROLLBACK_ADVICE, Dialect, Guard
from yaotask.store.direct import execute
from yaotask.store.forks import forks
from yaotask.store.ids import IdBlocks
from yaotask.store.protocol import Finish, Progress
from yaotask.store.sizes import Owed
from yaotask.store.work import Misfit


class HandlersConnection(Connection):
    """The connection that a handler gets. It is in a transaction, and only the job ends that.

    These would be refused by the guard below too, but SQLAlchemy would then take the transaction for
    ended and refuse all that follows.
    """

    def commit(self) -> NoReturn:
        raise TransactionError(COMMIT_ADVICE)

    def rollback(self) -> NoReturn:
        cast(Guard, self.connection.dbapi_connection).doomed = True
        raise TransactionError(ROLLBACK_ADVICE)

    def begin(self) -> NoReturn:
        raise TransactionError(f"a transaction is under way already; {COMMIT_ADVICE}")

    def close(self) -> None:
        """Nothing: it is closed with the transaction."""


class Transaction:
    """Statements on `connection` are stored by `finish`, with the end of the attempt, or not at all."""

    def __init__(self, engine: Engine, dialect: Dialect, clock: Clock) -> None:
        self._dialect = dialect
        self._clock = clock
        self._hold = forks.hold_off()
        try:
            self.connection = HandlersConnection(engine)
        except BaseException:
            self._hold.end()
            raise
        # The same transaction, whatever the handler did to the state that SQLAlchemy keeps.
        self._ours = Connection(engine, self.connection.connection)
        self._guard = cast(Guard, self.connection.connection.dbapi_connection)

    def is_on(self, dialect: Dialect) -> bool:
        """Whether it is on the database of this dialect."""
        return self._dialect.place == dialect.place

    def begin(self) -> None:
        """Take the write lock. Raises the database's own error if another process has it."""
        execute(self._ours, self._dialect.begin_guarded)
        self._guard.guard()
        # So that SQLAlchemy's sessions see a transaction to join instead of beginning their own.
        Connection.begin(self.connection)

    def finish(self, finish: Finish, changes: Mapping[str, Any] | None = None) -> bool:
        """Write the job's progress `changes`, by column, and its end on this transaction, and commit.

        False, and everything is rolled back, when the claim was lost. Raises TransactionTooLong where
        it had expired, TransactionError where it was doomed, the handler had tried to roll back or the commit
        broke a rule of its tables, StorageFull, or OutcomeUnknown where the commit is in doubt; but for the
        last, nothing was stored.
        """
        try:
            if self._guard.doomed:
                raise TransactionError(
                    "nothing was stored, because the handler had asked for a rollback, or had gone on after an"
                    " exception in job.transaction()"
                )
            with self._translated():
                self._write(finish, changes or {})
        except Misfit:
            return False
        else:
            self._commit()
            return True
        finally:
            self.rollback()

    def _write(self, finish: Finish, changes: Mapping[str, Any]) -> None:
        claim = finish.claim
        worker = execute(self._ours, statements.WORKER_OF, {"key": claim.key}).scalar()
        now = self._dialect.now(self._ours, self._clock)
        # It adds nothing, so it needs no ids.
        cycle = SqlCycle(self._ours, self._dialect, IdBlocks(), Owed(self._ours), now, worker)
        if changes and not cycle.store_progress(Progress(claim.key, claim.fence, finish.started, dict(changes))):
            raise Misfit
        cycle.finish([finish])
        cycle.close()

    def _commit(self) -> None:
        try:
            self._guard.end("COMMIT", _ended)
        except self._dialect.errors.of_driver as error:
            explained = self._dialect.errors.explain(error)
            if isinstance(explained, StorageBusy | StorageFull):
                raise explained from error
            raise OutcomeUnknown(f"{explained}; the job and its effects may or may not have been stored") from error

    def doom(self) -> None:
        """Let nothing of it be stored, whatever comes: `finish` raises TransactionError."""
        self._guard.doomed = True

    def rollback(self) -> None:
        """Undo everything. More than once is fine, and after the end it does nothing."""
        self._cut(_ended)

    def expire(self) -> None:
        """Undo everything and give the write lock back, from any thread, whatever the handler is doing.

        Its later statements raise TransactionTooLong. Nothing happens to a transaction that has ended.
        """
        self._cut(_too_long)

    def _cut(self, reason: Callable[[], TransactionError]) -> None:
        try:
            self._guard.cut(reason)
        finally:
            self._hold.end()

    @property
    def expired(self) -> bool:
        """Whether it was rolled back because it lasted too long."""
        return self._guard.over is _too_long

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise self._dialect.errors.explain(error.orig) from error


def _ended() -> TransactionError:
    return TransactionError("the job's transaction has ended")


def _too_long() -> TransactionTooLong:
    return TransactionTooLong("job.transaction() held the store's write lock too long and was rolled back")
