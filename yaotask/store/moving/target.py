"""The store that is filled: an empty database or store, or what an earlier try has left there."""

from __future__ import annotations

from functools import partial

from sqlalchemy import inspect
from sqlalchemy.engine import Connection

from yaotask.errors import StorageBusy
from yaotask.phrases import counted
from yaotask.store import migrations, opening
from yaotask.store.moving import words
from yaotask.store.moving.side import COPIED, MoveRefused, Side, count, counts, must_be_alone
from yaotask.store.moving.words import ARRIVING, Arriving, Leaving
from yaotask.store.tables import meta, workers


def must_be_another(side: Side, store_id: str) -> None:
    """Raises MoveRefused for a store that is the very one to be moved, whatever its address, or a copy of it."""
    if side.store.dialect.database.is_missing() or not side.ask(partial(_has_store, name=side.name)):
        return
    if side.ask(words.arriving) is None and side.ask(migrations.store_id) == store_id:
        raise MoveRefused("FROM and TO are the same database, or one is a copy of the other: name an empty one as TO")


def must_fit(side: Side, left: Leaving | None, store_id: str) -> Arriving | None:
    """The word of a store that a move of ours has begun to fill, or None where there is nothing yet.

    `left` is the word of the other side. Raises MoveRefused for anything else.
    """
    if side.store.dialect.database.is_missing() or not side.ask(partial(_has_store, name=side.name)):
        return None
    if filled := side.ask(words.arriving):
        # Before the first row, the other side may not have been told.
        is_ours = filled.move == left.move if left else not _contents(side)
        if is_ours and side.ask(migrations.store_id) == store_id:
            return filled
        raise MoveRefused(f"{side.name} holds a part of another move, from {filled.here}: {emptying(side)}")
    if side.ask(words.leaving):
        raise MoveRefused(f"{side.name} holds a store that was moved away: {emptying(side)}")
    side.ask(opening.must_be_current)
    must_be_alone(side)
    if contents := _contents(side):
        raise MoveRefused(f"{side.name} is a store already, with {contents}: {emptying(side)}")
    return None


def is_filled(side: Side, move: str) -> bool:
    """Whether the store is there, and waits for the end of this move."""
    if side.store.dialect.database.is_missing() or not side.ask(partial(_has_store, name=side.name)):
        return False
    filled = side.ask(words.arriving)
    return filled is not None and filled.move == move


def is_complete(side: Side, store_id: str) -> bool:
    """Whether the store is there, and in use."""
    if side.store.dialect.database.is_missing() or not side.ask(partial(_has_store, name=side.name)):
        return False
    under_way = side.ask(words.arriving) or side.ask(words.leaving)
    return under_way is None and side.ask(migrations.store_id) == store_id


def emptying(side: Side) -> str:
    """How to come to an empty database."""
    file = side.place.file
    how = f"delete the file {file}" if file else "drop its view and its tables yaotask_*"
    return f"{how}, or name another database as TO"


def prepare(side: Side, store_id: str, word: Arriving) -> None:
    """Make the store, closed, with the id of the one that is to come."""
    database = side.store.dialect.database

    def furnish(connection: Connection) -> None:
        database.furnish(connection)
        words.receive(connection, word)

    def create(connection: Connection) -> None:
        database.create(connection, lambda within: migrations.create(within, store_id, furnish))

    if database.is_missing():
        database.make()
    if not side.ask(partial(_has_store, name=side.name)):
        side.must_be_held()
        side.ask(create)
    side.write(partial(_adopt, store_id=store_id, word=word))


def _adopt(connection: Connection, store_id: str, word: Arriving) -> None:
    """Let an empty store be the one that is to come. Raises StorageBusy where it has come, or another one comes."""
    if words.arriving(connection) is not None:
        words.must_be_arriving(connection, word.move)
        return
    if migrations.store_id(connection) == store_id or words.leaving(connection) or any(_rows(connection)):
        raise StorageBusy(words.OTHERS)
    connection.execute(workers.delete())
    connection.execute(meta.update().where(meta.c.name == "store").values(value=store_id))
    words.receive(connection, word)


def complete(connection: Connection, move: str) -> None:
    """From now on the store can be used."""
    words.must_be_arriving(connection, move)
    words.forget(connection, ARRIVING)


def _has_store(connection: Connection, name: str) -> bool:
    if not inspect(connection).has_table(meta.name):
        return False
    if not migrations.is_ours(connection):
        raise MoveRefused(f"{name} has a table yaotask_meta that is not ours: name another database as TO")
    return not migrations.is_unfinished(connection)


def _rows(connection: Connection) -> list[int]:
    return [count(connection, table) for table in COPIED]


def _contents(side: Side) -> str:
    """What is in a store, in words; nothing where it is empty."""
    return ", ".join(f"{counted(total, 'row')} in {name}" for name, total in counts(side).items() if total)
