"""What statements read, as each database counts it itself: no clock is needed to see that one reads too much."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any

from plans_support import watched
from store_support import Bench

# Of each statement the most that one of its runs has read.
Costs = dict[str, int]

# How many steps of SQLite's machine count as one.
_STEPS = 10
# What this transaction has read, and nobody else.
_PAGES = """
SELECT CAST(coalesce(sum(pg_stat_get_xact_blocks_fetched(oid)), 0) AS bigint) FROM pg_class
WHERE relname LIKE 'yaotask%' AND relkind IN ('r', 'i')
"""
_ROWS = "SHOW SESSION STATUS LIKE 'Handler_read%'"


class Steps:
    """SQLite: tens of steps of its machine; a row that is looked at takes one of these or a few."""

    def __init__(self) -> None:
        self.costs: Costs = defaultdict(int)
        self._connections: set[Any] = set()

    def before(self, cursor: Any, statement: str, _values: Any) -> None:
        steps = count(1)

        def step() -> None:
            self.costs[statement] = max(self.costs[statement], next(steps))

        # It stays when the statement was begun, because rows are looked at as they are fetched.
        cursor.connection.set_progress_handler(step, _STEPS)
        self._connections.add(cursor.connection)

    def after(self, cursor: Any) -> None:
        """The next statement of the connection ends this one."""

    def close(self) -> None:
        for connection in self._connections:
            connection.set_progress_handler(None, 0)


class Pages:
    """PostgreSQL: pages of tables and indexes, in memory or not."""

    def __init__(self) -> None:
        self.costs: Costs = defaultdict(int)
        self._statement, self._before, self._is_alone = "", 0, False

    def before(self, cursor: Any, statement: str, _values: Any) -> None:
        # The numbers of a transaction end with it.
        self._is_alone = cursor.connection.info.transaction_status.name == "IDLE"
        if self._is_alone:
            cursor.connection.cursor().execute("BEGIN")
        self._statement, self._before = statement, self._pages(cursor)

    def after(self, cursor: Any) -> None:
        _enter(self.costs, self._statement, self._pages(cursor) - self._before)
        if self._is_alone:
            cursor.connection.cursor().execute("COMMIT")

    def _pages(self, cursor: Any) -> int:
        return sum(pages for (pages,) in cursor.connection.cursor().execute(_PAGES))

    def close(self) -> None:
        """Nothing was changed."""


class Rows:
    """MySQL and MariaDB: rows and entries of indexes."""

    def __init__(self) -> None:
        self.costs: Costs = defaultdict(int)
        self._statement, self._before = "", 0

    def before(self, cursor: Any, statement: str, _values: Any) -> None:
        self._statement, self._before = statement, self._rows(cursor)

    def after(self, cursor: Any) -> None:
        _enter(self.costs, self._statement, self._rows(cursor) - self._before)

    def _rows(self, cursor: Any) -> int:
        with cursor.connection.cursor() as other:
            other.execute(_ROWS)
            return sum(int(rows) for _, rows in other.fetchall())

    def close(self) -> None:
        """Nothing was changed."""


def _enter(costs: Costs, statement: str, read: int) -> None:
    costs[statement] = max(costs[statement], read)


METERS: Mapping[str, type[Steps] | type[Pages] | type[Rows]] = {"sqlite": Steps, "postgresql": Pages, "mysql": Rows}


@contextmanager
def counted(bench: Bench) -> Iterator[Costs]:
    """What each statement reads meanwhile, of the ledger and of readers, in the measure of its database."""
    meter = METERS[bench.store.dialect.name]()
    try:
        with watched(bench, meter.before, meter.after):
            yield meter.costs
    finally:
        meter.close()
