"""MySQL and MariaDB, through PyMySQL; tried on MariaDB 10.11.

What a session must have is set when it is made, so that neither the server's configuration nor its version shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pymysql
from pymysql.constants import CR
from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.engine import Connection
from sqlalchemy.pool import NullPool, QueuePool

from yaotask.clock import Clock
from yaotask.errors import StorageUnavailable
from yaotask.store.dialects import mysql_address as addresses
from yaotask.store.dialects import mysql_hold
from yaotask.store.dialects import mysql_statements as sql
from yaotask.store.dialects.base import Database, Errors, Hold, Statements
from yaotask.store.dialects.mysql_connection import TlsOnceConnection
from yaotask.store.dialects.mysql_database import MysqlDatabase
from yaotask.store.dialects.mysql_errors import MysqlErrors
from yaotask.store.dialects.mysql_guard import GuardedConnection
from yaotask.store.dialects.mysql_joining import join
from yaotask.store.dialects.mysql_line import LedgerConnection
from yaotask.store.dialects.server import ServerDialect, ServerHold, unwrap
from yaotask.store.direct import execute, roll_back

_SECRETS = ("password", "passwd", "ssl_key_password")
_READ_COMMITTED = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
# What a server may be set to for people: no update goes from its rows to the keys then, and a commit begins a
# transaction, or ends the connection.
_NOT_FOR_PEOPLE = "sql_safe_updates = 0, completion_type = 0"
# Without backslashes a text grows little on its way; a claim comes back as one text; and the ledger would rather begin
# a transaction anew than wait long for a row that somebody else's transaction has, or for a table: any transaction that
# has read from one keeps it from being changed.
_SETTINGS = (
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_BACKSLASH_ESCAPES,NO_ENGINE_SUBSTITUTION',"
    f" group_concat_max_len = 268435456, {sql.LOCK_WAIT}, lock_wait_timeout = 2, default_storage_engine = InnoDB,"
    f" {_NOT_FOR_PEOPLE}"
)
# A process that is stopped in the middle of a transaction must not keep its rows from all others, be it that it has
# only read them so far. MySQL has no such setting.
_IDLE_TIMEOUT = "idle_transaction_timeout = 10"


class MysqlDialect(ServerDialect):
    """A store on the MySQL or MariaDB server that `url` leads to."""

    name = "mysql"
    begin = "BEGIN"
    # In Oracle's mode, which a handler's session may have, BEGIN opens a block.
    begin_guarded = "START TRANSACTION"
    statements: Statements = sql

    def __init__(self, url: URL) -> None:
        super().__init__(url)
        addresses.refuse_unfit_options(url)
        self.label = url.difference_update_query(_SECRETS).render_as_string(hide_password=True)
        self.database: Database = MysqlDatabase(self.label)
        self.errors: Errors = MysqlErrors(self.label)
        self._address = addresses.address(url)
        self._options = addresses.driver_options(url)
        where = url.query.get("unix_socket") or f"{url.host or 'localhost'}:{url.port or 3306}"
        # The same by either name.
        self.place = f"mysql://{where}/{url.database}"
        self._store: str | None = None

    def engine(self, *, writer: bool) -> Engine:
        """The writer keeps its one connection itself; readers share a few, each tried before it is used."""
        few: dict[str, Any] = {"poolclass": QueuePool, "pool_size": 2, "max_overflow": 8, "pool_pre_ping": True}
        pool: dict[str, Any] = {"poolclass": NullPool} if writer else few
        engine = create_engine(
            self._address, **pool, isolation_level="AUTOCOMMIT", connect_args=self._options, hide_parameters=True
        )
        _connect_by(engine, LedgerConnection if writer else TlsOnceConnection)
        event.listen(engine, "connect", self._configure_writer if writer else self._configure_reader, insert=True)
        return engine

    def _configure_writer(self, connection: Any, _record: Any) -> None:
        self._set_up(connection, _limited(_SETTINGS, connection))
        connection.allow_waiting()

    def _configure_reader(self, connection: Any, _record: Any) -> None:
        self._set_up(connection, _SETTINGS)

    def _set_up(self, connection: Any, settings: str) -> None:
        addresses.refuse_old(connection.get_server_info(), self.label)
        with connection.cursor() as cursor:
            cursor.execute(_READ_COMMITTED)
            cursor.execute(settings)
            cursor.execute("SELECT @@max_allowed_packet")
            (most,) = cursor.fetchone()
        if most < addresses.SMALLEST_PACKET:
            raise StorageUnavailable(
                f"{self.label} takes statements of {most:,} bytes at most, yaotask needs"
                f" {addresses.SMALLEST_PACKET:,}: set max_allowed_packet there to 64M"
            )

    def guarded_engine(self) -> Engine:
        # A connection a transaction: it is closed with it, so that nobody can go on with it.
        engine = create_engine(
            self._address,
            poolclass=NullPool,
            pool_reset_on_return=None,
            connect_args=self._options,
            hide_parameters=True,
        )

        _connect_by(engine, GuardedConnection)
        event.listen(engine, "connect", _configure_guarded, insert=True)
        event.listen(engine, "handle_error", unwrap)
        return engine

    def join(self, connection: Connection) -> None:
        join(connection, self._name_of_store, self.label)

    def _name_of_store(self) -> str | None:
        if self._store is None:
            engine = self.engine(writer=True)
            with engine.connect() as own:
                self._store = execute(own, sql.STORE_NAME).scalar()
            engine.dispose()
        return self._store

    @contextmanager
    def snapshot(self, connection: Connection) -> Iterator[None]:
        execute(connection, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        execute(connection, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        try:
            yield
        finally:
            roll_back(connection)

    def now(self, connection: Connection, clock: Clock) -> int:
        return int(execute(connection, sql.NOW).scalar_one())

    def hold(self) -> Hold | None:
        return ServerHold.take(self.engine(writer=False), mysql_hold.take, mysql_hold.LOOK, mysql_hold.LEAVE)


def _connect_by(engine: Engine, kind: type[TlsOnceConnection]) -> None:
    def connect(_dialect: Any, _record: Any, arguments: Any, parameters: Any) -> Any:
        try:
            return kind(*arguments, **parameters)
        except UnicodeError as error:
            # Of a host that can be none.
            raise pymysql.OperationalError(CR.CR_UNKNOWN_HOST, str(error)) from error

    event.listen(engine, "do_connect", connect)


def _configure_guarded(connection: Any, _record: Any) -> None:
    with connection.cursor() as cursor:
        # As on every connection of ours: each statement sees what is committed when it begins.
        cursor.execute(_READ_COMMITTED)
        cursor.execute(_limited(f"SET SESSION {_NOT_FOR_PEOPLE}", connection))


def _limited(settings: str, connection: Any) -> str:
    """These settings, and for how long a transaction may stand still, where the server knows such a limit."""
    return f"{settings}, {_IDLE_TIMEOUT}" if "MariaDB" in connection.get_server_info() else settings
