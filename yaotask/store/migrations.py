"""The numbered steps from each schema to the next, and the version a store is at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy.engine import Connection

from yaotask.errors import StorageUnavailable
from yaotask.store import tables

# The schema that tables.py describes. Step n turns a store at n - 1 into one at n.
CURRENT = 1
STEPS: Mapping[int, Sequence[str]] = {}

# For people who look into the database by hand: states by name, times as text.
READABLE_VIEW = """
CREATE VIEW yaotask_jobs_readable AS
SELECT task || '.' || id AS job, task, id,
    CASE state WHEN 0 THEN 'WAITING' WHEN 1 THEN 'RUNNING' WHEN 2 THEN 'SUCCESS' WHEN 3 THEN 'FAILURE'
        WHEN 5 THEN 'RETRYING' WHEN 6 THEN 'CANCELLED' WHEN 7 THEN 'IGNORED' END AS status,
    priority, generation, attempt, losses, fence, worker, args, payload,
    datetime(created_at / 1000000, 'unixepoch') AS created, datetime(run_at / 1000000, 'unixepoch') AS run,
    datetime(started_at / 1000000, 'unixepoch') AS started,
    datetime(finished_at / 1000000, 'unixepoch') AS finished, result, error
FROM yaotask_jobs
"""


def create(connection: Connection, store_id: str) -> None:
    """Make an empty store at the current schema."""
    tables.metadata.create_all(connection)
    connection.exec_driver_sql(READABLE_VIEW)
    insert = tables.meta.insert()
    connection.execute(insert, [{"name": "schema", "value": str(CURRENT)}, {"name": "store", "value": store_id}])


def version(connection: Connection) -> int:
    """The schema a store is at. Raises StorageUnavailable where it is newer than this yaotask."""
    found = int(_meta(connection, "schema") or 0)
    if found > CURRENT:
        raise StorageUnavailable(
            f"the store is at schema {found}, this yaotask knows up to {CURRENT}: install the newer yaotask"
        )
    return found


def store_id(connection: Connection) -> str | None:
    """The name that the store was given when it was created."""
    return _meta(connection, "store")


def upgrade(connection: Connection) -> tuple[int, int]:
    """Take the steps that are missing; from which schema to which. Only `run` and `db upgrade` do this."""
    before = version(connection)
    for step in range(before + 1, CURRENT + 1):
        for statement in STEPS[step]:
            connection.exec_driver_sql(statement)
        connection.execute(tables.meta.update().where(tables.meta.c.name == "schema").values(value=str(step)))
    return before, CURRENT


def _meta(connection: Connection, name: str) -> str | None:
    value: str | None = connection.execute(
        tables.meta.select().with_only_columns(tables.meta.c.value).where(tables.meta.c.name == name)
    ).scalar()
    return value
