"""SQLite: one file, one writer at a time, no server."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.engine import Connection
from sqlalchemy.pool import NullPool, QueuePool, StaticPool

from yaotask.clock import Clock
from yaotask.store.dialects import sqlite_statements as sql
from yaotask.store.dialects.base import Database, Errors, Hold, Notices, Statements
from yaotask.store.dialects.sqlite_database import SqliteDatabase
from yaotask.store.dialects.sqlite_errors import SqliteErrors
from yaotask.store.dialects.sqlite_guard import GuardedConnection, unwrap
from yaotask.store.dialects.sqlite_hold import FileHold
from yaotask.store.dialects.sqlite_joining import join
from yaotask.store.direct import Posted, execute


class SqliteDialect:
    """A store in the file `path`."""

    name = "sqlite"
    shared = False
    begin = "BEGIN IMMEDIATE"
    begin_guarded = begin
    statements: Statements = sql

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database: Database = SqliteDatabase(path)
        self.errors: Errors = SqliteErrors(path)
        self.label = str(path)
        self.place = str(path.resolve())
        # Quoted, because a question mark of a folder's name would begin the options; and never made anew where
        # it is missing, because an empty file in its place looks like a store that was lost.
        name = "file:" + quote(os.fsencode(path.absolute()))
        self._url = URL.create("sqlite", database=name, query={"mode": "rw", "uri": "true"})

    def engine(self, *, writer: bool) -> Engine:
        """The writer has one connection and waits for the file itself, fairly; readers let SQLite wait."""
        wait = 0.0 if writer else 5.0
        # Reads are short, so that nobody need wait for a connection that another thread has.
        pool: dict[str, Any] = {"poolclass": StaticPool} if writer else {"poolclass": QueuePool, "max_overflow": -1}
        engine = create_engine(
            self._url,
            paramstyle="named",
            **pool,
            connect_args={"check_same_thread": False, "timeout": wait, "isolation_level": None},
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,
        )
        event.listen(engine, "connect", _configure)
        return engine

    def guarded_engine(self) -> Engine:
        connect = {"check_same_thread": False, "timeout": 0.0, "isolation_level": None, "factory": GuardedConnection}
        # A connection a transaction: it is closed with it, so that nobody can go on with it.
        engine = create_engine(
            self._url, poolclass=NullPool, pool_reset_on_return=None, connect_args=connect, hide_parameters=True
        )
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = FULL"))
        event.listen(engine, "handle_error", unwrap)
        return engine

    def join(self, connection: Connection) -> None:
        join(connection, self.path)

    @contextmanager
    def snapshot(self, connection: Connection) -> Iterator[None]:
        connection.exec_driver_sql("BEGIN")
        try:
            yield
        finally:
            connection.exec_driver_sql("ROLLBACK")

    def now(self, connection: Connection, clock: Clock) -> int:
        return clock.now()

    def change_mark(self, connection: Connection) -> int:
        return int(execute(connection, "PRAGMA data_version").scalar_one())

    def hold(self) -> Hold | None:
        file = self.path.resolve()
        return FileHold.take(file.with_name(f"{file.name}-moving"))

    def announce(self, connection: Connection, tasks: Collection[str]) -> None:
        """There are no other machines."""

    def announce_with_commit(self, connection: Connection, tasks: Collection[str]) -> Posted | None:
        return None

    def listen(self) -> Notices | None:
        return None


def _configure(connection: Any, _record: Any) -> None:
    for pragma in (
        # In WAL mode anything less may lose acknowledged commits when the power goes.
        "PRAGMA synchronous = FULL",
        "PRAGMA cache_size = -4000",
        "PRAGMA temp_store = MEMORY",
    ):
        connection.execute(pragma)
