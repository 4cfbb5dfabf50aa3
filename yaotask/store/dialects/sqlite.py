"""SQLite: one file, one writer at a time, no server."""

from __future__ import annotations

import os
import resource
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.pool import NullPool, QueuePool, StaticPool

from yaotask.errors import StorageBusy, StorageError, StorageFull, StorageUnavailable
from yaotask.store.dialects import sqlite_statements as sql
from yaotask.store.dialects.sqlite_guard import GuardedConnection, unwrap
from yaotask.store.dialects.sqlite_joining import join
from yaotask.store.direct import execute

_ADVICE = "nothing is stored any more; stop whoever uses it, put the right file back and start again"


class SqliteDialect:
    """A store in the file `path`."""

    name = "sqlite"
    error: type[Exception] = sqlite3.Error
    begin = "BEGIN IMMEDIATE"
    insert_jobs = sql.INSERT_JOBS
    select_claims = sql.SELECT_CLAIMS
    take_claims = sql.TAKE_CLAIMS
    finish_success = sql.FINISH_SUCCESS
    finish_other = sql.FINISH_OTHER
    store_started = sql.STORE_STARTED
    insert_events = sql.INSERT_EVENTS
    insert_attempts = sql.INSERT_ATTEMPTS
    add_rollups = sql.ADD_ROLLUPS
    add_sizes = sql.ADD_SIZES
    promote = sql.PROMOTE
    select_deliveries = sql.SELECT_DELIVERIES
    take_deliveries = sql.TAKE_DELIVERIES
    insert_add_events = sql.INSERT_ADD_EVENTS
    delete_events = sql.DELETE_EVENTS
    release_held = sql.RELEASE_HELD

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = str(path.resolve())
        # Device and inode, once they are known.
        self._file: tuple[int, int] | None = None
        # Quoted, because a question mark of a folder's name would begin the options; and never made anew where
        # it is missing, because an empty file in its place looks like a store that was lost.
        name = "file:" + quote(os.fsencode(path.absolute()))
        self._url = URL.create("sqlite", database=name, query={"mode": "rw", "uri": "true"})

    def must_be_in_place(self) -> None:
        # SQLite goes on with a file that was removed, and whatever is written there is lost with it.
        try:
            status = os.stat(self.path)
        except OSError as error:
            raise StorageUnavailable(f"{self.path} is gone while it is in use ({error.strerror}): {_ADVICE}") from error
        found = (status.st_dev, status.st_ino)
        self._file = self._file or found
        if found != self._file:
            raise StorageUnavailable(f"{self.path} was replaced while it is in use: {_ADVICE}")

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
        )
        event.listen(engine, "connect", _configure)
        return engine

    def guarded_engine(self) -> Engine:
        connect = {"check_same_thread": False, "timeout": 0.0, "isolation_level": None, "factory": GuardedConnection}
        # A connection a transaction: it is closed with it, so that nobody can go on with it.
        engine = create_engine(self._url, poolclass=NullPool, pool_reset_on_return=None, connect_args=connect)
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = FULL"))
        event.listen(engine, "handle_error", unwrap)
        return engine

    def join(self, connection: Connection) -> None:
        join(connection, self.path)

    def is_taken_id(self, error: IntegrityError) -> bool:
        return "yaotask_jobs.task, yaotask_jobs.id" in str(error.orig)

    def change_mark(self, connection: Connection) -> int:
        return int(execute(connection, "PRAGMA data_version").scalar_one())

    def translate(self, error: DBAPIError) -> StorageError:
        return explain(error.orig, self.path)

    def explain(self, error: BaseException | None) -> StorageError:
        return explain(error, self.path)


def _configure(connection: Any, _record: Any) -> None:
    for pragma in (
        # In WAL mode anything less may lose acknowledged commits when the power goes.
        "PRAGMA synchronous = FULL",
        "PRAGMA cache_size = -4000",
        "PRAGMA temp_store = MEMORY",
    ):
        connection.execute(pragma)


def explain(error: BaseException | None, path: Path) -> StorageError:
    """SQLite's error in our words, with what to do."""
    name = getattr(error, "sqlite_errorname", None) or ""
    if name == "SQLITE_BUSY_SNAPSHOT":
        return StorageBusy(f"{path} was written by another process since this transaction read it: begin it again")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StorageBusy(f"{path} is locked by another process; nothing was stored, try again")
    if name.startswith("SQLITE_FULL"):
        return StorageFull(f"the disk of {path} is full; nothing was stored: make room and try again")
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if name == "SQLITE_IOERR_WRITE" and most != resource.RLIM_INFINITY:
        # Not in doubt: what could not be written is the last of its transaction.
        return StorageFull(f"{path} may not grow: this process writes no file beyond {most:,} bytes (ulimit -f)")
    if name.startswith("SQLITE_NOTADB") or name.startswith("SQLITE_CORRUPT"):
        return StorageUnavailable(f"{path} is not a sound SQLite database ({error}): restore it from a backup")
    if name.startswith("SQLITE_READONLY"):
        return StorageUnavailable(f"{path} cannot be written: give this user write access to it and its folder")
    if name.startswith("SQLITE_CANTOPEN"):
        return StorageUnavailable(f"{path} cannot be opened: check that its folder exists and can be written")
    if isinstance(error, sqlite3.Error):
        return StorageUnavailable(f"{path}: {error}")
    return StorageUnavailable(f"{path} cannot be reached: {error}")
