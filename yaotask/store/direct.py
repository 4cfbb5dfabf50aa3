"""Statements of the hot path go straight to the driver, through SQLAlchemy's connection but not its machinery.

Preparing a result for what may be asked of it costs SQLAlchemy more than most of these statements cost
the database, and a cycle has half a dozen of them.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from typing import Any

from sqlalchemy.engine import Connection, CursorResult
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from yaotask.store.answers import Answer, Posted


class Line(ABC):
    """A driver's connection on which a statement can wait, and travel with the next one."""

    can_wait: bool
    # Whether what has waited gets its answers.
    can_answer = False
    # Whether the server has answered lately.
    is_fresh = False

    @abstractmethod
    def post(self, statement: str, values: Mapping[str, Any], posted: Posted) -> None:
        """Let a statement, in the driver's style, go with the next one, or send it now. Raises the driver's errors."""

    def takes_commit_along(self) -> bool:
        """Whether a commit may go with what waits: its outcome can be told, and somebody is there to hear of it."""
        return False

    def was_undone(self) -> bool:
        """Whether a commit that has failed was not even tried, because of what went before it."""
        return False

    def follow(self, statement: str, values: Mapping[str, Any], posted: Posted) -> bool:
        """Let a statement go right behind the commit that comes next, whatever becomes of it.

        False where that cannot be: then it is not run.
        """
        return False

    @abstractmethod
    def settle(self) -> None:
        """See that what was posted is done. Raises the driver's errors."""

    @abstractmethod
    def forget(self) -> None:
        """Do not send what was posted and is not sent yet."""


class _Later:
    """Like a cursor, but what it executes is handed to `take`, and waits."""

    __slots__ = ("_take", "connection", "posted")

    def __init__(self, line: Line, take: Callable[[str, Mapping[str, Any], Posted], object]) -> None:
        self.connection = line
        self._take = take
        self.posted = Posted()

    def execute(self, statement: str, values: Mapping[str, Any]) -> None:
        self._take(statement, values, self.posted)


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
            return answer_of(cursor)
        finally:
            cursor.close()
    except driver.Error as error:
        raise _as_sqlalchemys(connection, statement, error) from error


def answer_of(cursor: Any) -> Answer:
    """What a driver's cursor was answered."""
    described = cursor.description
    names = tuple([column[0] for column in described]) if described else ()
    return Answer(cursor.fetchall() if described else [], names, cursor.rowcount)


def roll_back(connection: Connection) -> None:
    """End a transaction of which nothing is to be stored. On a line that is down there is none any more."""
    # Why it is down has been said.
    with suppress(SQLAlchemyError):
        execute(connection, "ROLLBACK")


def post(connection: Connection, statement: str, values: Mapping[str, Any] | None = None) -> None:
    """Run a statement whose answer nobody needs, at the latest with the next one, from which its error may come."""
    line = connection.connection.driver_connection
    if isinstance(line, Line) and line.can_wait:
        _post(connection, line, statement, values)
    else:
        execute(connection, statement, values)


def ask_ahead(connection: Connection, statement: str, values: Mapping[str, Any] | None = None) -> Posted:
    """Ask something whose answer may come with that of the next statement, as its error may."""
    line = connection.connection.driver_connection
    if isinstance(line, Line) and line.can_wait and line.can_answer:
        return _post(connection, line, statement, values)
    return Posted(execute(connection, statement, values))


def ask_behind(connection: Connection, statement: str, values: Mapping[str, Any] | None = None) -> Posted:
    """Ask something right behind the commit that comes next, without a way of its own; not every line can.

    There is an answer once the commit has succeeded, and this.
    """
    line = connection.connection.driver_connection
    if not isinstance(line, Line):
        return Posted()
    later = _Later(line, line.follow)
    run(later, in_style(statement, connection.dialect.name), values or {})
    return later.posted


def _post(connection: Connection, line: Line, statement: str, values: Mapping[str, Any] | None) -> Posted:
    driver: Any = connection.dialect.dbapi
    later = _Later(line, line.post)
    try:
        run(later, in_style(statement, connection.dialect.name), values or {})
    except driver.Error as error:
        raise _as_sqlalchemys(connection, statement, error) from error
    return later.posted


def settle_or_take_along(connection: Connection) -> None:
    """Before a commit: what was posted is done, or goes with it. Raises DBAPIError where it cannot be done."""
    line = connection.connection.driver_connection
    if not (isinstance(line, Line) and line.takes_commit_along()):
        settle(connection)


def expect_answers(connection: Connection, is_fresh: bool) -> None:
    """Before a transaction: whether the server is known to have answered on this connection lately."""
    line = connection.connection.driver_connection
    if isinstance(line, Line):
        line.is_fresh = is_fresh


def was_undone(connection: Connection) -> bool:
    """Whether a commit that has failed was not tried: what went along with it had failed before."""
    line = connection.connection.driver_connection
    return isinstance(line, Line) and line.was_undone()


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
