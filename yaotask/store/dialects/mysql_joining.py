"""Working inside a transaction that somebody else began on a connection of their own, on MySQL or MariaDB."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pymysql
from pymysql.constants.SERVER_STATUS import SERVER_STATUS_IN_TRANS
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from yaotask.errors import StorageUnavailable, TransactionError
from yaotask.store.dialects.mysql_errors import code_of
from yaotask.store.dialects.mysql_statements import STORE_NAME

# Its stubs know nothing of the server's status.
_Connection: Any = pymysql.connections.Connection

# In any other, what a job brings is refused by the driver, or stored as something else.
_CHARSET = "utf8mb4"

# There is no such table, no such column, no right to read it, no database chosen.
_NOT_OURS = frozenset({1146, 1054, 1142, 1046})


def join(connection: Connection, store: Callable[[], str | None], label: str) -> None:
    """See that a connection is to the database with this store, and in a transaction.

    It is begun by the first statement, as its owner has it configured.
    """
    if connection.dialect.name not in ("mysql", "mariadb"):
        raise StorageUnavailable(
            f"connection: it is to {connection.dialect.name}, the store is {label}: a job can only be stored"
            " in a transaction of its own database"
        )
    raw: Any = connection.connection.driver_connection
    if not isinstance(raw, _Connection):
        raise TransactionError(f"connection: {type(raw).__module__} is not supported; use an engine of mysql+pymysql")
    if raw.charset.lower() != _CHARSET:
        raise TransactionError(
            f"connection: it is in {raw.charset}, which cannot hold every text: make its engine with"
            f" ?charset={_CHARSET} in the address"
        )
    if _store_of(connection) != store():
        raise StorageUnavailable(
            f"connection: it is to another database, the store is {label}: a job can only be stored in a transaction"
            " of its own database"
        )
    if raw.get_autocommit() and not raw.server_status & SERVER_STATUS_IN_TRANS:
        raise TransactionError("connection: it is in AUTOCOMMIT, so that the job would not be part of any transaction")


def _store_of(connection: Connection) -> str | None:
    # By SQLAlchemy, which then knows that a transaction is under way.
    try:
        found: str | None = connection.exec_driver_sql(STORE_NAME).scalar()
        return found
    except DBAPIError as error:
        if code_of(error.orig) not in _NOT_OURS:
            raise
        return None
