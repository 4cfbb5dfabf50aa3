"""LISTEN and NOTIFY: the nodes of a PostgreSQL store wake each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from yaotask.errors import StorageError
from yaotask.store.dialects.postgresql_errors import UNKNOWN_STATEMENT, code_of
from yaotask.store.direct import execute

Explain = Callable[[BaseException | None], StorageError]

# The channel is of a database: the nodes of another store in the same one look once too often, and no more.
_LISTEN = "LISTEN yaotask"
# In one go and without a wait for the disk: what is lost with the power was a hint.
_NOTIFY = "BEGIN; SET LOCAL synchronous_commit = off; NOTIFY yaotask; COMMIT"


def announce(connection: Connection) -> bool:
    """Wake everybody who listens; False where the server has no such thing."""
    try:
        execute(connection, _NOTIFY)
    except DBAPIError as error:
        if code_of(error) not in UNKNOWN_STATEMENT:
            raise
        # It may have begun what it could not do.
        execute(connection, "ROLLBACK")
        return False
    return True


def listen(
    connection: psycopg.Connection[Any], is_direct: Callable[[Any], bool], explain: Explain
) -> PostgresqlNotices | None:
    """Make a connection listen, and do nothing else from now on.

    None where the server has no such thing, and behind a pooler, which would keep what listens for whoever comes next.
    """
    try:
        listens = is_direct(connection) and _begin_to_listen(connection)
    except BaseException:
        connection.close()
        raise
    if not listens:
        connection.close()
        return None
    return PostgresqlNotices(connection, explain)


def _begin_to_listen(connection: psycopg.Connection[Any]) -> bool:
    try:
        connection.execute(_LISTEN)
    except psycopg.Error as error:
        if error.sqlstate not in UNKNOWN_STATEMENT:
            raise
        return False
    return True


class PostgresqlNotices:
    """A connection that listens. See Notices."""

    def __init__(self, connection: psycopg.Connection[Any], explain: Explain) -> None:
        self._connection = connection
        self._explain = explain

    def fileno(self) -> int:
        try:
            return self._connection.fileno()
        except psycopg.Error as error:
            raise self._explain(error) from error

    def heard(self) -> bool:
        try:
            return bool(list(self._connection.notifies(timeout=0)))
        except psycopg.Error as error:
            raise self._explain(error) from error

    def close(self) -> None:
        self._connection.close()
