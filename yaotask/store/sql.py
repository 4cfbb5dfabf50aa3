"""SqlStore: one cycle is one transaction, and a request that does not fit holds up no other.

It is the only meeting point of all processes, and the only truth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Engine
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError, TimeoutError

from yaotask.chance import Chance
from yaotask.clock import SECOND, Clock
from yaotask.errors import OutcomeUnknown, StorageBusy, StorageError, StorageUnavailable
from yaotask.store import doubt, statements
from yaotask.store.aside import Aside
from yaotask.store.cycle import SqlCycle
from yaotask.store.dialects.base import Dialect, Notices
from yaotask.store.direct import Answer, execute
from yaotask.store.forks import forks
from yaotask.store.hints import EVERYWHERE
from yaotask.store.ids import IdBlocks, IdsOnTheSpot, OutOfIds
from yaotask.store.owing import Owing
from yaotask.store.play import Answers, play, replay
from yaotask.store.protocol import Glance, Harvest, Mailbox
from yaotask.store.sizes import Counted, Estimates, Overfull, Owed
from yaotask.store.transactions import Transaction
from yaotask.store.work import Misfit
from yaotask.store.writer import PATIENCE, Refused, Writer, wait_for_lock
from yaotask.values import dumps, loads

T = TypeVar("T")

# Each refill doubles the block, so that a run of taken ids is soon behind us.
MOST_REFILLS = 1_000

# So many seconds a clock that was set goes well enough, if it was not moved by more than so many seconds meanwhile.
CLOCK_GOOD_FOR, EVENLY = 2.0, 0.005

# Seconds to look for a commit whose answer was lost, and to try again with what was added by it.
DOUBT, PERSISTENCE = 2.0, 5.0


class SqlStore:
    """A store on any database that has a dialect. Cycles and writes belong to one thread, reads to any."""

    def __init__(self, dialect: Dialect, clock: Clock, chance: Chance) -> None:
        self.dialect = dialect
        self.clock = clock
        self.chance = chance
        self.readers: Engine = dialect.engine(writer=False)
        self.writer = Writer(dialect, clock, chance)
        self._aside = Aside(dialect, clock, chance)
        self._guarded: Engine = dialect.guarded_engine()
        self._ids = IdBlocks()
        # Where others write at once, the first attempt goes by these, and keeps nobody off.
        self._estimates = Estimates(clock) if dialect.shared else None
        # When the store's clock was last looked at: by the wall, by the monotonic clock, and on which connection.
        self._time_seen: tuple[int, float, int] | None = None
        self._owing = Owing()

    def close(self) -> None:
        """Give up all connections. More than once is fine, and one that is used again is opened again."""
        self.writer.disconnect()
        self._aside.close()
        self.readers.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read from, for a short while; the database's errors come in our words."""
        with forks.held_off(), self._translated(), self.readers.connect() as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Like `reading`, and all that is read is of one moment."""
        with self.reading() as connection, self.dialect.snapshot(connection):
            yield connection

    def now(self, connection: Connection) -> int:
        """The time of the store, in microseconds since 1970, by a look that may be a moment old.

        Due times are held against it.
        """
        asked = self.clock.now()
        if self.dialect.shared and self._goes_with_it(asked):
            return asked
        return self.exact_now(connection)

    def exact_now(self, connection: Connection) -> int:
        """The time of the store as it tells it now: leases are held against it.

        Its clock may have been set since the last look, and others may go by that already.
        """
        asked = self.clock.monotonic()
        moment = self.dialect.now(connection, self.clock)
        if self.dialect.shared:
            self._set_clock(moment, asked)
        return moment

    def _set_clock(self, moment: int, asked: float) -> None:
        self.clock.follow(moment, self.clock.monotonic() - asked)
        self._time_seen = self.clock.now(), self.clock.monotonic(), self.writer.connections

    def _goes_with_it(self, now: int) -> bool:
        """Whether our clock still shows the store's time: it has gone evenly since, which is not long ago."""
        if self._time_seen is None:
            return False
        then, moment, connection = self._time_seen
        if connection != self.writer.connections:
            # Another server may have taken over.
            return False
        passed = self.clock.monotonic() - moment
        return passed < CLOCK_GOOD_FOR and abs((now - then) / SECOND - passed) < EVENLY

    # --- the cycle ----------------------------------------------------------------------------------

    def run_cycle(self, mailbox: Mailbox) -> Harvest:
        """Do all that is in the mailbox in one transaction, and leave the answers in its tickets.

        Progress, then finishes, errands, adds and claims: so the last progress of a job that ends
        here is kept, and a job can be claimed in the transaction that stores it. A request that
        cannot be done gets its own error and holds up none of the others. Tickets are settled after
        the commit only.

        Raises StorageBusy, StorageFull or StorageUnavailable when nothing was changed, and
        OutcomeUnknown when the commit itself failed; then no ticket was settled, and on a server each add has a
        `doubt`: it can be put into another mailbox, and is stored once.
        """
        self._refill_ids(mailbox)
        try:
            harvest, answers = self._attempt(mailbox, replay if mailbox.hurried else play)
        except (Misfit, IntegrityError, Overfull, Refused):
            if self._estimates is not None:
                self._estimates.forget()
            harvest, answers = self._attempt(mailbox, replay)
        answers.settle()
        for action in harvest.afterwards:
            action()
        return harvest

    def _attempt(self, mailbox: Mailbox, how: Callable[[SqlCycle, Mailbox], Answers]) -> tuple[Harvest, Answers]:
        done: list[tuple[Harvest, Answers]] = []
        left: list[Owing] = []

        def work(connection: Connection) -> tuple[Harvest, Answers]:
            sizes = Counted(connection, self.dialect, self._estimates if how is play else None)
            cycle = SqlCycle(connection, self.dialect, self._ids, sizes, self.now(connection), mailbox.worker)
            left[:] = [self._owing.give_back(cycle)]
            answers = how(cycle, mailbox)
            self._pass_on(cycle, mailbox)
            cycle.harvest.afterwards.append(sizes.learn)
            done[:] = [(cycle.harvest, answers)]
            return done[0]

        for _ in range(MOST_REFILLS):
            try:
                self.write(work)
            except OutOfIds as need:
                self._ids.refill(need.task, need.count, self._reserve_ids)
                continue
            except OutcomeUnknown as error:
                if not self._was_stored(mailbox, done[0][0]):
                    self._remember(mailbox, done[0][0], error)
                    raise
            self._owing = left[0].without(done[0][0], mailbox.worker)
            return done[0]
        raise StorageError("no free id was found in a thousand blocks: the ids of a task are used up")

    def _was_stored(self, mailbox: Mailbox, harvest: Harvest) -> bool:
        """Whether a commit in doubt is to be seen after all; waited for a little, for a server may be at it still."""
        look = doubt.trace(mailbox, harvest, self.clock.now())
        # On a disk that has failed, what is to be seen need not be stored.
        if look is None or not self.dialect.shared:
            return False
        # What was added is done once more, which tells.
        deadline = self.clock.monotonic() + (DOUBT if mailbox.errands or not mailbox.adds else 0.0)
        while True:
            with suppress(StorageError), self.writer.translated():
                if look(self.writer.connected()):
                    return True
            if self.clock.monotonic() >= deadline:
                return False
            self.clock.pause(self.chance.uniform(0.02, 0.1))

    def _remember(self, mailbox: Mailbox, harvest: Harvest, error: OutcomeUnknown) -> None:
        """What may have been stored, and shall be neither lost nor stored twice."""
        # Nobody was given these claims, so that nobody would ever run them.
        if mailbox.worker is not None:
            self._owing = self._owing.plus(harvest, mailbox.worker)
        if self.dialect.shared:
            doubt.remember(mailbox.adds, harvest, error, self.clock.monotonic() + PERSISTENCE)

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
        def reserve(connection: Connection) -> int:
            return self.dialect.statements.reserve_ids(connection, task, count)

        try:
            return self.write(reserve)
        except OutcomeUnknown:
            if not self.dialect.shared:
                raise
        # Those that may have been reserved in vain do no harm.
        try:
            return self.write(reserve)
        except OutcomeUnknown as error:
            raise StorageUnavailable(
                f"{self.dialect.label}: connections break; nothing was stored, try again"
            ) from error

    # --- hints to other nodes -------------------------------------------------------------------------

    def _pass_on(self, cycle: SqlCycle, mailbox: Mailbox) -> None:
        """Have the others told with the commit, where that can be; the harvest says so once it was done."""
        harvest = cycle.harvest
        told = harvest.woken & mailbox.others_run
        if not told:
            return
        word = EVERYWHERE if harvest.wrote_events else frozenset(told)
        announced = self.dialect.announce_with_commit(cycle.connection, word)

        def note() -> None:
            if announced is not None and announced.answer is not None:
                harvest.passed_on = word

        harvest.afterwards.append(note)

    def announce(self, tasks: Collection[str]) -> None:
        """Let other nodes know where to look, by a hint, where the database can."""
        with self.writer.translated():
            self.dialect.announce(self.writer.connected(), tasks)

    def listen(self) -> Notices | None:
        """What other nodes announce; None where the database cannot tell. Raises StorageError."""
        try:
            return self.dialect.listen()
        except self.dialect.errors.of_driver as error:
            raise self.dialect.errors.explain(error) from error

    # --- looks without the write lock ---------------------------------------------------------------

    @property
    def tells_changes(self) -> bool:
        """Whether `changed` ever tells anything: a server says it in other ways, or when it is polled."""
        return not self.dialect.shared

    @property
    def owes(self) -> bool:
        """Whether something is to be given back that may have been claimed without our learning of it."""
        return bool(self._owing)

    def changed(self) -> bool:
        """Whether another connection has committed since the last time this was asked."""
        return self.writer.changed()

    def any_ready(self, task: str) -> bool:
        """Whether a claim would find a job of the task."""
        return self._look(statements.ANY_READY, task=task).scalar() is not None

    def look_at_clock(self) -> None:
        """See what time it is for the store, where that is another's time than ours."""
        if self.dialect.shared:
            with self.writer.translated():
                self.now(self.writer.connected())

    def glance(self, worker: int, tasks: Collection[str], told: Collection[str]) -> Glance | None:
        """All at once for a worker that runs these `tasks` and tells their hooks of the events of those `told`.

        None where the single questions below cost as little.
        """
        statement, asked = self.dialect.statements.GLANCE, self.clock.monotonic()
        if statement is None:
            return None
        lists = {"worked": dumps(sorted(tasks)), "told": dumps(sorted(told))}
        seen = self._look(statement, worker=worker, **lists).one()
        self._set_clock(seen.now, asked)
        return Glance(seen.due, seen.event, frozenset(loads(seen.ready or "[]")), bool(seen.asked), bool(seen.owed))

    def next_due(self) -> int | None:
        """When the next future job becomes ready."""
        due: int | None = self._look(statements.NEXT_DUE).scalar()
        return due

    def cancels_of(self, worker: int) -> list[tuple[str, int, int]]:
        """The claims of a worker that are asked to stop: of each its task, key and fence."""
        return [tuple(row) for row in self._look(statements.CANCELS_OF, worker=worker).all()]

    def next_event(self, tasks: tuple[str, ...]) -> int | None:
        """When the next event of these tasks can be delivered."""
        found = [self._look(statements.NEXT_EVENT, task=task).scalar() for task in tasks]
        return min((moment for moment in found if moment is not None), default=None)

    def _look(self, statement: str, **values: Any) -> Answer:
        with self.writer.translated():
            answer = execute(self.writer.connected(), statement, values)
        self.writer.heard()
        return answer

    # --- other people's transactions ----------------------------------------------------------------

    @contextmanager
    def borrow(self, connection: Connection) -> Iterator[SqlCycle]:
        """A cycle on somebody else's open transaction: a caller's own connection, or a job's transaction.

        Nothing is committed or rolled back here; a transaction that was not begun yet is. What is
        refused inside changes nothing, so that the caller may go on. Raises StorageUnavailable
        where the connection is to another database, TransactionError where it has no transactions,
        StorageBusy where all of the transaction must be done again, which only its owner can do.
        """
        with self._translated(), self._conflict_is_the_owners():
            self.dialect.join(connection)
            ids = IdsOnTheSpot(partial(self._reserve_on, connection))
            cycle = SqlCycle(connection, self.dialect, ids, Owed(connection), self.now(connection), None)
            yield cycle
            cycle.close()

    @contextmanager
    def _conflict_is_the_owners(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            if not self.dialect.errors.is_conflict(error):
                raise
            raise StorageBusy(
                f"{self.dialect.label}: another transaction was in the way; nothing of this one is stored: roll it back"
                " and do all of it again"
            ) from error

    def _reserve_on(self, connection: Connection, task: str, count: int) -> int:
        if not self.dialect.shared:
            return self.dialect.statements.reserve_ids(connection, task, count)
        # In a transaction of its own: a caller's may last, and other adders of the task would wait for its end.
        with self.readers.connect() as own:
            return self.dialect.statements.reserve_ids(own, task, count)

    def transaction(self, patience: float = PATIENCE) -> Transaction:
        """Begin a transaction for a handler, which holds the write lock until it ends.

        Raises StorageBusy when others held the lock for all of `patience`, in seconds.
        """
        with self._translated():
            transaction = Transaction(self._guarded, self.dialect, self.clock)
            try:
                wait_for_lock(transaction.begin, patience, self.dialect, self.clock, self.chance)
                self.dialect.database.must_be_in_place()
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

    def write_aside(self, work: Callable[[Connection, int], T]) -> T:
        """Like `write`, from any thread and beside the ledger; `work` is told what time it is, exactly."""
        with forks.held_off():
            return self._aside.write(lambda connection: work(connection, self.exact_now(connection)))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """For any thread: the writer's connection is left alone."""
        try:
            yield
        except DBAPIError as error:
            raise self.dialect.errors.explain(error.orig) from error
        except TimeoutError as error:
            raise StorageBusy(f"{self.dialect.label}: all connections of this process are in use; try again") from error
