"""What all parts of a cycle share: the transaction, its one time, and what it has brought so far."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy.engine import Connection

from yaotask.store import rows
from yaotask.store.dialects.base import Dialect
from yaotask.store.direct import Answer, execute
from yaotask.store.ids import Ids
from yaotask.store.protocol import Harvest
from yaotask.store.sizes import Sizes
from yaotask.values import dumps

# A cycle has at most so many rows of a kind, and so many bytes of arguments or results, so that no
# transaction is long.
MOST_ROWS = 2_000
MOST_BYTES = 4 * 1024 * 1024


class Misfit(Exception):
    """A row of a batch did not change what it was to change."""


class Work:
    """A transaction under way on `connection`; `now` is the one time of all that it writes."""

    def __init__(
        self, connection: Connection, dialect: Dialect, ids: Ids, sizes: Sizes, now: int, worker: int | None
    ) -> None:
        self.connection = connection
        self.dialect = dialect
        self.ids = ids
        self.sizes = sizes
        self.now = now
        self.worker = worker
        self.harvest = Harvest()
        self.tally = rows.Tally()

    def execute(self, statement: str, **values: Any) -> Answer:
        return execute(self.connection, statement, values)

    def expect(self, count: int, statement: str, **values: Any) -> None:
        """Execute what must change so many rows. Raises Misfit where it does not."""
        if self.execute(statement, **values).rowcount != count:
            raise Misfit

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Whatever is raised inside, nothing of it was stored."""
        sizes = self.sizes.copy()
        self.execute("SAVEPOINT request")
        try:
            yield
        except BaseException:
            self.execute("ROLLBACK TO SAVEPOINT request")
            self.sizes.restore(sizes)
            raise
        finally:
            self.execute("RELEASE SAVEPOINT request")

    def insert_events(self, events: Sequence[list[Any]]) -> None:
        if events:
            self.execute(self.dialect.insert_events, rows=dumps(events), now=self.now)
            self.harvest.wrote_events = True

    def release_held(self, keys: Sequence[int]) -> None:
        """Let jobs go on that were held for an event of theirs, and have nothing to wait for any more."""
        if keys:
            self.execute(self.dialect.release_held, keys=dumps(keys), now=self.now)

    def insert_attempts(self, attempts: Sequence[list[Any]], worker: int | None = None) -> None:
        """Record tries of this cycle's worker, or of another one."""
        if attempts:
            by = self.worker if worker is None else worker
            self.execute(self.dialect.insert_attempts, rows=dumps(attempts), worker=by)

    def close(self) -> None:
        """The last statements: rows that many processes share are touched as late as can be."""
        self.sizes.write()
        if self.tally:
            self.execute(self.dialect.add_rollups, rows=self.tally.rows())
