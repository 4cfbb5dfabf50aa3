"""Which dialect speaks to a database."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL

from yaotask.errors import StorageUnavailable
from yaotask.store.dialects.base import Dialect
from yaotask.store.dialects.sqlite import SqliteDialect

BACKENDS = ("sqlite", "postgresql", "mysql", "mariadb")


def dialect_of(url: URL) -> Dialect:
    """The dialect for an address whose backend is one of BACKENDS.

    Raises StorageUnavailable where the driver is not installed.
    """
    match url.get_backend_name():
        case "postgresql":
            return _postgresql(url)
        case "mysql" | "mariadb":
            return _mysql(url)
        case _:
            return SqliteDialect(Path(str(url.database)))


# A driver is imported only where it is needed: it takes as long as all of yaotask.


def _postgresql(url: URL) -> Dialect:
    try:
        from yaotask.store.dialects.postgresql import PostgresqlDialect  # noqa: PLC0415 - the driver
    except ImportError as error:
        raise _missing("postgresql", "psycopg", "postgres") from error
    return PostgresqlDialect(url)


def _mysql(url: URL) -> Dialect:
    try:
        from yaotask.store.dialects.mysql import MysqlDialect  # noqa: PLC0415 - the driver
    except ImportError as error:
        raise _missing("mysql", "PyMySQL", "mysql") from error
    return MysqlDialect(url)


def _missing(backend: str, driver: str, extra: str) -> StorageUnavailable:
    return StorageUnavailable(
        f'store: {backend} needs {driver}, which is not installed or does not work: pip install "yaotask[{extra}]"'
    )
