"""What a database must bring of its own to be a store: a Dialect, and its three parts.

Each database has a file for each: `sqlite.py` connects, `sqlite_statements.py` is what a cycle says, in
`sqlite_database.py` the tables are made and looked after, and `sqlite_errors.py` explains what went wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from sqlalchemy import Engine
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError

from yaotask.clock import Clock
from yaotask.errors import StorageError
from yaotask.store.dialects.weaknesses import Unsound, Weakness
from yaotask.store.direct import Answer, Posted

# What users are told who try to end a transaction that is not theirs to end.
COMMIT_ADVICE = "the job ends its transaction itself: return to commit, raise to roll back"
ROLLBACK_ADVICE = "raise an exception to roll the job's transaction back; it will not be committed any more"


Nest = Callable[[str], str]


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
    """What to do with one database: how to connect to it, and by whom the rest is said."""

    name: str
    # The database as users know it, without its password.
    label: str
    # Which database: two dialects with the same place are of one.
    place: str
    # Whether many write at once: then rows are locked one by one, and a row that was read may change before it is.
    shared: bool

    # --- the rest of it -----------------------------------------------------------------------------

    statements: Statements
    database: Database
    errors: Errors

    # --- connections --------------------------------------------------------------------------------

    begin: str
    # The same for users' own statements, without settings for ours.
    begin_guarded: str

    def engine(self, *, writer: bool) -> Engine:
        """An engine on this store, in autocommit: for the ledger (`writer`) or for readers."""
        ...

    def guarded_engine(self) -> Engine:
        """An engine for users' own statements, without our settings; its connections are Guards."""
        ...

    def join(self, connection: Connection) -> None:
        """See that somebody's connection is to this database and in a transaction, which is begun if need be.

        Raises StorageUnavailable for another database, TransactionError where statements commit at once.
        """
        ...

    def snapshot(self, connection: Connection) -> AbstractContextManager[None]:
        """All that is read inside is of one moment."""
        ...

    def now(self, connection: Connection, clock: Clock) -> int:
        """The time that counts, in microseconds since 1970: a server's own, where several machines share it."""
        ...

    def change_mark(self, connection: Connection) -> int:
        """A number that changes when another connection has committed; constant where there is none."""
        ...

    def hold(self) -> Hold | None:
        """Keep others from moving this store until that is released, or this process ends; None where one moves it.

        Raises the driver's error, or StorageError.
        """
        ...

    # --- hints to other nodes -----------------------------------------------------------------------

    def announce(self, connection: Connection, tasks: Collection[str]) -> None:
        """Let all who listen know where to look, by a hint; nothing where the database has no such thing."""
        ...

    def announce_with_commit(self, connection: Connection, tasks: Collection[str]) -> Posted | None:
        """Do so on the way of the transaction's commit; None where that cannot be. See Line.follow."""
        ...

    def listen(self) -> Notices | None:
        """Begin to listen; None where the database has no such thing. Raises the driver's error, or StorageError."""
        ...


class Statements(Protocol):
    """What a cycle says in the words of one database: each dialect has a module of these names.

    A statement takes a batch as one JSON text: one parse on the other side is cheaper than binding each value, and the
    same text works everywhere. What all databases say alike is in `store.statements`.
    """

    # How JSON text stands inside the JSON of a batch, so that it is stored as it is; None: as it is.
    nest: Nest | None

    # --- adding -------------------------------------------------------------------------------------

    INSERT_JOBS: str
    INSERT_ADD_EVENTS: str
    ADD_SIZES: str
    # The same, which answers how many wait now, of each task; it fails where they are more than a bound of theirs.
    # None where no statement can do that.
    ADD_SIZES_WITHIN: str | None

    def reserve_ids(self, connection: Connection, task: str, count: int) -> int:
        """The first of so many ids that nobody else gets."""
        ...

    def waiting(self, connection: Connection, task: str) -> int:
        """How many callers' jobs of a task wait; nobody else changes that before the transaction ends."""
        ...

    def take_debts(self, connection: Connection) -> Sequence[Any]:
        """What callers' own transactions owe to `sizes`, of each its `task` and how many it `added`; now it is ours."""
        ...

    # --- claiming -----------------------------------------------------------------------------------

    PROMOTE: str
    SELECT_CLAIMS: str
    # None where SELECT_CLAIMS takes them too.
    TAKE_CLAIMS: str | None

    def gather_claims(self, answer: Answer) -> Any:
        """What SELECT_CLAIMS found: how many `jobs`, how many of them `counted`, their `keys_` as a JSON array
        where TAKE_CLAIMS needs them, and the `claims` as another.
        """
        ...

    # --- what becomes of claims ---------------------------------------------------------------------

    STORE_STARTED: str
    FINISH_SUCCESS: str
    FINISH_OTHER: str
    INSERT_ATTEMPTS: str
    ADD_ROLLUPS: str
    # Keeps others from jobs with these keys for the rest of the transaction; None where all writers are kept off.
    LOCK_JOBS: str | None
    # The same for those of them that nobody else has, which it tells; None where LOCK_JOBS is.
    FREE_JOBS: str | None
    # As FREE_JOBS, of events by their numbers.
    FREE_EVENTS: str | None
    # Hardly wait for others' locks from now on, and wait again as before; None where LOCK_JOBS is.
    BE_BRIEF: str | None
    BE_PATIENT: str | None

    # --- events -------------------------------------------------------------------------------------

    INSERT_EVENTS: str
    SELECT_DELIVERIES: str
    # Tells those of them that wait for an earlier event of their job all the same; None where there are none.
    SECOND_LOOK: str | None
    TAKE_DELIVERIES: str
    DELETE_EVENTS: str
    PUT_EVENTS_OFF: str
    RELEASE_HELD: str

    def gather_deliveries(self, answer: Answer) -> str:
        """What SELECT_DELIVERIES found, as a JSON array."""
        ...

    # --- workers ------------------------------------------------------------------------------------

    # Answers a whole Glance, where each question would be a way to a server; None where many are as cheap.
    GLANCE: str | None


