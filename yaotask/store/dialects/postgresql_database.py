"""A store's database on PostgreSQL: how its tables are made, and whether they are sound."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from sqlalchemy import func, inspect, select
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from yaotask.errors import StorageUnavailable
from yaotask.store.dialects import postgresql_weaknesses
from yaotask.store.dialects.postgresql_errors import READ_ONLY, UNKNOWN_FUNCTION, UNKNOWN_STATEMENT, code_of
from yaotask.store.dialects.postgresql_statements import BEGIN
from yaotask.store.dialects.server import ServerDatabase, on_tables
from yaotask.store.dialects.weaknesses import Unsound, Weakness, damaged
from yaotask.store.direct import execute, roll_back
from yaotask.store.tables import metadata

# Their texts and planners changed since: what is older was not tried.
OLDEST_POSTGRESQL = 140_000
# What a node reads that makes the tables at the same time as another one, which was first.
_LOST_RACE = ("23505", "42P07", "42710", "40001", "40P01")
# Of servers that speak PostgreSQL's language, but know no such setting, lock or function.
_UNKNOWN = (*UNKNOWN_STATEMENT, UNKNOWN_FUNCTION, "22023", "42704", "XXUUU")
_TABLES = [table.name for table in metadata.sorted_tables]

# A lost race for the creation of a store ends here instead of in an error, where there is such a lock.
ONE_CREATES = "SELECT pg_advisory_xact_lock(7929871154423)"

# By the schema that the tables are in, or will be.
_ONE_MOVES = """
SELECT pg_try_advisory_xact_lock(hashtextextended('yaotask move ' || coalesce(
    (SELECT nspname FROM pg_namespace AS n JOIN pg_class AS c ON c.relnamespace = n.oid
        WHERE c.oid = to_regclass('yaotask_meta')), current_schema()), 0))
"""
# A move lasts as long as it lasts.
_NO_LIMITS = """
SELECT set_config(name, '0', true) FROM pg_settings
WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout')
"""

# Of the whole server, whoever has them.
_CONNECTIONS = """
SELECT count(*) AS open, current_setting('max_connections') AS most FROM pg_stat_activity
WHERE backend_type = 'client backend'
"""

_BYTES = """
SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class
WHERE relkind = 'r' AND relname = ANY (:tables) AND pg_table_is_visible(oid)
"""

_BROKEN_INDEX = """
SELECT made.relname FROM pg_index AS i
JOIN pg_class AS made ON made.oid = i.indexrelid JOIN pg_class AS held ON held.oid = i.indrelid
WHERE held.relname = ANY (:tables) AND pg_table_is_visible(held.oid) AND NOT (i.indisvalid AND i.indisready)
ORDER BY made.relname LIMIT 1
"""

# The function that looks through an index, where its extension is installed and open to us.
_INDEX_CHECK = """
SELECT CAST(CAST(p.oid AS regproc) AS text) FROM pg_proc AS p
JOIN pg_depend AS d ON d.objid = p.oid AND d.deptype = 'e' AND d.classid = CAST('pg_proc' AS regclass)
JOIN pg_extension AS e ON e.oid = d.refobjid AND e.extname = 'amcheck'
WHERE p.proname = 'bt_index_check' AND p.pronargs = 1 AND has_function_privilege(p.oid, 'EXECUTE')
"""

_INDEXES = """
SELECT CAST(CAST(i.indexrelid AS regclass) AS text) AS name FROM pg_index AS i
JOIN pg_class AS held ON held.oid = i.indrelid JOIN pg_class AS made ON made.oid = i.indexrelid
JOIN pg_am ON pg_am.oid = made.relam AND pg_am.amname = 'btree'
WHERE held.relname = ANY (:tables) AND pg_table_is_visible(held.oid)
ORDER BY 1
"""

# Those that this user may not use. A server that counts in another way has none.
_CLOSED_SEQUENCES = """
SELECT sequence, quote_ident(current_user) AS person FROM (
    SELECT pg_get_serial_sequence(value ->> 0, value ->> 1) AS sequence
    FROM json_array_elements(CAST(:columns AS json))) AS counted
