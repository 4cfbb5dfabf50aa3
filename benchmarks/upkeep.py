"""Upkeep: what a drained job costs a server, besides time, as the server counts it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import text

import draining
import project
from databases import asking
from harness import Bench, Row, measure

# Of PostgreSQL. An update leaves an old version of its row behind, a delete the last one; where an update changes no
# index, it is cleared away as soon as the page is read, else by autovacuum.
_POSTGRESQL = """
SELECT pg_current_wal_insert_lsn() - '0/0' AS log,
    (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()) AS transactions,
    sum(n_tup_upd + n_tup_del) AS dead, sum(n_tup_hot_upd) AS hot
FROM pg_stat_user_tables WHERE left(relname, 8) = 'yaotask_'
"""
_OTHERS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
# Of MySQL and MariaDB, for the whole server.
_MYSQL = "SHOW GLOBAL STATUS WHERE Variable_name IN ('Com_commit', 'Innodb_os_log_written')"
_NAMES = {"Com_commit": "transactions", "Innodb_os_log_written": "log"}
PATIENCE = 30.0


def rows(bench: Bench) -> Iterator[Row]:
    """Nothing for SQLite, whose commits are counted where it is drained."""
    if not bench.on_server:
        return
    jobs = bench.pick(100_000, 3_000)
    costs = bench.repeat(lambda: _cost(bench, jobs))
    log, aim = ("WAL", "<= 1,500") if bench.kind == "postgresql" else ("redo log", "")
    yield Row(f"{log} of a drained no-op", "bytes", [cost["log"] for cost in costs], aim)
    which = "all that read too" if bench.kind == "postgresql" else "those that write"
    yield Row(f"transactions of one, as the server counts them, {which}", "", [cost["transactions"] for cost in costs])
    if bench.kind == "postgresql":
        yield Row("dead tuples of one", "", [cost["dead"] for cost in costs])
        yield Row("those of them that need no vacuum (HOT)", "", [cost["hot"] for cost in costs])


def _cost(bench: Bench, jobs: int) -> dict[str, float]:
    """What the server counts while jobs are drained, for each of them."""
    root = bench.project()
    measure(draining.add, root, task="noop", jobs=jobs)
    before = _counted(bench, root)
    measure(draining.drain, root, jobs=jobs)
    after = _counted(bench, root)
    project.check_succeeded(root, "noop", jobs)
    return {name: (after[name] - before[name]) / jobs for name in before}


def _counted(bench: Bench, root: Path) -> dict[str, float]:
    with asking(root) as connection:
        if bench.kind == "mysql":
            return {_NAMES[name]: float(value) for name, value in connection.execute(text(_MYSQL)).all()}
        # A connection tells what it has done at its end, and a process may be gone before its connections are.
        deadline = time.monotonic() + PATIENCE
        while connection.execute(text(_OTHERS)).scalar_one():
            assert time.monotonic() < deadline, "somebody else is connected"
            time.sleep(0.05)
        return {name: float(value) for name, value in connection.execute(text(_POSTGRESQL)).mappings().one().items()}
