"""PostgreSQL 14 and newer, through psycopg 3.

Behind a pooler, which may give each transaction another connection of its own (PgBouncer in transaction mode), all
settings are of the transaction, and no lock or prepared statement outlives it. Where the connection is to the server
itself, statements are prepared: planning them anew each time made a cycle of one job three times slower. Which it is
the connection tells: a pooler does not know the process that will serve it. `?prepare_threshold=5` in the address lets
readers prepare behind a pooler too, which must be able to (PgBouncer 1.21, max_prepared_statements). All other
parameters of the address (TLS, several hosts, search_path by `options`) go to the driver as they are, but for the
encoding.

A process has one connection to write through, a few to read, and one more for each `job.transaction()` that is open.
All are named by `application_name`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.adapt import Loader
from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.engine import Connection
from sqlalchemy.pool import NullPool, QueuePool, StaticPool

from yaotask.clock import Clock
from yaotask.store.dialects import postgresql_address as addresses
from yaotask.store.dialects import postgresql_notices
from yaotask.store.dialects import postgresql_statements as sql
from yaotask.store.dialects.base import Database, Errors, Hold, Notices, Statements
from yaotask.store.dialects.postgresql_database import PostgresqlDatabase, hold_move
from yaotask.store.dialects.postgresql_errors import PostgresqlErrors
from yaotask.store.dialects.postgresql_guard import GuardedConnection
from yaotask.store.dialects.postgresql_joining import Identity, Joining
from yaotask.store.dialects.postgresql_line import LedgerConnection
from yaotask.store.dialects.server import ServerDialect, ServerHold, unwrap
from yaotask.store.direct import Posted, execute, roll_back

# What can be set once a connection, where the address does not say otherwise. A server that has vanished is noticed
# before the lease of this process is over.
_HABITS = {
    "application_name": "yaotask",
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}
# Of every connection, whatever the address or its `options` say: no other one can hold every text.
_ENCODING = {"client_encoding": "utf8"}
_READERS, _MORE_READERS = 2, 6
# A statement is prepared when it comes the next time after so many, on a connection to the server itself.
_PREPARED_AFTER = 5
# A process that is stopped in the middle of a transaction must not keep its rows from all others.
_IDLE_TIMEOUT = "idle_in_transaction_session_timeout = 10000"
_SESSION = f"{sql.SESSION_PLANS}; SET {sql.LOCK_TIMEOUT}; SET {_IDLE_TIMEOUT}"
_BEGIN_POOLED = f"{sql.BEGIN_PLANNED}; SET LOCAL {sql.LOCK_TIMEOUT}; SET LOCAL {_IDLE_TIMEOUT}"


class PostgresqlDialect(ServerDialect):
    """A store in a database of PostgreSQL."""

    name = "postgresql"
    begin_guarded = f"{sql.BEGIN}; SET LOCAL {_IDLE_TIMEOUT}"
    statements: Statements = sql

    def __init__(self, url: URL) -> None:
        super().__init__(url)
        # Right everywhere; once the writer knows that no pooler is between, it has the settings for good.
        self.begin = _BEGIN_POOLED
        self.place += f"?{addresses.whereabouts(url)}"
        self.label = addresses.label(url)
        self.database: Database = PostgresqlDatabase(self.label)
        self.errors: Errors = PostgresqlErrors(url, self.label)
        self._joining = Joining(self.label, self._identify)
        self._url = addresses.address(url)
        self._prepare = addresses.prepare_threshold(url)
        # Until it was tried nobody knows.
        self._has_notify: bool | None = None
        self._habits = {name: value for name, value in _HABITS.items() if name not in url.query} | _ENCODING

    def engine(self, *, writer: bool) -> Engine:
        """The writer has one connection; readers share a few, each seen to be alive before it is used."""
        pool: dict[str, Any] = {"poolclass": StaticPool}
        if not writer:
            pool = {
                "poolclass": QueuePool,
                "pool_size": _READERS,
                "max_overflow": _MORE_READERS,
                "pool_pre_ping": True,
                "pool_use_lifo": True,
            }
        engine = create_engine(
            self._url,
            **pool,
            connect_args=self._habits,
            isolation_level="AUTOCOMMIT",
            use_native_hstore=False,
            hide_parameters=True,
        )
        event.listen(engine, "do_connect", _connect_by(LedgerConnection if writer else psycopg.Connection))
        event.listen(engine, "connect", self._configure_writer if writer else self._configure_reader)
        return engine

    def _configure_writer(self, connection: Any, _record: Any) -> None:
        connection.adapters.register_loader("numeric", _Number)
        direct = is_direct(connection)
        # With a ROLLBACK psycopg discards what it has prepared, and all else that was.
        connection.prepare_threshold = None
        if direct:
            connection.execute(_SESSION)
            connection.allow_waiting(self._prepare or _PREPARED_AFTER)
        self.begin = sql.BEGIN if direct else _BEGIN_POOLED

    def _configure_reader(self, connection: Any, _record: Any) -> None:
        connection.adapters.register_loader("numeric", _Number)
        connection.prepare_threshold = self._prepare or (_PREPARED_AFTER if is_direct(connection) else None)

    def guarded_engine(self) -> Engine:
        # The transaction is begun by us, so that the driver must not begin one itself.
        connect = {**self._habits, "prepare_threshold": None, "autocommit": True}
        # A connection a transaction: it is closed with it, so that nobody can go on with it.
        engine = create_engine(
            self._url, poolclass=NullPool, pool_reset_on_return=None, connect_args=connect, hide_parameters=True
        )
        event.listen(engine, "do_connect", _connect_by(GuardedConnection))
        event.listen(engine, "handle_error", unwrap)
        return engine

    def join(self, connection: Connection) -> None:
        self._joining.join(connection)

    def _identify(self) -> Identity:
        engine = self.engine(writer=True)
        try:
            with engine.connect() as connection:
                database = connection.exec_driver_sql(sql.WHERE_IT_IS).one().database
                return database, str(connection.exec_driver_sql(sql.STORE_ID).scalar_one())
        finally:
            engine.dispose()

    @contextmanager
    def snapshot(self, connection: Connection) -> Iterator[None]:
        connection.exec_driver_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield
        finally:
            roll_back(connection)

    def now(self, connection: Connection, clock: Clock) -> int:
        return int(execute(connection, sql.NOW).scalar_one())

    def hold(self) -> Hold | None:
        # Behind a pooler a connection is ours as long as a transaction lasts.
        return ServerHold.take(self.engine(writer=False), hold_move, "SELECT 1", "ROLLBACK")

    # --- hints to other nodes -----------------------------------------------------------------------

    def announce(self, connection: Connection, tasks: Collection[str]) -> None:
        if self._has_notify is not False:
            self._has_notify = postgresql_notices.announce(connection, tasks)

    def announce_with_commit(self, connection: Connection, tasks: Collection[str]) -> Posted | None:
        return postgresql_notices.announce_with_commit(connection, tasks) if self._has_notify else None

    def listen(self) -> Notices | None:
        habits = {**addresses.driver_options(self._url), **self._habits}
        connection = connect(psycopg.Connection, **habits, prepare_threshold=None, autocommit=True)
        return postgresql_notices.listen(connection, is_direct, self.errors.explain)


class _Number(Loader):
    """Sums come as numerics: whole ones are plain integers, as they are from every other database."""

    def load(self, data: Any) -> int | float:
        text = bytes(data).decode()
        return int(text) if text.lstrip("-").isdigit() else float(text)


def is_direct(connection: Any) -> bool:
    """Whether a connection is to the server itself: what a pooler calls the other end is no process of the server."""
    (served_by,) = connection.execute("SELECT pg_backend_pid()").fetchone()
    return bool(served_by == connection.info.backend_pid)


def _connect_by(kind: type[psycopg.Connection[Any]]) -> Callable[..., Any]:
    return lambda _dialect, _record, arguments, options: connect(kind, *arguments, **options)


def connect(kind: type[psycopg.Connection[Any]], *arguments: Any, **options: Any) -> psycopg.Connection[Any]:
    """A connection. Raises psycopg.Error, also where the system refuses what psycopg waits with, or a host is none."""
    try:
        return kind.connect(*arguments, **options)
    except (OSError, UnicodeError) as error:
        raise psycopg.OperationalError(f"connection failed: {error}") from error
