"""What a store says of its own move: the one that is left, and the one that is filled.

They are rows of the meta table. Each of the two stores is closed by more than a word: programs that opened it before
would not look. Its tables get other names, so that whatever they ask for is refused by the database.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import MetaData, Table, inspect
from sqlalchemy.engine import Connection

from yaotask.clock import SECOND
from yaotask.errors import StorageBusy, StorageUnavailable
from yaotask.store import tables

LEAVING, ARRIVING = "moved", "arriving"
OTHERS = (
    "another process has moved this store meanwhile, or given the move up: `yaotask db status` tells what it is now"
)
# All that is carried: those who work are not, and what a store says of itself has its own way.
COPIED = (
    tables.ids,
    tables.sizes,
    tables.size_debts,
    tables.rollups,
    tables.jobs,
    tables.attempts,
    tables.events,
)
# The same in a store that is closed.
CLOSED = {table.name: table.to_metadata(MetaData(), name=f"{table.name}_moved") for table in COPIED}
# Where each new name is committed at once, a store is closed with the first, and open with the last.
_JOBS_FIRST = sorted(COPIED, key=lambda table: table is not tables.jobs)


@dataclass(frozen=True, slots=True)
class Leaving:
    """Of a store that is left: `move` names the move on both sides, `place` is where it goes, `since` when it began.

    `here` and `there` are addresses as people may see them. `result` is what was moved, once it was compared.
    """

    move: str
    here: str
    there: str
    place: str
    since: int
    result: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Arriving:
    """Of a store that is filled, and cannot be used until it is: it will be the one with the id `store`."""

    move: str
    store: str
    here: str
    there: str


def leaving(connection: Connection) -> Leaving | None:
    """The word of a store that is left, or None."""
    found = _read(connection, LEAVING)
    return None if found is None else Leaving(**found)


def arriving(connection: Connection) -> Arriving | None:
    """The word of a store that is filled, or None."""
    found = _read(connection, ARRIVING)
    return None if found is None else Arriving(**found)


def must_be_leaving(connection: Connection, move: str) -> None:
    """Raises StorageBusy where a store that is closed is not left by this move any more, or its end was noted."""
    found = leaving(connection)
    if found is None or (found.move, found.result) != (move, None) or not is_closed(connection):
        raise StorageBusy(OTHERS)


def must_be_arriving(connection: Connection, move: str) -> None:
    """Raises StorageBusy where a store is not filled by this move any more."""
    found = arriving(connection)
    if found is None or found.move != move:
        raise StorageBusy(OTHERS)


def must_be_here(connection: Connection) -> None:
    """Raises StorageUnavailable for a store that was moved away, or is not complete yet."""
    filled = arriving(connection)
    if filled is not None:
        raise StorageUnavailable(
            f"a move into this store has not ended: go on with it: {command(filled.here, filled.there)}"
        )
    left = leaving(connection)
    if left is None:
        return
    back = f"to use this one all the same: {command('--undo', left.here)}"
    if left.result is not None:
        raise StorageUnavailable(
            f"this store was moved to {left.there} ({_day(left.since)}): write that as `store:` into yaotask.yml;"
            f" {back}"
        )
    raise StorageUnavailable(
        f"this store is being moved to {left.there}: wait for its end, or go on with it:"
        f" {command(left.here, left.there)}; {back}"
    )


def command(*arguments: str) -> str:
    """`yaotask db move` as it can be given to a shell."""
    return shlex.join(["yaotask", "db", "move", *arguments])


def close(connection: Connection, word: Leaving) -> None:
    """Let nobody use this store any more, whoever has it open. More than once is fine."""
    _write(connection, LEAVING, asdict(word))
    put_out_of_reach(connection)


def reopen(connection: Connection, word: str) -> None:
    """Let a store be used again, and take back its word."""
    put_within_reach(connection)
    forget(connection, word)


def put_out_of_reach(connection: Connection) -> None:
    """Give the tables their other names. An earlier try may have done so with some of them."""
    for table in _JOBS_FIRST:
        if as_it_is(connection, table) is table:
            connection.exec_driver_sql(_renaming(table, CLOSED[table.name]))


def put_within_reach(connection: Connection) -> None:
    """Give the tables their own names again. An earlier try may have done so with some of them."""
    for table in reversed(_JOBS_FIRST):
        if as_it_is(connection, table) is not table:
            connection.exec_driver_sql(_renaming(CLOSED[table.name], table))


def _renaming(table: Table, name: Table) -> str:
    """Let a table have the name of another; only their names reach the text."""
    return f"ALTER TABLE {table.name} RENAME TO {name.name}"


def as_it_is(connection: Connection, table: Table) -> Table:
    """A table by the name that it has now."""
    closed = CLOSED.get(table.name)
    return table if closed is None or not inspect(connection).has_table(closed.name) else closed


def is_closed(connection: Connection) -> bool:
    """Whether the jobs of this store are out of reach."""
    return as_it_is(connection, tables.jobs) is not tables.jobs


def note_result(connection: Connection, word: Leaving, result: dict[str, Any]) -> None:
    """From now on this store says where it went. Raises StorageBusy where it does not leave by this word any more."""
    must_be_leaving(connection, word.move)
    _write(connection, LEAVING, asdict(replace(word, result=result)))


def receive(connection: Connection, word: Arriving) -> None:
    """Let nobody use this store until it is complete."""
    _write(connection, ARRIVING, asdict(word))


def is_begun(connection: Connection) -> bool:
    """Whether anything was copied into this store."""
    meta = tables.meta
    return connection.execute(meta.select().where(meta.c.name.like(f"{ARRIVING}.%")).limit(1)).first() is not None


def forget(connection: Connection, name: str) -> None:
    """Take back a word, and all that was noted under it."""
    named = tables.meta.c.name
    connection.execute(tables.meta.delete().where((named == name) | named.like(f"{name}.%")))


def _read(connection: Connection, name: str) -> dict[str, Any] | None:
    meta = tables.meta
    text = connection.execute(meta.select().with_only_columns(meta.c.value).where(meta.c.name == name)).scalar()
    return None if text is None else json.loads(text)


def _write(connection: Connection, name: str, value: Mapping[str, Any]) -> None:
    forget(connection, name)
    connection.execute(tables.meta.insert(), [{"name": name, "value": json.dumps(value)}])


def _day(moment: int) -> str:
    return datetime.fromtimestamp(moment / SECOND, UTC).strftime("%Y-%m-%d %H:%M UTC")
