"""Statements of the hot path go straight to the driver, through SQLAlchemy's connection but not its machinery.

Preparing a result for what may be asked of it costs SQLAlchemy more than most of these statements cost
the database, and a cycle has half a dozen of them.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import namedtuple
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy.engine import Connection, CursorResult
from sqlalchemy.exc import DBAPIError


class Answer:
    """What a statement answered, read to its end."""

    __slots__ = ("_names", "_rows", "rowcount")

    def __init__(self, rows: Sequence[Any], names: tuple[str, ...], rowcount: int) -> None:
        self._rows = rows
        self._names = names
        # How many rows were changed.
        self.rowcount = rowcount

    def all(self) -> list[Any]:
        """The rows; their columns are attributes."""
        return list(map(_row(self._names)._make, self._rows))

    def one_or_none(self) -> Any:
        """The only row, or None."""
        if len(self._rows) > 1:
            raise LookupError(f"{len(self._rows)} rows where one was expected")
        return next(iter(self.all()), None)

    def one(self) -> Any:
        """The only row. Raises LookupError where there is none or more."""
        row = self.one_or_none()
        if row is None:
            raise LookupError("no row where one was expected")
        return row

    def scalar(self) -> Any:
        """The first value, or None."""
        return self._rows[0][0] if self._rows else None

    def scalar_one(self) -> Any:
        """The first value of the only row. Raises LookupError where there is none or more."""
        return self.one()[0]


# The argument has a name for each column of a statement in this package, so that the cache stays small.
@cache
def _row(names: tuple[str, ...]) -> Any:
    return namedtuple("Row", names, rename=True)


class Line(ABC):
    """A driver's connection on which a statement that answers nothing can wait, and travel with the next one."""

    can_wait: bool

    @abstractmethod
    def post(self, statement: str, values: Mapping[str, Any]) -> None:
        """Let a statement, in the driver's style, go with the next one, or send it now. Raises the driver's errors."""

    @abstractmethod
    def settle(self) -> None:
        """See that what was posted is done. Raises the driver's errors."""

    @abstractmethod
    def forget(self) -> None:
        """Do not send what was posted and is not sent yet."""


class _Later:
    """Like a cursor, but what it executes waits."""

    __slots__ = ("connection",)

    def __init__(self, line: Line) -> None:
        self.connection = line

    def execute(self, statement: str, values: Mapping[str, Any]) -> None:
        self.connection.post(statement, values)


_NAME = re.compile(r"(?<![:\w]):(\w+)")
# A column of ours that MySQL wants quoted where it stands alone.
_RESERVED = re.compile(r"(?<![\w.:`])key\b(?![(`])")
# Where others have a partial index on what is ready, MySQL has a column that is NULL for all else.
_READY = re.compile(r"\bqueue = :task AND task = :task AND state IN \(0, 5\) AND ready_at IS NOT NULL")
_ROW_LOCK = re.compile(r"\s+FOR UPDATE(?: SKIP LOCKED)?")


@cache
def in_style(statement: str, database: str) -> str:
    """A statement whose values are written `:name`, as this database and its driver want it.

    The driver's own style counts (PEP 249), not the one in which an engine of somebody else writes its statements.
    """
    if database == "sqlite":
        # Its writers exclude each other, so that there are no rows to lock.
        return _ROW_LOCK.sub("", statement)
    if database in ("mysql", "mariadb"):
        statement = _READY.sub("ready_queue = :task", _RESERVED.sub("`key`", statement))
    return _NAME.sub(r"%(\1)s", statement.replace("%", "%%"))


def ask(connection: Connection, statement: str, values: Mapping[str, Any] | None = None) -> CursorResult[Any]:
    """Run one of our statements where readers read: with SQLAlchemy's results and events."""
    return connection.exec_driver_sql(in_style(statement, connection.dialect.name), dict(values or {}))


def run(cursor: Any, statement: str, values: Mapping[str, Any]) -> None:
    """The one step in which a statement meets the driver."""
    cursor.execute(statement, values)


def execute(connection: Connection, statement: str, values: Mapping[str, Any] | None = None) -> Answer:
    """Run a statement in the driver's own style. Raises SQLAlchemy's DBAPIError, as its connection would."""
    driver: Any = connection.dialect.dbapi
    try:
        cursor = connection.connection.cursor()
        try:
            run(cursor, in_style(statement, connection.dialect.name), values or {})
            described = cursor.description
            names = tuple([column[0] for column in described]) if described else ()
            return Answer(cursor.fetchall() if described else [], names, cursor.rowcount)
        finally:
            cursor.close()
    except driver.Error as error:
        raise _as_sqlalchemys(connection, statement, error) from error


def post(connection: Connection, statement: str, values: Mapping[str, Any] | None = None) -> None:
    """Run a statement that answers nothing, at the latest with the next one, from which its error may come."""
    line = connection.connection.driver_connection
    if not (isinstance(line, Line) and line.can_wait):
        execute(connection, statement, values)
        return
    driver: Any = connection.dialect.dbapi
    try:
        run(_Later(line), in_style(statement, connection.dialect.name), values or {})
    except driver.Error as error:
        raise _as_sqlalchemys(connection, statement, error) from error


def settle(connection: Connection) -> None:
    """See that what was posted is done. Raises DBAPIError where it cannot be."""
    line = connection.connection.driver_connection
    if not isinstance(line, Line):
        return
    driver: Any = connection.dialect.dbapi
    try:
        line.settle()
    except driver.Error as error:
        raise _as_sqlalchemys(connection, "what was posted", error) from error


def _as_sqlalchemys(connection: Connection, statement: str, error: Exception) -> DBAPIError:
    driver: Any = connection.dialect.dbapi
    wrapped: Any = DBAPIError.instance(statement, None, error, driver.Error, dialect=connection.dialect)
    return wrapped  # type: ignore[no-any-return]


def forget(connection: Connection) -> None:
    """Do not run what was posted and is not done yet."""
    line = connection.connection.driver_connection
    if isinstance(line, Line):
        line.forget()
