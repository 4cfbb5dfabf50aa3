"""What weakens a promise on PostgreSQL, as any user can see it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sqlalchemy.engine import Connection

from yaotask.phrases import counted
from yaotask.store.dialects import weaknesses
from yaotask.store.dialects.weaknesses import Weakness
from yaotask.store.direct import execute

# As they are for this user in this database.
_SETTINGS = """
SELECT name, setting FROM pg_settings
WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit', 'autovacuum', 'synchronous_standby_names')
"""

_OFF: Mapping[str, Weakness] = {
    "fsync": Weakness(
        "fsync is off: a crash of its machine can lose any job, and damage the database", "set fsync = on"
    ),
    "full_page_writes": Weakness(
        "full_page_writes is off: a crash of its machine can damage the database", "set full_page_writes = on"
    ),
    "synchronous_commit": Weakness(
        "synchronous_commit is off: a crash loses the last jobs that were acknowledged",
        "ALTER DATABASE … SET synchronous_commit = on, and ALTER ROLE … where that of the user is off",
    ),
    "autovacuum": Weakness(
        "autovacuum is off: dead rows are never removed, and claims get slower", "set autovacuum = on"
    ),
}

# Whatever synchronous_standby_names says.
_WAIT_FOR_NO_REPLICA = ("off", "local")
_REPLICAS = "SELECT count(*) FROM pg_stat_replication"

# Who may not see it sees no start. A vacuum keeps no other from removing rows.
_OLDEST = """
SELECT pid, CAST(extract(epoch FROM clock_timestamp() - xact_start) AS bigint) AS seconds FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
    AND pid NOT IN (SELECT pid FROM pg_stat_progress_vacuum)
ORDER BY xact_start LIMIT 1
"""

_DEAD = """
SELECT n_dead_tup AS dead, n_live_tup AS live FROM pg_stat_user_tables
WHERE relname = 'yaotask_jobs' AND pg_table_is_visible(relid)
"""

_CONNECTIONS = """
SELECT count(*) AS used, CAST(current_setting('max_connections') AS integer) AS most FROM pg_stat_activity
WHERE backend_type = 'client backend'
"""


def look(connection: Connection) -> Iterator[Weakness]:
    """Everything that is so, the worst first. Raises the driver's error where the server knows no such tables."""
    settings = {row.name: row.setting for row in execute(connection, _SETTINGS).all()}
    yield from (weakness for name, weakness in _OFF.items() if settings.get(name) == "off")
    if not settings.get("synchronous_standby_names") or settings.get("synchronous_commit") in _WAIT_FOR_NO_REPLICA:
        yield from weaknesses.asynchronous_replicas(execute(connection, _REPLICAS).scalar_one())
    oldest = execute(connection, _OLDEST).one_or_none()
    if oldest is not None:
        end = f"SELECT pg_terminate_backend({oldest.pid})"
        yield from weaknesses.long_transaction(oldest.pid, oldest.seconds, end)
    dead = execute(connection, _DEAD).one_or_none()
    if dead is not None and dead.dead > max(weaknesses.USUAL_DEAD, dead.live):
        what = f"{counted(dead.dead, 'dead row')} in yaotask_jobs, beside {dead.live:,} live ones"
        yield Weakness(f"{what}: vacuum does not keep up, and claims get slower", "VACUUM yaotask_jobs")
    used = execute(connection, _CONNECTIONS).one()
    yield from weaknesses.many_connections(used.used, used.most)
