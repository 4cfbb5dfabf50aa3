"""SqlStore: one cycle is one transaction, and a request that does not fit holds up no other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Engine
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError

from yaotask.chance import Chance
from yaotask.clock import Clock
from yaotask.errors import OutcomeUnknown, StorageError
from yaotask.store import statements
from yaotask.store.cycle import SqlCycle
from yaotask.store.dialects.base import Dialect
from yaotask.store.direct import execute
from yaotask.store.forks import forks
from yaotask.store.ids import IdBlocks, IdsOnTheSpot, OutOfIds
from yaotask.store.play import Answers, play, replay
from yaotask.store.protocol import Harvest, Mailbox
from yaotask.store.sizes import Counted, Owed
from yaotask.store.transactions import Transaction
from yaotask.store.work import Misfit
from yaotask.store.writer import PATIENCE, Writer, wait_for_lock

T = TypeVar("T")

# Each refill doubles the block, so that a run of taken ids is soon behind us.
MOST_REFILLS = 1_000


class SqlStore:
    """A store on any database that has a dialect. Cycles and writes belong to one thread, reads to any."""

    def __init__(self, dialect: Dialect, clock: Clock, chance: Chance) -> None:
        self.dialect = dialect
        self.clock = clock
        self.chance = chance
        self.readers: Engine = dialect.engine(writer=False)
        self.writer = Writer(dialect, clock, chance)
        self._guarded: Engine = dialect.guarded_engine()
        self._ids = IdBlocks()
        self._in_doubt: list[Harvest] = []

    def close(self) -> None:
        """Give up all connections. More than once is fine, and one that is used again is opened again."""
        self.writer.disconnect()
        self.readers.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read from, for a short while; the database's errors come in our words."""
        with forks.held_off(), self._translated(), self.readers.connect() as connection:
            yield connection

    # --- the cycle ----------------------------------------------------------------------------------

    def run_cycle(self, mailbox: Mailbox) -> Harvest:
        """See Store."""
        self._refill_ids(mailbox)
        try:
            harvest, answers = self._attempt(mailbox, play)
        except (Misfit, IntegrityError):
            harvest, answers = self._attempt(mailbox, replay)
        answers.settle()
        for action in harvest.afterwards:
            action()
        return harvest

    def _attempt(self, mailbox: Mailbox, how: Callable[[SqlCycle, Mailbox], Answers]) -> tuple[Harvest, Answers]:
        reaped: list[Harvest] = []

        def work(connection: Connection) -> tuple[Harvest, Answers]:
            sizes = Counted(connection, self.dialect)
            cycle = SqlCycle(connection, self.dialect, self._ids, sizes, self.clock.now(), mailbox.worker)
            reaped[:] = [cycle.harvest]
            for harvest in self._in_doubt:
                cycle.give_back(harvest)
            answers = how(cycle, mailbox)
            cycle.close()
            return cycle.harvest, answers

        for _ in range(MOST_REFILLS):
            try:
                done = self.write(work)
            except OutOfIds as need:
                self._ids.refill(need.task, need.count, self._reserve_ids)
            except OutcomeUnknown:
                # Nobody was given these claims, so that nobody would ever run them.
                self._in_doubt += reaped
                raise
            else:
                self._in_doubt.clear()
                return done
        raise StorageError("no free id was found in a thousand blocks: the ids of a task are used up")

    def _refill_ids(self, mailbox: Mailbox) -> None:
        wanted: Counter[str] = Counter()
        for add in mailbox.adds:
            wanted[add.task] += sum(job.id is None for job in add.jobs)
        for task, count in wanted.items():
            missing = self._ids.missing(task, count)
            if missing:
                self._ids.refill(task, missing, self._reserve_ids)

    def _reserve_ids(self, task: str, count: int) -> int:
        # In a transaction of its own: ids that were given out stay given out, whatever becomes of the cycle.
        return self.write(lambda connection: _reserve(connection, task, count))

    # --- looks without the write lock ---------------------------------------------------------------

    def changed(self) -> bool:
        """Whether another connection has committed since the last time this was asked."""
        return self.writer.changed()

    def any_ready(self, task: str) -> bool:
        """Whether a claim would find a job of the task."""
        return self._look(statements.ANY_READY, task=task) is not None

    def next_due(self) -> int | None:
        """When the next future job becomes ready."""
        due: int | None = self._look(statements.NEXT_DUE)
        return due

    def next_event(self, tasks: tuple[str, ...]) -> int | None:
        """When the next event of these tasks can be delivered."""
        found = [self._look(statements.NEXT_EVENT, task=task) for task in tasks]
        return min((moment for moment in found if moment is not None), default=None)

    def _look(self, statement: str, **values: Any) -> Any:
        with self.writer.translated():
            return execute(self.writer.connected(), statement, values).scalar()

    # --- other people's transactions ----------------------------------------------------------------

    @contextmanager
    def borrow(self, connection: Connection) -> Iterator[SqlCycle]:
        """A cycle on somebody else's open transaction: a caller's own connection, or a job's transaction.

        Nothing is committed or rolled back here; a transaction that was not begun yet is. What is
        refused inside changes nothing, so that the caller may go on. Raises StorageUnavailable
        where the connection is to another database, TransactionError where it has no transactions.
        """
        with self._translated():
            self.dialect.join(connection)
            ids = IdsOnTheSpot(partial(_reserve, connection))
            cycle = SqlCycle(connection, self.dialect, ids, Owed(connection), self.clock.now(), None)
            yield cycle
            cycle.close()

    def transaction(self, patience: float = PATIENCE) -> Transaction:
        """Begin a transaction for a handler, which holds the write lock until it ends.

        Raises StorageBusy when others held the lock for all of `patience`, in seconds.
        """
        with self._translated():
            transaction = Transaction(self._guarded, self.dialect, self.clock)
            try:
                wait_for_lock(transaction.begin, patience, self.dialect, self.clock, self.chance)
                self.dialect.must_be_in_place()
            except BaseException:
                transaction.rollback()
                raise
            return transaction

    # --- transactions -------------------------------------------------------------------------------

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction and commit it; whatever it raises, nothing of it was stored.

        Raises StorageBusy, StorageFull, StorageUnavailable; OutcomeUnknown if the commit itself failed.
        """
        return self.writer.write(work)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """For any thread: the writer's connection is left alone."""
        try:
            yield
        except DBAPIError as error:
            raise self.dialect.translate(error) from error


def _reserve(connection: Connection, task: str, count: int) -> int:
    """The first of so many ids that nobody else gets."""
    values = {"task": task, "count": count}
    return int(execute(connection, statements.RESERVE_IDS, values).scalar_one()) - count
