"""Working inside a transaction that somebody else began on a connection of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy.engine import Connection

from yaotask.errors import StorageUnavailable, TransactionError
from yaotask.store.dialects import postgresql_statements as sql

# The name of the database, and the id of the store in it.
Identity = tuple[str, str]


class Joining:
    """Tells connections to this store from others. `identify` asks the store itself, once."""

    def __init__(self, label: str, identify: Callable[[], Identity]) -> None:
        self._label = label
        self._identify = identify
        self._ours: Identity | None = None
        # Connections that were found to be to it: a connection is to one database for life.
        self._known: WeakSet[Any] = WeakSet()

    def join(self, connection: Connection) -> None:
        """See that a connection is to the store and in a transaction, which is begun if need be."""
        if connection.dialect.name != "postgresql":
            raise self._elsewhere(connection.dialect.name)
        raw = connection.connection.driver_connection
        if not isinstance(raw, psycopg.Connection):
            raise TransactionError(
                f"connection: {type(raw).__module__}.{type(raw).__name__} is not supported; use a synchronous engine on"
                " postgresql+psycopg://"
            )
        if raw.info.encoding != "utf-8":
            raise TransactionError(
                f"connection: it is in {raw.info.encoding}, which cannot hold every text: make its engine with"
                " ?client_encoding=utf8 in the address"
            )
        # This statement also lets SQLAlchemy and the driver begin as the connection's owner has it configured.
        database, has_store = connection.exec_driver_sql(sql.WHERE_IT_IS).one()
        if raw not in self._known:
            found = connection.exec_driver_sql(sql.STORE_ID).scalar() if has_store else None
            self._ours = self._ours or self._identify()
            if (database, found) != self._ours:
                raise self._elsewhere(f"{database} on {raw.info.host}:{raw.info.port}")
            self._known.add(raw)
        if raw.info.transaction_status == TransactionStatus.IDLE:
            raise TransactionError(
                "connection: it is in AUTOCOMMIT, so that the job would not be part of any transaction"
            )

    def _elsewhere(self, found: str) -> StorageUnavailable:
        return StorageUnavailable(
            f"connection: it is to {found}, the store is PostgreSQL at {self._label}: a job can only be stored in a"
            " transaction of its own database, with the same search_path"
        )
