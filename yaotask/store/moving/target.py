"""The store that is filled: an empty database or store, or what an earlier try has left there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sqlalchemy import inspect
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from yaotask.errors import StorageBusy, StorageUnavailable
from yaotask.phrases import counted
from yaotask.store import migrations, opening
from yaotask.store.moving import words
from yaotask.store.moving.side import MoveRefused, Side, count, counts, must_be_alone
from yaotask.store.moving.words import ARRIVING, COPIED, Arriving, Leaving
from yaotask.store.tables import meta, workers


def _is_store(side: Side) -> bool:
    if side.store.dialect.database.is_missing():
        return False
    try:
        return side.ask(partial(_has_store, name=side.name))
    except StorageUnavailable as error:
        cause = error.__cause__
        if not (isinstance(cause, DBAPIError) and side.store.dialect.errors.is_unsound(cause)):
            raise
        # There is no backup of it that anybody would want back.
        raise StorageUnavailable(f"{side.name} is not a sound database: name another database as TO") from cause


def must_be_another(side: Side, store_id: str) -> None:
    """Raises MoveRefused for a store that is the very one to be moved, whatever its address, or a copy of it."""
    if not _is_store(side):
        return
    if side.ask(words.arriving) is None and side.ask(migrations.store_id) == store_id:
        raise MoveRefused("FROM and TO are the same database, or one is a copy of the other: name an empty one as TO")


def must_fit(side: Side, left: Leaving | None, store_id: str) -> Arriving | None:
    """The word of a store that a move of ours has begun to fill, or None where there is nothing yet.

    `left` is the word of the other side. Raises MoveRefused for anything else.
    """
    if not _is_store(side):
        return None
    if filled := side.ask(words.arriving):
        # Before the first row, the other side may not have been told.
        is_ours = filled.move == left.move if left else not _contents(side)
        if is_ours and filled.store == store_id:
            return filled
        raise MoveRefused(f"{side.name} holds a part of another move, from {filled.here}: {emptying(side)}")
    if side.ask(words.leaving):
        raise MoveRefused(f"{side.name} holds a store that was moved away: {emptying(side)}")
    side.ask(opening.must_be_current)
    must_be_alone(side)
    must_be_empty(side)
    return None


def is_filled(side: Side, move: str) -> bool:
    """Whether the store is there, and waits for the end of this move."""
    if not _is_store(side):
        return False
    filled = side.ask(words.arriving)
    return filled is not None and filled.move == move


def is_complete(side: Side, store_id: str) -> bool:
    """Whether the store is there, and in use."""
    if not _is_store(side):
        return False
    under_way = side.ask(words.arriving) or side.ask(words.leaving)
    return under_way is None and side.ask(migrations.store_id) == store_id


def emptying(side: Side) -> str:
    """How to come to an empty database."""
    file = side.place.file
    how = f"delete the file {file}" if file else "drop its view and its tables yaotask_*"
    return f"{how}, or name another database as TO"


def prepare(side: Side, word: Arriving) -> None:
    """Make the store, closed, with the id of the one that is to come. Raises MoveRefused where it is in use by now."""
    database = side.store.dialect.database

    def furnish(connection: Connection) -> None:
        database.furnish(connection)
        words.receive(connection, word)

    def create(connection: Connection) -> None:
        database.create(connection, lambda within: migrations.create(within, word.store, furnish))

    if database.is_missing():
        database.make()
    side.ask(database.must_be_usable)
    if not side.ask(partial(_has_store, name=side.name)):
        side.must_be_held()
        side.ask(create)
    if not _close(side, word):
        must_be_empty(side)
        raise StorageBusy(words.OTHERS)


def _close(side: Side, word: Arriving) -> bool:
    """See `_adopt`. Where somebody else has made the tables, and lets nobody rename them, they keep their names."""
    try:
        return side.write(partial(_adopt, word=word, close=words.put_out_of_reach))
    except StorageUnavailable as error:
        cause = error.__cause__
        if not (isinstance(cause, DBAPIError) and side.store.dialect.errors.is_forbidden(cause)):
            raise
    return side.write(partial(_adopt, word=word, close=lambda _: None))


def _adopt(connection: Connection, word: Arriving, close: Callable[[Connection], None]) -> bool:
    """Let an empty store be the one that is to come; False where it is not empty any more, and is left as it was.

    Raises StorageBusy where it has come, or another one comes.
    """
    if words.arriving(connection) is not None:
        words.must_be_arriving(connection, word.move)
    elif migrations.store_id(connection) == word.store or words.leaving(connection):
        raise StorageBusy(words.OTHERS)
    else:
        words.receive(connection, word)
    close(connection)
    if words.is_begun(connection):
        return True
    if any(count(connection, words.as_it_is(connection, table)) for table in COPIED):
        words.reopen(connection, ARRIVING)
        return False
    connection.execute(workers.delete())
    connection.execute(meta.update().where(meta.c.name == "store").values(value=word.store))
    return True


def must_be_empty(side: Side) -> None:
    """Raises MoveRefused where a store has any rows."""
    if contents := _contents(side):
        raise MoveRefused(f"{side.name} is a store already, with {contents}: {emptying(side)}")


def complete(connection: Connection, move: str, set_counters: Callable[[Connection], None]) -> None:
    """From now on the store can be used."""
    words.must_be_arriving(connection, move)
    words.put_within_reach(connection)
    set_counters(connection)
    words.forget(connection, ARRIVING)


def _has_store(connection: Connection, name: str) -> bool:
    if not inspect(connection).has_table(meta.name):
        return False
    if not migrations.is_ours(connection):
        raise MoveRefused(f"{name} has a table yaotask_meta that is not ours: name another database as TO")
    return not migrations.is_unfinished(connection)


def _contents(side: Side) -> str:
    """What is in a store, in words; nothing where it is empty."""
    return ", ".join(f"{counted(total, 'row')} in {name}" for name, total in counts(side).items() if total)
