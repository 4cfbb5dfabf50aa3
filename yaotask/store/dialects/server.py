"""What all databases that are servers have in common: many write at once, and nothing lies on a disk of ours."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress

from sqlalchemy import URL, ClauseElement, Engine, Table, false, select
from sqlalchemy.engine import Connection, ExceptionContext
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from yaotask.errors import TransactionError
from yaotask.store.dialects.base import Notices
from yaotask.store.direct import Posted, execute
from yaotask.store.tables import metadata

log = logging.getLogger(__name__)


class ServerDialect:
    """A store on a server that `url` leads to."""

    shared = True
    begin_guarded = "BEGIN"

    def __init__(self, url: URL) -> None:
        self.url = url
        self.label = url.render_as_string(hide_password=True)
        self.place = f"{url.get_backend_name()}://{url.host or ''}:{url.port or ''}/{url.database}"

    def change_mark(self, connection: Connection) -> int:
        return 0

    def announce(self, connection: Connection, tasks: Collection[str]) -> None:
        """Nothing: not every server passes hints on."""

    def announce_with_commit(self, connection: Connection, tasks: Collection[str]) -> Posted | None:
        return None

    def listen(self) -> Notices | None:
        return None


class ServerHold:
    """See Hold. A connection of its own has the lock, which ends with it."""

    def __init__(self, engine: Engine, connection: Connection, look: str, leave: str) -> None:
        self._engine = engine
        self._connection = connection
        self._look = look
        self._leave = leave

    @classmethod
    def take(cls, engine: Engine, take: Callable[[Connection], bool], look: str, leave: str) -> ServerHold | None:
        """The lock that `take` gets, if it can; `look` says whether it is still there, `leave` lets go of it."""
        try:
            connection = engine.connect()
            if take(connection):
                return cls(engine, connection, look, leave)
            connection.close()
        except BaseException:
            engine.dispose()
            raise
        engine.dispose()
        return None

    def is_held(self) -> bool:
        try:
            return bool(execute(self._connection, self._look).scalar())
        except DBAPIError as error:
            log.info("the lock of a move is lost: %s", error.orig)
            return False

    def release(self) -> None:
        # Where the connection is gone, so is the lock.
        with suppress(SQLAlchemyError):
            execute(self._connection, self._leave)
        self._connection.invalidate()
        self._connection.close()
        self._engine.dispose()


class ServerDatabase:
    """A database that somebody else has made, and looks after."""

    def prepare(self) -> None:
        """The server looks after itself."""

    def must_be_usable(self, connection: Connection) -> None:
        """Each connection sees to that when it is made."""

    def is_missing(self) -> bool:
        return False

    def make(self) -> None:
        """A database is its administrator's to make."""

    def must_be_in_place(self) -> None:
        """A connection is to one database for life."""

    def must_be_writable(self, connection: Connection) -> None:
        # Who asks for a plan needs the rights that its statement needs.
        for write in (write for table in metadata.sorted_tables for write in _writes(table)):
            connection.exec_driver_sql(_plan(write, connection))


def _writes(table: Table) -> Sequence[ClauseElement]:
    """Everything that we do to rows of a table, done to none."""
    column = table.columns[0]
    return (
        table.insert().from_select(list(table.c.keys()), select(table).where(false())),
        table.update().where(false()).values({column: column}),
        table.delete().where(false()),
    )


def _plan(statement: ClauseElement, connection: Connection) -> str:
    """Ask what would be done, by a statement that has no values."""
    return f"EXPLAIN {statement.compile(dialect=connection.dialect)}"


def on_tables(what: str, tables: Sequence[str], how: str = "") -> str:
    """A statement about some of our tables; only their names reach the text."""
    return f"{what} {', '.join(tables)} {how}".rstrip()


def unwrap(context: ExceptionContext) -> Exception | None:
    """For SQLAlchemy: our errors reach users as they are, not wrapped in its own."""
    error = context.original_exception
    return type(error)(*error.args) if isinstance(error, TransactionError) else None


def first_ending(statements: Iterable[str], ending: re.Pattern[str]) -> str | None:
    """How the first of these statements that ends a transaction does so: the name of the group that matched."""
    found = (ending.match(statement) for statement in statements)
    return next((match.lastgroup for match in found if match), None)