class Database(Protocol):
    """The database itself: whether it is there, how its tables are made, and whether they are sound."""

    # Whether the making of a table can be rolled back.
    undoes_tables: bool

    def alone(self, connection: Connection) -> AbstractContextManager[object]:
        """Keep others from changing tables meanwhile, where the change of one cannot be part of a transaction."""
        ...

    def prepare(self) -> None:
        """See that it could be opened. Raises StorageUnavailable, with what to do."""
        ...

    def must_be_usable(self, connection: Connection) -> None:
        """Raise StorageUnavailable where it is too old, or cannot hold every text, whoever has made a store there."""
        ...

    def is_missing(self) -> bool:
        """Whether there is nothing yet, or nothing any more, that could be connected to.

        Raises StorageUnavailable where that cannot be seen.
        """
        ...

    def make(self) -> None:
        """Make what is missing, empty, with the folder of a file. Raises StorageUnavailable where it cannot be."""
        ...

    def must_be_in_place(self) -> None:
        """Raise StorageUnavailable where the database is not the one any more that it was at the first call."""
        ...

    def create(self, connection: Connection, fill: Callable[[Connection], None]) -> None:
        """Let `fill` make the tables in an empty database; nobody else does so meanwhile, or in vain."""
        ...

    def left_over(self, connection: Connection) -> Sequence[str]:
        """The statements that remove what was left by who did not come to the end of making the tables.

        Raises StorageUnavailable where any of it may be of use.
        """
        ...

    def furnish(self, connection: Connection) -> None:
        """What the tables need besides what `tables` says of them: the last step of making them."""
        ...

    def set_counters(self, connection: Connection) -> None:
        """Let keys go on behind those that were stored with their rows, where it does not see to that itself."""
        ...

    def analyze(self, connection: Connection, table: str) -> None:
        """Let a server, which plans by what is in its tables, know what is in one now: by itself it finds out later."""
        ...

    def facts(self, connection: Connection) -> dict[str, Any]:
        """For people: `bytes` that the store takes, and the `engine` with its version."""
        ...

    def fault(self, connection: Connection, tables: Sequence[str] | None) -> Unsound | None:
        """What is unsound about these tables, or all, as far as the database can tell; or None."""
        ...

    def must_be_writable(self, connection: Connection) -> None:
        """Raise StorageUnavailable, or the driver's error, where a server lets rows be read, but not be written.

        Nothing is changed.
        """
        ...

    def weaknesses(self, connection: Connection) -> Sequence[Weakness]:
        """What weakens a promise there: settings that lose commits, and what others do that slows us down."""
        ...


class Errors(Protocol):
    """What the errors of one database mean."""

    @property
    def of_driver(self) -> type[Exception]:
        """What its driver raises."""
        ...

    def is_taken_id(self, error: IntegrityError) -> bool:
        """Whether a job was refused because its task has that id already."""
        ...

    def is_taken_key(self, error: IntegrityError) -> bool:
        """Whether a job was refused because somebody used its idempotency key meanwhile."""
        ...

    def is_conflict(self, error: DBAPIError) -> bool:
        """Whether the transaction had to give way to another one: done again as a whole, it may succeed."""
        ...

    def is_held(self, error: DBAPIError) -> bool:
        """Whether somebody else's open transaction has kept a row or a key for too long. It is a conflict too."""
        ...

    def is_forbidden(self, error: DBAPIError) -> bool:
        """Whether the user lacks a right."""
        ...

    def is_unsound(self, error: DBAPIError) -> bool:
        """Whether what is there is no database, or a damaged one."""
        ...

    def explain(self, error: BaseException | None) -> StorageError:
        """The driver's own error in our words, each with what to do."""
        ...


class Hold(Protocol):
    """The lock of a move on a database. The database lets go of it when the process ends, however it ends."""

    def is_held(self) -> bool:
        """Whether it was never lost."""
        ...

    def release(self) -> None:
        """Let others move the store."""
        ...


class Notices(Protocol):
    """A connection on which a server says that some node has something for the others."""

    def fileno(self) -> int:
        """What to wait for until it can be read. Raises StorageError once the connection is gone."""
        ...

    def heard(self) -> frozenset[str] | None:
        """Read what came, without waiting; what the hints say, or None where there was none. Raises StorageError."""
        ...

    def close(self) -> None:
        """Listen no more. More than once is fine."""
        ...
