"""Questions about jobs: one, some, what is left to do. Read in committed state, without the ledger."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.engine import Connection

from yaotask.jobs import name_of
from yaotask.store import statements
from yaotask.store.direct import ask
from yaotask.store.pages import LARGEST_PAGE, Filter, Row, count, page, read_rows
from yaotask.store.tables import attempts, jobs

__all__ = [
    "LARGEST_PAGE",
    "Filter",
    "Row",
    "attempts_of",
    "by_state",
    "count",
    "get",
    "page",
    "status",
    "unsettled",
]

# SQLite takes only so many values in one statement.
_MOST_IDS = 1_000


def get(connection: Connection, task: str, id: int) -> Row | None:
    """The job, or None."""
    found = read_rows(connection, select(jobs).where(jobs.c.task == task, jobs.c.id == id))
    return found[0] if found else None


def status(connection: Connection, task: str, ids: Sequence[int]) -> list[Row]:
    """What is needed to tell the status of each of these jobs that exists."""
    columns = [jobs.c[name] for name in ("id", "state", "started_at", "attempt", "losses", "deaths", "fail_count")]
    query = select(*columns).where(jobs.c.task == task)
    found: list[Row] = []
    for start in range(0, len(ids), _MOST_IDS):
        some = ids[start : start + _MOST_IDS]
        found += read_rows(connection, query.where(jobs.c.id.in_(some)))
    return found


def attempts_of(connection: Connection, key: int) -> list[Row]:
    """The recorded tries of a job, oldest first. A success at the first try leaves none."""
    return read_rows(connection, select(attempts).where(attempts.c.job == key).order_by(attempts.c.fence))


def by_state(connection: Connection) -> dict[str, int]:
    """How many jobs are in each state, counted one by one: for people who ask now and then."""
    found = connection.execute(select(jobs.c.state, func.count()).group_by(jobs.c.state).order_by(jobs.c.state))
    return {name_of(state): total for state, total in found}


def unsettled(connection: Connection, tasks: Sequence[str]) -> bool:
    """Whether any job of these tasks is ready, running or retrying, or any event of theirs is undelivered.

    A job that waits for a future time of its adder's choosing does not count. One that is held for
    its own events is counted by these. To be asked in a snapshot: a job that moves on between two looks would
    escape them both.
    """

    def finds(statement: str, task: str) -> bool:
        return ask(connection, statement, {"task": task}).first() is not None

    return any(finds(statement, task) for statement in statements.UNSETTLED for task in tasks)
