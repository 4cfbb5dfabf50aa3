"""A store's database on MySQL or MariaDB: how its tables are made, and whether they are sound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy.engine import Connection

from yaotask.store import tables
from yaotask.store.dialects import mysql_address as addresses
from yaotask.store.dialects import mysql_creating, mysql_weaknesses
from yaotask.store.dialects.server import ServerDatabase, on_tables
from yaotask.store.dialects.weaknesses import Unsound, Weakness, damaged
from yaotask.store.direct import execute

# Of the whole server, whoever has them.
_CONNECTIONS = "SHOW GLOBAL STATUS LIKE 'Threads_connected'"

# MySQL would answer what was so up to a day ago; MariaDB looks each time, and knows no such setting.
_FRESH = "SET SESSION information_schema_stats_expiry = 0"
_BYTES = """
SELECT coalesce(sum(data_length + index_length), 0) FROM information_schema.tables
WHERE table_schema = database() AND table_name LIKE 'yaotask%'
"""

# Those that a server's own default has put elsewhere.
_WITHOUT_TRANSACTIONS = """
SELECT t.table_name AS name, t.engine AS engine FROM information_schema.tables AS t
JOIN information_schema.engines AS e ON e.engine = t.engine
WHERE t.table_schema = database() AND t.table_name LIKE 'yaotask%' AND coalesce(e.transactions, 'NO') <> 'YES'
ORDER BY t.table_name
"""

# What stands for the partial index that MySQL has not: the column is NULL in all rows but those that are ready, and
# the priority is turned round because MariaDB 10.6 knows no descending index. What only its worker can be
# looked for by is found by the other index on workers.
_FURNISH_JOBS = """
ALTER TABLE yaotask_jobs
    ADD COLUMN ready_queue {name} GENERATED ALWAYS AS (
        CASE WHEN state IN (0, 5) AND ready_at IS NOT NULL THEN queue END) STORED,
    ADD COLUMN urgency INTEGER GENERATED ALWAYS AS (-priority) STORED,
    DROP INDEX yaotask_jobs_running,
    DROP INDEX yaotask_jobs_ready,
    ADD INDEX yaotask_jobs_ready (ready_queue, urgency, ready_at)
"""

# For people who look into the database by hand: states by name, times in UTC.
_READABLE_VIEW = """
CREATE SQL SECURITY INVOKER VIEW yaotask_jobs_readable AS
SELECT concat(task, '.', id) AS job, task, id,
    CASE state WHEN 0 THEN 'WAITING' WHEN 1 THEN 'RUNNING' WHEN 2 THEN 'SUCCESS' WHEN 3 THEN 'FAILURE'
        WHEN 5 THEN 'RETRYING' WHEN 6 THEN 'CANCELLED' WHEN 7 THEN 'IGNORED' END AS status,
    priority, generation, attempt, losses, fence, worker, args, payload,
    DATE_ADD('1970-01-01', INTERVAL created_at MICROSECOND) AS created,
    DATE_ADD('1970-01-01', INTERVAL run_at MICROSECOND) AS run,
    DATE_ADD('1970-01-01', INTERVAL started_at MICROSECOND) AS started,
    DATE_ADD('1970-01-01', INTERVAL finished_at MICROSECOND) AS finished, result, error
FROM yaotask_jobs
"""


class MysqlDatabase(ServerDatabase):
    """The database that `url` names, known to users as `label`. See Database."""

    undoes_tables = False

    def __init__(self, label: str) -> None:
        self.label = label

    def alone(self, connection: Connection) -> AbstractContextManager[object]:
        return mysql_creating.alone(connection)

    def create(self, connection: Connection, fill: Callable[[Connection], None]) -> None:
        mysql_creating.create(connection, fill, self.label)

    def left_over(self, connection: Connection) -> Sequence[str]:
        return mysql_creating.left_over(connection, self.label)

    def furnish(self, connection: Connection) -> None:
        name = f"VARCHAR(255) {tables.mysql_collation(connection.dialect)}"
        connection.exec_driver_sql(_furnish_jobs(name))
        connection.exec_driver_sql(_READABLE_VIEW)

    def set_counters(self, connection: Connection) -> None:
        """They go on by themselves."""

    def analyze(self, connection: Connection, table: str) -> None:
        connection.exec_driver_sql(on_tables("ANALYZE TABLE", [table])).close()

    def facts(self, connection: Connection) -> dict[str, Any]:
        version = str(execute(connection, "SELECT version()").scalar())
        used = execute(connection, _CONNECTIONS).all()[0][1]
        if not addresses.is_mariadb(version):
            execute(connection, _FRESH)
        return {
            "bytes": int(execute(connection, _BYTES).scalar_one()),
            "engine": addresses.engine_of(version),
            "connections": f"{used} of {execute(connection, 'SELECT @@max_connections').scalar_one()}",
        }

    def fault(self, connection: Connection, tables_: Sequence[str] | None) -> Unsound | None:
        found = execute(connection, _WITHOUT_TRANSACTIONS).all()
        if loose := [row for row in found if row.name in tables.metadata.tables]:
            cure = "; ".join(f"ALTER TABLE {row.name} ENGINE=InnoDB ROW_FORMAT=DYNAMIC" for row in loose)
            what = f"{loose[0].name} is kept by {loose[0].engine}, which has no transactions"
            return Unsound(what, f"stop all that use the store, then {cure}")
        checked = list(tables_ or tables.metadata.tables)
        how = "QUICK" if tables_ is not None else ""
        answers = connection.exec_driver_sql(on_tables("CHECK TABLE", checked, how)).all()
        faults = (damaged(f"{row[0]}: {row[3]}") for row in answers if row[2].lower() == "error")
        return next(faults, None)

    def weaknesses(self, connection: Connection) -> Sequence[Weakness]:
        return list(mysql_weaknesses.look(connection))


def _furnish_jobs(name: str) -> str:
    """What yaotask_jobs needs besides; `name` is the type of names, which the server's kind decides."""
    return _FURNISH_JOBS.format(name=name)