WHERE NOT has_sequence_privilege(sequence, 'USAGE, UPDATE')
"""
_COUNTED = json.dumps(
    [
        [table.name, table.autoincrement_column.name]
        for table in metadata.sorted_tables
        if table.autoincrement_column is not None
    ]
)

# What is updated all the time leaves room in its pages, and is cleaned long before a fifth of it is dead. Small
# tables that are all change are cleaned by the number of their dead rows alone.
_STORAGE = (
    "ALTER TABLE yaotask_jobs SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02,"
    " autovacuum_vacuum_threshold = 2000, autovacuum_analyze_scale_factor = 0.02,"
    " autovacuum_analyze_threshold = 2000)",
    "ALTER TABLE yaotask_events SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000)",
    "ALTER TABLE yaotask_rollups SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02,"
    " autovacuum_vacuum_threshold = 500)",
    "ALTER TABLE yaotask_workers SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0,"
    " autovacuum_vacuum_threshold = 200)",
    "ALTER TABLE yaotask_sizes SET (fillfactor = 30, autovacuum_vacuum_scale_factor = 0,"
    " autovacuum_vacuum_threshold = 500)",
    "ALTER TABLE yaotask_ids SET (fillfactor = 30, autovacuum_vacuum_scale_factor = 0,"
    " autovacuum_vacuum_threshold = 500)",
    "ALTER TABLE yaotask_size_debts SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500)",
)

_INDEXES_OF_ITS_OWN = (
    # What became ready at the same time goes in the order in which it was added, wherever its rows found room.
    "DROP INDEX yaotask_jobs_ready;"
    " CREATE INDEX yaotask_jobs_ready ON yaotask_jobs (queue, task, priority DESC, ready_at, key)"
    " WHERE state IN (0, 5) AND ready_at IS NOT NULL",
    # Each change of a job is written into all its full indexes anew. What is only looked up by spans of time can do
    # with one that says of each stretch of the table which times are in it; it costs a write next to nothing.
    "DROP INDEX yaotask_jobs_created;"
    " CREATE INDEX yaotask_jobs_created ON yaotask_jobs USING brin (created_at) WITH (autosummarize = on)",
    "DROP INDEX yaotask_jobs_finished;"
    " CREATE INDEX yaotask_jobs_finished ON yaotask_jobs USING brin (finished_at) WITH (autosummarize = on)",
)

# For people who look into the database by hand: states by name, times as times.
_READABLE_VIEW = """
CREATE VIEW yaotask_jobs_readable AS
SELECT task || '.' || id AS job, task, id,
    CASE state WHEN 0 THEN 'WAITING' WHEN 1 THEN 'RUNNING' WHEN 2 THEN 'SUCCESS' WHEN 3 THEN 'FAILURE'
        WHEN 5 THEN 'RETRYING' WHEN 6 THEN 'CANCELLED' WHEN 7 THEN 'IGNORED' END AS status,
    priority, generation, attempt, losses, fence, worker, args, payload,
    to_timestamp(created_at / 1e6) AS created, to_timestamp(run_at / 1e6) AS run,
    to_timestamp(started_at / 1e6) AS started,
    to_timestamp(finished_at / 1e6) AS finished, result, error
