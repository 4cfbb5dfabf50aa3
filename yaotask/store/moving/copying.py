"""One table of a store to another database, a batch at a time; what was copied is noted with it.

A batch and its note are one transaction. Whoever is ended in the middle goes on behind the last note, and nothing is
there twice. Each row has a checksum of what it says, the same from whatever database it was read; the sum of them
does not depend on their order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, Table, Text, and_, func, literal, or_, select
from sqlalchemy.engine import Connection

from yaotask.errors import StorageBusy
from yaotask.store.tables import meta

# A batch has at most so many rows, and about so many characters.
MOST_ROWS = 4_000
MOST_TEXT = 8 * 1024 * 1024

# Sums are counted up to here, then from the beginning.
_SUMS = 1 << 128

Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Note:
    """How far a table was copied: the key of the last row, how many rows there are, and the sum of what they say."""

    after: tuple[Any, ...] | None = None
    rows: int = 0
    sum: int = 0

    def behind(self, table: Table, rows: Rows) -> Note:
        """After these rows too."""
        last = tuple(rows[-1][column.name] for column in _key(table))
        return Note(last, self.rows + len(rows), add(self.sum, *(_row_sum(table.name, row) for row in rows)))

    def text(self) -> str:
        """As it is stored."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str | None) -> Note:
        """What was stored; nothing yet without it."""
        if text is None:
            return cls()
        found = json.loads(text)
        return cls(None if found["after"] is None else tuple(found["after"]), found["rows"], found["sum"])


@dataclass(frozen=True, slots=True)
class Copy:
    """The way of one table from one store to the other; `name` is that of its notes.

    In the two stores the table may have other names than its own.
    """

    name: str
    table: Table
    source: Table
    target: Table

    def note(self, there: Connection) -> Note:
        """How far it was copied."""
        return Note.of(there.execute(select(meta.c.value).where(meta.c.name == self.name)).scalar())

    def read(self, here: Connection, after: tuple[Any, ...] | None) -> Rows:
        """The next rows in the order of their keys; none where that was all."""
        return read(here, self.source, after)

    def write(self, there: Connection, rows: Rows, before: Note) -> Note:
        """Store rows behind those of a note, and a new one. Raises StorageBusy where somebody else has moved on."""
        note = before.behind(self.table, rows)
        self._write_note(there, before, note)
        there.execute(self.target.insert(), list(rows))
        return note

    def _write_note(self, there: Connection, before: Note, note: Note) -> None:
        if before.after is None:
            there.execute(meta.insert(), [{"name": self.name, "value": note.text()}])
            return
        same = (meta.c.name == self.name) & (meta.c.value == before.text())
        if there.execute(meta.update().where(same).values(value=note.text())).rowcount != 1:
            raise StorageBusy("another process moves this store: let one of them do it")


def read(connection: Connection, table: Table, after: tuple[Any, ...] | None) -> Rows:
    """The rows behind a key in the order of keys, as many as fit into a batch."""
    most = _fitting(connection, table, after)
    if not most:
        return []
    query = _behind(select(*table.c), table, after).limit(most)
    return [dict(row._mapping) for row in connection.execute(query)]


def add(*sums: int) -> int:
    """The checksum of several parts."""
    return sum(sums) % _SUMS


def _row_sum(table: str, row: dict[str, Any]) -> int:
    text = json.dumps([table, *row.values()])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")


def _fitting(connection: Connection, table: Table, after: tuple[Any, ...] | None) -> int:
    """How many rows are a batch: long ones are looked at before they are read."""
    texts = [column for column in table.c if isinstance(column.type, Text)]
    length = sum((func.coalesce(func.length(column), 0) for column in texts), literal(0))
    query = _behind(select(length), table, after).limit(MOST_ROWS)
    total, fitting = 0, 0
    for (size,) in connection.execute(query):
        total += int(size)
        if fitting and total > MOST_TEXT:
            break
        fitting += 1
    return fitting


def _behind(query: Any, table: Table, after: tuple[Any, ...] | None) -> Any:
    key = _key(table)
    query = query.order_by(*key)
    return query if after is None else query.where(_beyond(key, after))


def _beyond(key: Sequence[ColumnElement[Any]], after: Sequence[Any]) -> ColumnElement[bool]:
    """Behind a key of several columns, said so that every planner takes the index for the first of them."""
    (column, *others), (value, *values) = key, after
    beyond: ColumnElement[bool] = column > value
    return and_(column >= value, or_(beyond, _beyond(others, values))) if others else beyond


def _key(table: Table) -> list[Any]:
    return list(table.primary_key.columns)
