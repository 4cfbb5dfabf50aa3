"""One of the two stores of a move, as the move has it open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Table, func, select
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError

from yaotask.chance import Chance
from yaotask.clock import SECOND, Clock
from yaotask.errors import StorageBusy, StorageUnavailable, YaotaskError
from yaotask.phrases import counted
from yaotask.store.cycle import SqlCycle
from yaotask.store.dialects.base import Hold
from yaotask.store.forks import forks
from yaotask.store.locks import is_held
from yaotask.store.moving import words
from yaotask.store.moving.words import COPIED
from yaotask.store.opening import Place, shown
from yaotask.store.protocol import Errand, Mailbox, Ticket
from yaotask.store.reaping import is_lost
from yaotask.store.sql import SqlStore
from yaotask.store.tables import workers

T = TypeVar("T")

_SHOWN = 5
# A server lets go of the lock of a move that was killed within so many seconds, mostly at once.
_PATIENCE, _WAIT = 2.0, 0.05


class MoveRefused(YaotaskError):
    """The store cannot be moved as things are; nothing was lost, and the message says what to do."""


@dataclass(slots=True)
class Side:
    """A store, and the locks that keep other moves off."""

    place: Place
    store: SqlStore
    # The locks of the move, those of the other side too.
    holds: Sequence[Hold] = ()

    @property
    def name(self) -> str:
        """Its address, as people may see it."""
        return shown(self.place)

    def table(self, table: Table) -> Table:
        """A table by the name that it has here now."""
        return self.ask(partial(words.as_it_is, table=table))

    def ask(self, question: Callable[[Connection], T]) -> T:
        """What a connection that reads has answered."""
        with self.store.reading() as connection:
            return question(connection)

    def write(self, work: Callable[[Connection], T]) -> T:
        """See SqlStore. Raises StorageUnavailable where a lock of the move was lost, StorageBusy for what is there."""
        self.must_be_held()
        try:
            with forks.held_off():
                return self.store.write(work)
        except IntegrityError as error:
            raise StorageBusy(words.OTHERS) from error

    def run(self, errand: Callable[[SqlCycle], Any]) -> None:
        """Do this in a cycle of the store."""
        self.must_be_held()
        ticket = Ticket()
        with forks.held_off():
            self.store.run_cycle(Mailbox(errands=[Errand(errand, ticket)]))  # type: ignore[arg-type]
        if ticket.error is not None:
            raise ticket.error

    def must_be_held(self) -> None:
        """Raises StorageUnavailable where a lock of the move was lost."""
        if not all(hold.is_held() for hold in self.holds):
            raise StorageUnavailable(
                "the connection that kept other moves of this store off was lost: do the same again, it goes on where"
                " it was"
            )


@contextmanager
def held(*sides: Side) -> Iterator[None]:
    """Keep others from moving these stores, or from giving a move up. Raises MoveRefused where one is at it."""
    with ExitStack() as stack:
        holds = []
        for side in sides:
            holds.append(_hold(side))
            stack.callback(holds[-1].release)
        for side in sides:
            side.holds = holds
        yield


def _hold(side: Side) -> Hold:
    clock, dialect = side.store.clock, side.store.dialect
    deadline = clock.monotonic() + _PATIENCE
    while True:
        try:
            hold = dialect.hold()
        except DBAPIError as error:
            raise dialect.errors.explain(error.orig) from error
        if hold is not None:
            return hold
        if clock.monotonic() > deadline:
            raise MoveRefused(
                f"another process moves {side.name}, or gives a move of it up: wait for its end, or end it; one that"
                " was stopped by Ctrl-Z goes on with `fg`"
            )
        clock.pause(_WAIT)


@contextmanager
def opened(place: Place, clock: Clock, chance: Chance) -> Iterator[Side]:
    """A side, of which nothing was looked at yet. Raises StorageUnavailable where it could not be opened."""
    dialect = place.dialect()
    dialect.database.prepare()
    store = SqlStore(dialect, clock, chance)
    try:
        yield Side(place, store)
    finally:
        store.close()


def must_be_alone(side: Side) -> None:
    """Raises MoveRefused where anybody may run jobs of a store."""
    now = side.ask(side.store.now)
    entered = side.ask(lambda connection: connection.execute(select(workers).order_by(workers.c.key)).all())
    alive = [one for one in entered if is_held(one) or not is_lost(one, now)]
    # The processes of a node end with their supervisor.
    heads = [one for one in alive if one.node is None] or alive
    if heads:
        names = "; ".join(_describe(one, now) for one in heads[:_SHOWN])
        raise MoveRefused(
            f"{counted(len(heads), 'node or program', 'nodes or programs')} may run jobs of {side.name}: {names}."
            " Stop what runs (Ctrl-C, SIGTERM), then do this again"
        )


def _describe(process: Any, now: int) -> str:
    who = f"{process.kind}, process {process.pid} on {process.host}"
    if is_held(process):
        return f"{who} (it holds {process.lock_path})"
    if process.expires_at is None:
        return f"{who} (if that machine is gone for good: delete the row with key {process.key} of {workers.name})"
    seconds = -(-(process.expires_at - now) // SECOND)
    return f"{who} (if it is dead, its lease ends in {seconds} s)"


def count(connection: Connection, table: Table, *conditions: Any) -> int:
    """How many rows there are, for which all this is so."""
    return int(connection.execute(select(func.count()).select_from(table).where(*conditions)).scalar_one())


def counts(side: Side) -> dict[str, int]:
    """How many rows each table has that is carried."""
    return {table.name: side.ask(partial(count, table=side.table(table))) for table in COPIED}
