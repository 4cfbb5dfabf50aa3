"""What all parts of a cycle share: the transaction, its one time, and what it has brought so far."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from yaotask.errors import YaotaskError
from yaotask.store import rows, statements
from yaotask.store.dialects.base import Dialect
from yaotask.store.direct import Answer, Posted, ask_ahead, execute, post, settle, settle_or_take_along
from yaotask.store.ids import Ids
from yaotask.store.protocol import Harvest
from yaotask.store.sizes import Sizes
from yaotask.values import dumps

# A cycle has at most so many rows of a kind, and so many bytes of arguments or results, so that no
# transaction is long.
MOST_ROWS = 2_000
MOST_BYTES = 4 * 1024 * 1024


# In how many parts statistics are counted where many write at once.
SHARDS = 16

# One inside the other, each with a name of its own, which no caller has given to one in a transaction of theirs: not
# every database lets an inner one have the name of an outer.
_SAVEPOINTS = tuple(
    (f"SAVEPOINT yaotask_{depth}", f"ROLLBACK TO SAVEPOINT yaotask_{depth}", f"RELEASE SAVEPOINT yaotask_{depth}")
    for depth in range(1, 5)
)


class Misfit(Exception):
    """A row of a batch did not change what it was to change."""


class Work:
    """A transaction under way on `connection`; `now` is the one time of all that it writes."""

    def __init__(
        self, connection: Connection, dialect: Dialect, ids: Ids, sizes: Sizes, now: int, worker: int | None
    ) -> None:
        self.connection = connection
        self.dialect = dialect
        # What this database says in its own words; what all say alike is in `statements`.
        self.own = dialect.statements
        self.ids = ids
        self.sizes = sizes
        self.now = now
        self.worker = worker
        self.harvest = Harvest(now)
        self.tally = rows.Tally()
        self._depth = 0

    def execute(self, statement: str, **values: Any) -> Answer:
        return execute(self.connection, statement, values)

    def post(self, statement: str, **values: Any) -> None:
        """Execute what answers nothing, at the latest with what is executed next."""
        post(self.connection, statement, values)

    def ask_ahead(self, statement: str, **values: Any) -> Posted:
        """Ask what need not be known before the answer to the next statement."""
        return ask_ahead(self.connection, statement, values)

    def expect(self, count: int, statement: str, **values: Any) -> None:
        """Execute what must change so many rows. Raises Misfit where it does not."""
        if self.execute(statement, **values).rowcount != count:
            raise Misfit

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Whatever is raised inside, nothing of it was stored."""
        sizes, tally, first_stored = self.sizes.copy(), self.tally.copy(), self.harvest.first_stored
        afterwards = len(self.harvest.afterwards)
        begin, undo, end = _SAVEPOINTS[self._depth]
        self._depth += 1
        try:
            self.post(begin)
            try:
                yield
                settle(self.connection)
            except BaseException as error:
                # What was posted and cannot be done is undone all the same.
                with suppress(DBAPIError):
                    settle(self.connection)
                # Where the whole transaction is gone, so is this savepoint; and why it is gone has been said.
                with suppress(*((DBAPIError, YaotaskError) if isinstance(error, DBAPIError) else ())):
                    self.execute(undo)
                    self.execute(end)
                self.sizes.restore(sizes)
                self.tally, self.harvest.first_stored = tally, first_stored
                del self.harvest.afterwards[afterwards:]
                raise
            self.post(end)
        finally:
            self._depth -= 1

    def lock(self, keys: Sequence[int]) -> None:
        """Let nobody else change these jobs before this transaction ends."""
        if keys and self.own.LOCK_JOBS is not None:
            self.execute(self.own.LOCK_JOBS, keys=dumps(sorted(set(keys))))

    def held_of(self, keys: Collection[int]) -> frozenset[int]:
        """Those of these jobs that are in somebody else's open transaction; of the others we are sure from now on."""
        return self._held(keys, self.own.FREE_JOBS, statements.STATE_OF)

    def held_events_of(self, seqs: Collection[int]) -> frozenset[int]:
        """The same of events."""
        return self._held(seqs, self.own.FREE_EVENTS, statements.IS_EVENT)

    def _held(self, keys: Collection[int], free: str | None, known: str) -> frozenset[int]:
        if not keys or free is None:
            return frozenset()
        ours = {key for (key,) in self.execute(free, keys=dumps(sorted(keys))).all()}
        missing = (key for key in keys if key not in ours)
        return frozenset(key for key in missing if self.execute(known, key=key).one_or_none() is not None)

    @contextmanager
    def briefly(self) -> Iterator[None]:
        """Inside, what somebody else's transaction has is hardly waited for."""
        brief, patient = self.own.BE_BRIEF, self.own.BE_PATIENT
        if brief is None or patient is None:
            yield
            return
        self.execute(brief)
        try:
            yield
            # What is posted behind something that fails is not run.
            settle(self.connection)
        except BaseException:
            # Where nothing can be said to the database any more, why that is has been said.
            with suppress(DBAPIError):
                self.execute(patient)
            raise
        self.execute(patient)

    def insert_events(self, events: Sequence[list[Any]]) -> None:
        if events:
            self.post(self.own.INSERT_EVENTS, rows=dumps(events), now=self.now)
            self.harvest.wrote_events = True

    def release_held(self, keys: Sequence[int]) -> None:
        """Let jobs go on that were held for an event of theirs, and have nothing to wait for any more."""
        if keys:
            self.post(self.own.RELEASE_HELD, keys=dumps(keys), now=self.now)

    def insert_attempts(self, attempts: Sequence[list[Any]], worker: int | None = None) -> None:
        """Record tries of this cycle's worker, or of another one."""
        if attempts:
            by = self.worker if worker is None else worker
            self.post(self.own.INSERT_ATTEMPTS, rows=dumps(attempts), worker=by)

    def close(self) -> None:
        """The last statements: rows that many processes share are touched as late as can be."""
        self.sizes.write()
        if self.tally:
            shard = (self.worker or 0) % SHARDS if self.dialect.shared else 0
            self.post(self.own.ADD_ROLLUPS, rows=self.tally.rows(shard))
        settle_or_take_along(self.connection)

    def see_done(self) -> None:
        """See that what was posted is done."""
        settle(self.connection)
