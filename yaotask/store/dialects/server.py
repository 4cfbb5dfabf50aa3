"""What all databases that are servers have in common: many write at once, and nothing lies on a disk of ours."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from sqlalchemy import URL
from sqlalchemy.engine import Connection, ExceptionContext

from yaotask.errors import TransactionError
from yaotask.store.dialects.base import Notices


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

    def listen(self) -> Notices | None:
        return None


class ServerDatabase:
    """A database that somebody else has made, and looks after."""

    def prepare(self) -> None:
        """The server looks after itself."""

    def is_missing(self) -> bool:
        return False

    def make(self) -> None:
        """A database is its administrator's to make."""

    def must_be_in_place(self) -> None:
        """A connection is to one database for life."""


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
