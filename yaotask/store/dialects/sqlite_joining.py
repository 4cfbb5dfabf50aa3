"""Working inside a transaction that somebody else began on a connection of their own."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from sqlalchemy.engine import Connection

from yaotask.errors import StorageUnavailable, TransactionError


def join(connection: Connection, path: Path) -> None:
    """See that a connection is to the store's file and in a transaction, which is begun if need be."""
    if connection.dialect.name != "sqlite":
        raise StorageUnavailable(
            f"connection: it is to {connection.dialect.name}, the store is SQLite at {path}: a job can only be stored"
            " in a transaction of its own database"
        )
    _refuse_other_files(connection, path)
    raw = connection.connection.driver_connection
    if not isinstance(raw, sqlite3.Connection):
        raise TransactionError(f"connection: {type(raw).__name__} is not supported; use a synchronous SQLite engine")
    if raw.in_transaction:
        return
    if _commits_at_once(raw):
        raise TransactionError("connection: it is in AUTOCOMMIT, so that the job would not be part of any transaction")
    # Ours to begin, so it takes the write lock first: a transaction that begins with a read may find
    # another writer before it, and can then only be begun again.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _refuse_other_files(connection: Connection, path: Path) -> None:
    # This statement also lets the connection begin as its owner has it configured.
    listed = connection.exec_driver_sql("PRAGMA database_list").all()
    file = next((str(row[2]) for row in listed if row[1] == "main"), "")
    if not (file and os.path.exists(file) and os.path.samefile(file, path)):
        raise StorageUnavailable(
            f"connection: it is to {file or 'a database in memory'}, the store is {path}: a job can only be stored in"
            " a transaction of its own database"
        )


def _commits_at_once(raw: sqlite3.Connection) -> bool:
    # Since Python 3.12 `autocommit` decides, unless it says that `isolation_level` does.
    setting = getattr(raw, "autocommit", None)
    return setting is True or (setting is not False and raw.isolation_level is None)
