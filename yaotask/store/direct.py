"""Statements of the hot path go straight to the driver, through SQLAlchemy's connection but not its machinery.

Preparing a result for what may be asked of it costs SQLAlchemy more than most of these statements cost
the database, and a cycle has half a dozen of them.
"""

from __future__ import annotations

import re
import select
from abc import ABC, abstractmethod
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, Generic, TypeVar

from sqlalchemy.engine import Connection, CursorResult
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

T = TypeVar("T")


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


class Posted:
    """A question that may wait, and its answer once it has come."""

    __slots__ = ("_answer", "_read")

    def __init__(self, answer: Answer | None = None) -> None:
        self._answer = answer
        self._read: Callable[[], Answer] | None = None

    def comes_by(self, read: Callable[[], Answer]) -> None:
        """The answer is there, to be read so."""
        self._read = read

    @property
    def answer(self) -> Answer | None:
        """None as long as the question waits, and for good where it could not be sent, or nobody answered."""
        if self._answer is None and self._read is not None:
            self._answer = self._read()
        return self._answer

    def come(self) -> Answer:
        """The answer, once all that was posted is done. Raises LookupError where there is none."""
        answer = self.answer
        if answer is None:
            raise LookupError("no answer has come")
        return answer


# The argument has a name for each column of a statement in this package, so that the cache stays small.
@cache
def _row(names: tuple[str, ...]) -> Any:
    return namedtuple("Row", names, rename=True)


class Line(ABC):
    """A driver's connection on which a statement can wait, and travel with the next one."""

    can_wait: bool
    # The driver's own.
    cursor: Callable[[], Any]
    # Whether what has waited gets its answers.
    can_answer = False
    # Whether the server has answered lately.
    is_fresh = False

    def ask(self, statement: str, values: Mapping[str, Any]) -> Answer:
        """Run a statement, in the driver's style, behind all that waits. Raises the driver's errors."""
        cursor = self.cursor()
        try:
            cursor.execute(statement, values)
            return answer_of(cursor)
        finally:
            cursor.close()

    @abstractmethod
    def post(self, statement: str, values: Mapping[str, Any]) -> Posted:
        """Let a statement, in the driver's style, go with the next one, or send it now. Raises the driver's errors."""

    def follow(self, statement: str, values: Mapping[str, Any]) -> Posted | None:
        """Send a statement along with the next commit, to be run behind it; None where that cannot be.

        It is of no consequence if it fails: then no answer comes. Where the commit fails it is not run.
        """
        return None

    def takes_commit_along(self) -> bool:
        """Whether a commit may go with what waits: its outcome can be told, and somebody is there to hear of it."""
        return False

    def was_undone(self) -> bool:
        """Whether a commit that has failed was not even tried, because of what went before it."""
        return False

    @abstractmethod
    def settle(self) -> None:
        """See that what was posted is done. Raises the driver's errors."""

    @abstractmethod
    def forget(self) -> None:
        """Do not send what was posted and is not sent yet."""


def has_something_to_read(socket: Any) -> bool:
    """Whether a server has said something, or hung up, of its own accord. Takes a socket, or its number."""
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))


class _Saying(Generic[T]):
    """Like a cursor, for one statement that is said on a line in one of its ways."""

    __slots__ = ("_say", "answered", "connection")

    def __init__(self, line: Line, say: Callable[[str, Mapping[str, Any]], T]) -> None:
        self.connection = line
        self._say = say
        self.answered: T

    def execute(self, statement: str, values: Mapping[str, Any]) -> None:
        self.answered = self._say(statement, values)


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
    line = connection.connection.driver_connection
    if isinstance(line, Line):
        return _say(connection, _Saying(line, line.ask), statement, values)
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
        _say(connection, _Saying(line, line.post), statement, values)
    else:
        execute(connection, statement, values)


def ask_ahead(connection: Connection, statement: str, values: Mapping[str, Any] | None = None) -> Posted:
    """Ask something whose answer may come with that of the next statement, as its error may."""
    line = connection.connection.driver_connection
    if isinstance(line, Line) and line.can_wait and line.can_answer:
        return _say(connection, _Saying(line, line.post), statement, values)
    return Posted(execute(connection, statement, values))


def _say(connection: Connection, saying: _Saying[T], statement: str, values: Mapping[str, Any] | None) -> T:
    driver: Any = connection.dialect.dbapi
    try:
        run(saying, in_style(statement, connection.dialect.name), values or {})
    except driver.Error as error:
        raise _as_sqlalchemys(connection, statement, error) from error
    return saying.answered


def settle_or_take_along(connection: Connection) -> None:
    """Before a commit: what was posted is done, or goes with it. Raises DBAPIError where it cannot be done."""
    line = connection.connection.driver_connection
    if not (isinstance(line, Line) and line.takes_commit_along()):
        settle(connection)


def follow(connection: Connection, statement: str, values: Mapping[str, Any]) -> Posted | None:
    """Run a statement behind the next commit, on the same way, if that can be. See Line.follow."""
    line = connection.connection.driver_connection
    return _say(connection, _Saying(line, line.follow), statement, values) if isinstance(line, Line) else None


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
