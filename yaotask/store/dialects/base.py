"""What a database must bring of its own to be a store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sqlalchemy import Engine
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError

from yaotask.errors import StorageError

# What users are told who try to end a transaction that is not theirs to end.
COMMIT_ADVICE = "the job ends its transaction itself: return to commit, raise to roll back"
ROLLBACK_ADVICE = "raise an exception to roll the job's transaction back; it will not be committed any more"


class Guard(Protocol):
    """What a database's own connection must offer to carry a job's transaction."""

    doomed: bool
    over: Callable[[], Exception] | None

    def guard(self) -> None:
        """From now on only `end` and `cut` end its transaction."""
        ...

    def cut(self, reason: Callable[[], Exception]) -> bool:
        """Roll back from any thread, at once; whatever comes later is told `reason`. False if it was over."""
        ...

    def end(self, statement: str, reason: Callable[[], Exception]) -> None:
        """COMMIT or ROLLBACK, then close; whatever comes later is told `reason`."""
        ...


class Dialect(Protocol):
    """The statements and habits of one database.

    A statement takes a batch as one JSON text: one parse on the other side is cheaper than binding
    each value, and the same text works everywhere.
    """

    name: str
    # Which database: two dialects with the same place are of one.
    place: str
    # What its driver raises.
    error: type[Exception]
    begin: str
    insert_jobs: str
    select_claims: str
    take_claims: str
    finish_success: str
    finish_other: str
    store_started: str
    insert_events: str
    insert_attempts: str
    add_rollups: str
    add_sizes: str
    promote: str
    select_deliveries: str
    take_deliveries: str
    insert_add_events: str
    delete_events: str
    release_held: str

    def must_be_in_place(self) -> None:
        """Raise StorageUnavailable where the database is not the one any more that it was at the first call."""
        ...

    def engine(self, *, writer: bool) -> Engine:
        """An engine on this store: for the ledger (`writer`) or for readers."""
        ...

    def guarded_engine(self) -> Engine:
        """An engine for users' own statements, without our settings; its connections are Guards."""
        ...

    def join(self, connection: Connection) -> None:
        """See that somebody's connection is to this database and in a transaction, which is begun if need be.

        Raises StorageUnavailable for another database, TransactionError where statements commit at once.
        """
        ...

    def is_taken_id(self, error: IntegrityError) -> bool:
        """Whether a job was refused because its task has that id already."""
        ...

    def change_mark(self, connection: Connection) -> int:
        """A number that changes when another connection has committed; constant where there is none."""
        ...

    def translate(self, error: DBAPIError) -> StorageError:
        """SQLAlchemy's wrapping of the database's error in our words."""
        ...

    def explain(self, error: BaseException | None) -> StorageError:
        """The database's own error in our words."""
        ...
