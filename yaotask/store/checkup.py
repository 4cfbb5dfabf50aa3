"""A look at a store that changes nothing, and the questions of `doctor`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from yaotask.errors import StorageUnavailable
from yaotask.store import opening
from yaotask.store.dialects.weaknesses import Unsound, Weakness
from yaotask.store.direct import ask
from yaotask.store.forks import forks
from yaotask.store.moving import words
from yaotask.store.opening import Place
from yaotask.store.pages import Row
from yaotask.store.tables import ids, meta, sizes, workers

_LATEST = """
SELECT max(moment) FROM (
    SELECT max(created_at) AS moment FROM yaotask_jobs
    UNION ALL SELECT max(started_at) FROM yaotask_jobs WHERE state = 1
    UNION ALL SELECT max(renewed_at) FROM yaotask_workers
    UNION ALL SELECT max(started_at) FROM yaotask_workers) AS moments
"""

# In parts, so that each has an index of just those that wait. What is no bare column keeps the planner off the
# index of all tasks.
_WAITING = """
SELECT task, sum(ready) AS ready, sum(later) AS later, min(since) AS since FROM (
    SELECT coalesce(task, '') AS task, count(*) AS ready, 0 AS later, min(ready_at) AS since
    FROM yaotask_jobs WHERE state IN (0, 5) AND ready_at IS NOT NULL GROUP BY coalesce(task, '')
    UNION ALL
    SELECT coalesce(task, ''), 0, sum(1), NULL
    FROM yaotask_jobs WHERE state IN (0, 5) AND due_at > :now GROUP BY coalesce(task, '')
    UNION ALL
    SELECT coalesce(task, ''), sum(1), 0, min(due_at)
    FROM yaotask_jobs WHERE state IN (0, 5) AND due_at <= :now GROUP BY coalesce(task, '')) AS counts
GROUP BY task ORDER BY task
"""

_UNDELIVERED = """
SELECT count(*) AS events, min(created_at) AS since FROM yaotask_events WHERE state = 0 AND created_at < :before
"""

_GIVEN_UP = """
SELECT count(*) AS events,
    (SELECT task FROM yaotask_events WHERE state = 1 ORDER BY seq DESC LIMIT 1) AS task,
    (SELECT id FROM yaotask_events WHERE state = 1 ORDER BY seq DESC LIMIT 1) AS id,
    (SELECT error FROM yaotask_events WHERE state = 1 ORDER BY seq DESC LIMIT 1) AS error
FROM yaotask_events WHERE state = 1
"""

# Small, and read or written all the time.
_SMALL_TABLES = (meta, workers, sizes, ids)


@contextmanager
def looking(place: Place) -> Iterator[Connection | None]:
    """A connection to the store as it is: none is made, upgraded or waited for; None where there is none yet.

    Raises StorageUnavailable where the store could not be used.
    """
    known, dialect = opening.known_id(place), place.dialect()
    if opening.is_missing(place, dialect, known):
        yield None
        return
    dialect.database.prepare()
    engine = dialect.engine(writer=False)
    try:
        with forks.held_off(), engine.connect() as connection:
            dialect.database.must_be_usable(connection)
            if not opening.has_store(place, dialect, connection, known):
                yield None
                return
            opening.identify(place, dialect, connection, known)
            words.must_be_here(connection)
            opening.must_be_current(connection)
            yield connection
    except DBAPIError as error:
        raise dialect.errors.explain(error.orig) from error
    finally:
        engine.dispose()


def fault(place: Place, connection: Connection, *, whole: bool) -> Unsound | None:
    """What is unsound about the database, or None. The `whole` of it is read from the disk, else the small tables."""
    return place.dialect().database.fault(connection, None if whole else [table.name for table in _SMALL_TABLES])


def refusal(place: Place, connection: Connection) -> str | None:
    """Why a server lets nothing be written, with what to do; or None."""
    dialect = place.dialect()
    try:
        dialect.database.must_be_writable(connection)
    except DBAPIError as error:
        return str(dialect.errors.explain(error.orig))
    except StorageUnavailable as error:
        return str(error)
    return None


def weaknesses(place: Place, connection: Connection) -> Sequence[Weakness]:
    """What weakens a promise on the server of the store; nothing of a file."""
    return place.dialect().database.weaknesses(connection)


def latest(connection: Connection) -> int:
    """The newest of the times that a clock has written here; 0 where there is none."""
    return int(ask(connection, _LATEST).scalar() or 0)


def waiting(connection: Connection, now: int) -> list[Row]:
    """Of each task the jobs that wait: `ready` and `later` count them, `since` is when the oldest of the ready was."""
    return _rows(connection, _WAITING, now=now)


def undelivered(connection: Connection, before: int) -> Row:
    """How many events that are older than this were not delivered, nor given up; and the time of the oldest."""
    return _rows(connection, _UNDELIVERED, before=before)[0]


def given_up(connection: Connection) -> Row:
    """How many events were given up, and the last of them: whose it was, and why."""
    return _rows(connection, _GIVEN_UP)[0]


def _rows(connection: Connection, statement: str, **values: int) -> list[Row]:
    return [dict(row) for row in ask(connection, statement, values).mappings()]
