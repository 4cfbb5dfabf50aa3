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
from yaotask.errors import OutcomeUnknown, StorageBusy, StorageError, StorageFull, StorageUnavailable
from yaotask.store import statements
from yaotask.store.cycle import SqlCycle
from yaotask.store.dialects.base import Dialect
from yaotask.store.ids import IdBlocks, IdsOnTheSpot, OutOfIds
from yaotask.store.play import Answers, play, replay
from yaotask.store.protocol import Harvest, Mailbox
from yaotask.store.sizes import Counted, Owed
from yaotask.store.transactions import Transaction
from yaotask.store.work import Misfit

T = TypeVar("T")

# How long a writer waits for another one, and how long between its looks: short, and drawn anew
# each time, because SQLite serves waiting writers in no order.
PATIENCE = 30.0
SHORTEST_WAIT, LONGEST_WAIT = 0.000_2, 0.002

# Each refill doubles the block, so that a run of taken ids is soon behind us.
MOST_REFILLS = 1_000


class SqlStore:
    """A store on any database that has a dialect. Cycles and writes belong to one thread, reads to any."""

    def __init__(self, dialect: Dialect, clock: Clock, chance: Chance, patience: float = PATIENCE) -> None:
        self.dialect = dialect
        self.clock = clock
        self.chance = chance
        self.patience = patience
        self.readers: Engine = dialect.engine(writer=False)
        self._writers: Engine = dialect.engine(writer=True)
        self._guarded: Engine = dialect.guarded_engine()
        self._writer: Connection | None = None
        self._ids = IdBlocks()
        self._mark: int | None = None

    def close(self) -> None:
        """Give up all connections."""
        self._disconnect()
        self.readers.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read from, for a short while; the database's errors come in our words."""
        with self._translated(), self.readers.connect() as connection:
            yield connection

    # --- the cycle ----------------------------------------------------------------------------------

    def run_cycle(self, mailbox: Mailbox) -> Harvest:
        """See Store."""
        self._refill_ids(mailbox)
        try:
            harvest, answers = self._attempt(mailbox, play)
        except (Misfit, IntegrityError):
            harvest, answers = self._attempt(mailbox, replay)
        for action in harvest.afterwards:
            action()
        answers.settle()
        return harvest

    def _attempt(self, mailbox: Mailbox, how: Callable[[SqlCycle, Mailbox], Answers]) -> tuple[Harvest, Answers]:
        def work(connection: Connection) -> tuple[Harvest, Answers]:
            sizes = Counted(connection, self.dialect)
            cycle = SqlCycle(connection, self.dialect, self._ids, sizes, self.clock.now(), mailbox.worker)
            answers = how(cycle, mailbox)
            cycle.close()
            return cycle.harvest, answers

        for _ in range(MOST_REFILLS):
            try:
                return self.write(work)
            except OutOfIds as need:
                self._ids.refill(need.task, need.count, self._reserve_ids)
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
        with self._translated_on_writer():
            mark = self.dialect.change_mark(self._connected())
        known, self._mark = self._mark, mark
        return mark != known

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
        with self._translated_on_writer():
            return self._connected().exec_driver_sql(statement, values).scalar()

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
                self._wait_for_lock(transaction.begin, patience)
            except BaseException:
                transaction.rollback()
                raise
            return transaction

    # --- transactions -------------------------------------------------------------------------------

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction and commit it; whatever it raises, nothing of it was stored.

        Raises StorageBusy, StorageFull, StorageUnavailable; OutcomeUnknown if the commit itself failed.
        """
        connection = self._begin()
        try:
            result = work(connection)
        except BaseException as error:
            self._rollback(connection)
            if isinstance(error, DBAPIError) and not isinstance(error, IntegrityError):
                raise self._explained(error) from error
            raise
        self._commit(connection)
        return result

    def _begin(self) -> Connection:
        def begin() -> Connection:
            connection = self._connected()
            connection.exec_driver_sql(self.dialect.begin)
            return connection

        with self._translated_on_writer():
            return self._wait_for_lock(begin, self.patience)

    def _wait_for_lock(self, begin: Callable[[], T], patience: float) -> T:
        deadline = self.clock.monotonic() + patience
        while True:
            try:
                return begin()
            except DBAPIError as error:
                busy = isinstance(self.dialect.translate(error), StorageBusy)
                if not busy or self.clock.monotonic() > deadline:
                    raise
            self.clock.pause(self.chance.uniform(SHORTEST_WAIT, LONGEST_WAIT))

    def _commit(self, connection: Connection) -> None:
        try:
            connection.exec_driver_sql("COMMIT")
        except DBAPIError as error:
            explained = self._explained(error)
            if isinstance(explained, StorageBusy | StorageFull):
                self._rollback(connection)
                raise explained from error
            # Never asked again on the same connection: after a failed fsync a second one may lie.
            self._disconnect()
            raise OutcomeUnknown(f"{explained}; the change may or may not have been stored") from error

    def _rollback(self, connection: Connection) -> None:
        try:
            connection.exec_driver_sql("ROLLBACK")
        except DBAPIError:
            # Some errors end the transaction by themselves; a new connection is in a known state.
            self._disconnect()

    def _connected(self) -> Connection:
        if self._writer is None:
            self._writer = self._writers.connect()
        return self._writer

    def _disconnect(self) -> None:
        if self._writer is not None:
            self._writer.invalidate()
            self._writer.close()
            self._writer = None
        self._writers.dispose()
        self._mark = None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise self.dialect.translate(error) from error

    @contextmanager
    def _translated_on_writer(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise self._explained(error) from error

    def _explained(self, error: DBAPIError) -> StorageError:
        """For the writer's thread alone: its connection is given up where it may be of no more use."""
        explained = self.dialect.translate(error)
        if isinstance(explained, StorageUnavailable):
            self._disconnect()
        return explained


def _reserve(connection: Connection, task: str, count: int) -> int:
    """The first of so many ids that nobody else gets."""
    values = {"task": task, "count": count}
    return int(connection.exec_driver_sql(statements.RESERVE_IDS, values).scalar_one()) - count
