"""The numbered steps from each schema to the next, and the version a store is at."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import inspect
from sqlalchemy.engine import Connection
from sqlalchemy.schema import CreateIndex

from yaotask.errors import StorageUnavailable
from yaotask.store import tables

# The schema that tables.py describes. Step n turns a store at n - 1 into one at n. Those up to 3 are only ever taken
# on SQLite: no other database has had an older schema. The later ones are taken on all.
CURRENT = 4
STEPS: Mapping[int, Sequence[str]] = {
    # Running jobs can be cancelled; workers have supervisors, which renew their leases.
    2: (
        "ALTER TABLE yaotask_jobs ADD COLUMN cancel_at BIGINT",
        "CREATE INDEX yaotask_jobs_cancelling ON yaotask_jobs (worker, cancel_at)"
        " WHERE state = 1 AND cancel_at IS NOT NULL",
        "ALTER TABLE yaotask_workers ADD COLUMN kind TEXT DEFAULT 'worker' NOT NULL",
        "ALTER TABLE yaotask_workers ADD COLUMN node BIGINT",
        "ALTER TABLE yaotask_workers ADD COLUMN number INTEGER",
        "ALTER TABLE yaotask_workers ADD COLUMN renewed_at BIGINT",
        "ALTER TABLE yaotask_workers ADD COLUMN info TEXT",
    ),
    # Processes that write at once count apart. A key cannot be changed in place.
    3: (
        "ALTER TABLE yaotask_rollups RENAME TO yaotask_rollups_2",
        "CREATE TABLE yaotask_rollups (task TEXT NOT NULL, minute BIGINT NOT NULL, outcome SMALLINT NOT NULL,"
        " bucket SMALLINT NOT NULL, shard SMALLINT DEFAULT 0 NOT NULL, jobs BIGINT NOT NULL, run_us BIGINT NOT NULL,"
        " wait_us BIGINT NOT NULL, PRIMARY KEY (task, minute, outcome, bucket, shard)) WITHOUT ROWID",
        "INSERT INTO yaotask_rollups SELECT task, minute, outcome, bucket, 0, jobs, run_us, wait_us"
        " FROM yaotask_rollups_2",
        "DROP TABLE yaotask_rollups_2",
    ),
    # Hooks that end their process are known by it.
    4: ("ALTER TABLE yaotask_events ADD COLUMN deaths INTEGER DEFAULT 0 NOT NULL",),
}

_ADDS_COLUMN = re.compile(r"ALTER TABLE (\w+) ADD COLUMN (\w+)")


def create(connection: Connection, store_id: str, furnish: Callable[[Connection], None]) -> None:
    """Make an empty store at the current schema; `furnish` adds what its database needs besides.

    Its name comes last: a store without one was not finished, where the making of tables cannot be rolled back.
    """
    for table in tables.metadata.sorted_tables:
        connection.execute(tables.NewTable(table))
        # In one order everywhere: where a planner finds two indexes equal, it takes one by their order.
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            connection.execute(CreateIndex(index))
    furnish(connection)
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


def is_ours(connection: Connection) -> bool:
    """Whether the table that should tell of the store can do so."""
    return {"name", "value"} <= {column["name"] for column in inspect(connection).get_columns(tables.meta.name)}


def is_unfinished(connection: Connection) -> bool:
    """Whether somebody died while making the tables, where that cannot be rolled back."""
    return is_ours(connection) and store_id(connection) is None and _meta(connection, "schema") is None


def upgrade(connection: Connection) -> tuple[int, int]:
    """Take the steps that are missing; from which schema to which. Only `run` and `db upgrade` do this."""
    before = version(connection)
    for step in range(before + 1, CURRENT + 1):
        for statement in STEPS[step]:
            if not is_done(connection, statement):
                connection.exec_driver_sql(statement)
        connection.execute(tables.meta.update().where(tables.meta.c.name == "schema").values(value=str(step)))
    return before, CURRENT


def is_done(connection: Connection, statement: str) -> bool:
    """Whether somebody came no further than this, where the making of columns cannot be rolled back."""
    found, inspector = _ADDS_COLUMN.match(statement), inspect(connection)
    if found is None or not inspector.has_table(found[1]):
        return False
    return found[2] in {column["name"] for column in inspector.get_columns(found[1])}


def _meta(connection: Connection, name: str) -> str | None:
    value: str | None = connection.execute(
        tables.meta.select().with_only_columns(tables.meta.c.value).where(tables.meta.c.name == name)
    ).scalar()
    return value
