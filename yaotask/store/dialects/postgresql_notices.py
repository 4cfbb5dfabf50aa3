"""LISTEN and NOTIFY: the nodes of a PostgreSQL store wake each other."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import psycopg
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from yaotask.errors import StorageError
from yaotask.store.dialects.postgresql_errors import UNKNOWN_FUNCTION, UNKNOWN_STATEMENT, code_of
from yaotask.store.direct import Posted, execute, follow
from yaotask.store.hints import said, together, understood

Explain = Callable[[BaseException | None], StorageError]

# The channel is of a database: the nodes of another store in the same one look once too often, and no more.
_LISTEN = "LISTEN yaotask"
# Who listens is idle for as long as nobody says anything; servers before PostgreSQL 14 do not end that.
_STAY = "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'"
# A transaction of nothing else does not wait for the disk: what is lost with the power was a hint.
_NOTIFY = "SELECT pg_notify('yaotask', CAST(:words AS text))"


def announce(connection: Connection, tasks: Collection[str]) -> bool:
    """Wake everybody who listens; False where the server has no such thing."""
    try:
        execute(connection, _NOTIFY, {"words": said(tasks)})
    except DBAPIError as error:
        if code_of(error) not in (*UNKNOWN_STATEMENT, UNKNOWN_FUNCTION):
            raise
        return False
    return True


def announce_with_commit(connection: Connection, tasks: Collection[str]) -> Posted | None:
    """Do so on the way of the transaction's commit, in a transaction of its own. See Line.follow."""
    return follow(connection, _NOTIFY, {"words": said(tasks)})


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
        connection.execute(_STAY)
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

    def heard(self) -> frozenset[str] | None:
        try:
            heard = {understood(notice.payload) for notice in self._connection.notifies(timeout=0)}
            return together(heard) if heard else None
        except psycopg.Error as error:
            raise self._explain(error) from error

    def close(self) -> None:
        self._connection.close()