FROM yaotask_jobs
"""


class PostgresqlDatabase(ServerDatabase):
    """The database that users know as `label`. See Database."""

    undoes_tables = True

    def __init__(self, label: str) -> None:
        self.label = label

    def alone(self, connection: Connection) -> AbstractContextManager[object]:
        # A transaction does it.
        return nullcontext()

    def must_be_usable(self, connection: Connection) -> None:
        # A server tells both when it is connected to; what is between may keep them to itself, or tell its own.
        raw: Any = connection.connection.driver_connection
        info = raw.info
        number = info.server_version
        if number < OLDEST_POSTGRESQL:
            number = int(execute(connection, "SHOW server_version_num").scalar_one())
        if number < OLDEST_POSTGRESQL:
            oldest = OLDEST_POSTGRESQL // 10_000
            raise StorageUnavailable(
                f"{self.label}: it is PostgreSQL {number // 10_000}, yaotask needs {oldest} or newer"
            )
        encoding = info.parameter_status("server_encoding")
        if not _holds_every_text(encoding):
            encoding = execute(connection, "SHOW server_encoding").scalar_one()
        if not _holds_every_text(encoding):
            raise StorageUnavailable(
                f"{self.label}: its encoding is {encoding}, which cannot hold every text: CREATE DATABASE … ENCODING"
                " 'UTF8' TEMPLATE template0"
            )

    def create(self, connection: Connection, fill: Callable[[Connection], None]) -> None:
        execute(connection, BEGIN)
        try:
            _where_known(connection, ONE_CREATES)
            if not inspect(connection).has_table("yaotask_meta"):
                fill(connection)
            execute(connection, "COMMIT")
        except DBAPIError as error:
            roll_back(connection)
            # The other one has committed before we are told.
            if code_of(error) not in _LOST_RACE or not inspect(connection).has_table("yaotask_meta"):
                raise
        except BaseException:
            roll_back(connection)
            raise

    def left_over(self, connection: Connection) -> Sequence[str]:
        # A transaction leaves nothing.
        return ()

    def furnish(self, connection: Connection) -> None:
        connection.exec_driver_sql(_READABLE_VIEW)
        for indexes in _INDEXES_OF_ITS_OWN:
            _where_known(connection, indexes)
        for parameters in _STORAGE:
            _where_known(connection, parameters)

    def set_counters(self, connection: Connection) -> None:
        for table in metadata.sorted_tables:
            column = table.autoincrement_column
            if column is not None:
                last = select(func.max(column)).scalar_subquery()
                sequence = func.pg_get_serial_sequence(table.name, column.name)
                connection.execute(select(func.setval(sequence, last)).where(last.is_not(None)))

    def analyze(self, connection: Connection, table: str) -> None:
        connection.exec_driver_sql(on_tables("ANALYZE", [table]))

    def facts(self, connection: Connection) -> dict[str, Any]:
        size = execute(connection, _BYTES, {"tables": _TABLES}).scalar_one()
        version = str(execute(connection, "SHOW server_version").scalar_one())
        told = {"bytes": int(size), "engine": f"PostgreSQL {version.split()[0]}"}
        try:
            used = execute(connection, _CONNECTIONS).one()
        except DBAPIError as error:
            if code_of(error) not in _UNKNOWN:
                raise
            return told
        return {**told, "connections": f"{used.open} of {used.most}"}

    def fault(self, connection: Connection, tables: Sequence[str] | None) -> Unsound | None:
        looked_at = {"tables": _TABLES if tables is None else list(tables)}
        broken = execute(connection, _BROKEN_INDEX, looked_at).scalar()
        if broken is not None:
            return Unsound(f"the index {broken} is not valid", f"REINDEX INDEX {broken}")
        check = execute(connection, _INDEX_CHECK).scalar()
        if check is None:
            return None
        indexes = [row.name for row in execute(connection, _INDEXES, looked_at).all()]
        return next((fault for name in indexes if (fault := _fault_of(connection, check, name))), None)

    def must_be_writable(self, connection: Connection) -> None:
        # A plan is made there all the same.
        if execute(connection, "SHOW transaction_read_only").scalar_one() == "on":
            raise StorageUnavailable(f"{self.label}: {READ_ONLY}")
        super().must_be_writable(connection)
        self._must_be_countable(connection)

    def _must_be_countable(self, connection: Connection) -> None:
        # A plan is made without a look at what new keys come from.
        try:
            closed = execute(connection, _CLOSED_SEQUENCES, {"columns": _COUNTED}).all()
        except DBAPIError as error:
            if code_of(error) not in _UNKNOWN:
                raise
            return
        if closed:
            sequences = ", ".join(row.sequence for row in closed)
            raise StorageUnavailable(
                f"{self.label}: this user gets no new keys:"
                f" GRANT USAGE, UPDATE ON SEQUENCE {sequences} TO {closed[0].person}"
            )

    def weaknesses(self, connection: Connection) -> Sequence[Weakness]:
        try:
            return list(postgresql_weaknesses.look(connection))
        except DBAPIError as error:
            if code_of(error) not in _UNKNOWN:
                raise
            return [Weakness("its settings could not be looked at: it is not PostgreSQL itself")]


def _holds_every_text(encoding: str | None) -> bool:
    return (encoding or "").upper().replace("-", "") == "UTF8"


def hold_move(connection: Connection) -> bool:
    """Begin a transaction that has the lock of a move; False where another process moves the store.

    A server that knows no such locks has none: there, what a move writes is looked at each time it writes.
    """
    execute(connection, "BEGIN")
    try:
        execute(connection, _NO_LIMITS)
        return bool(execute(connection, _ONE_MOVES).scalar())
    except DBAPIError as error:
        if code_of(error) not in _UNKNOWN:
            raise
        execute(connection, "ROLLBACK")
        return True


def _where_known(connection: Connection, statement: str) -> None:
    """Execute what is only for speed; a server that does not know it goes on without."""
    execute(connection, "SAVEPOINT optional")
    try:
        execute(connection, statement)
    except DBAPIError as error:
        if code_of(error) not in _UNKNOWN:
            raise
        execute(connection, "ROLLBACK TO SAVEPOINT optional")
    execute(connection, "RELEASE SAVEPOINT optional")


def _fault_of(connection: Connection, check: str, index: str) -> Unsound | None:
    try:
        # The name of the function is the server's own.
        execute(connection, _index_check(check), {"name": index})
    except DBAPIError as error:
        if code_of(error) in ("XX002", "XX001"):
            return damaged(f"the index {index}: {error.orig}")
        raise
    return None


def _index_check(function: str) -> str:
    """Let a function of the server, by the name that it gave us, look through an index."""
    return f"SELECT {function}(CAST(:name AS regclass))"
