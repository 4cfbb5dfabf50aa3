"""Growth: one process adds jobs at a steady rate, another runs them and writes down how large all has become."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import anyio
import anyio.to_thread
from sqlalchemy import text
from sqlalchemy.engine import Connection

import project
from databases import asking
from yaotask import App, worker
from yaotask.handles import Task
from yaotask.jobs import Succeeded
from yaotask.store.cycle import SqlCycle

# Between two looks how many jobs are due; small, so that a second's jobs do not come in one crowd.
TICK = 0.01
# Adds under way: beyond them the store does not keep up, and the rate falls.
MOST_UNDER_WAY = 2_000

_POSTGRESQL = """
SELECT sum(pg_table_size(relid)) AS table_bytes, sum(pg_indexes_size(relid)) AS index_bytes,
    sum(n_live_tup) AS live, sum(n_dead_tup) AS dead, sum(autovacuum_count) AS vacuums,
    pg_current_wal_insert_lsn() - '0/0' AS log
FROM pg_stat_user_tables WHERE left(relname, 8) = 'yaotask_'
"""
# What InnoDB has not purged yet stands for dead tuples.
_MYSQL = """
SELECT (SELECT sum(data_length) FROM information_schema.tables WHERE table_schema = database()) AS table_bytes,
    (SELECT sum(index_length) FROM information_schema.tables WHERE table_schema = database()) AS index_bytes,
    (SELECT sum(table_rows) FROM information_schema.tables WHERE table_schema = database()) AS live,
    (SELECT count FROM information_schema.innodb_metrics WHERE name = 'trx_rseg_history_len') AS dead
"""
_LOG = "SHOW GLOBAL STATUS LIKE 'Innodb_os_log_written'"


class Timed(NamedTuple):
    """A claim."""

    seconds: float
    jobs: int


class Facts(NamedTuple):
    """What the database says of itself; None: this one does not. `log` is all that it has ever written."""

    table_bytes: int
    index_bytes: int | None = None
    live: int | None = None
    dead: int | None = None
    log: int | None = None
    vacuums: int | None = None


class Sample(NamedTuple):
    """How things stand at one moment: Facts, and what the worker knows.

    That is how long a claim took, and how many jobs it found, both as medians since the sample before.
    """

    minutes: float
    done: int
    claim_ms: float | None
    claimed: float | None
    table_bytes: int
    index_bytes: int | None
    live: int | None
    dead: int | None
    log: int | None
    vacuums: int | None


# --- in the child that adds ---------------------------------------------------------------------------------


def add_steadily(root: str, rate: int, seconds: float) -> int:
    """Add so many jobs a second, each by itself; how many there were."""
    with App(root) as app:
        return anyio.run(_add_steadily, app.tasks["noop"], rate, seconds)


async def _add_steadily(task: Task, rate: int, seconds: float) -> int:
    added = done = 0

    async def add(number: int) -> None:
        nonlocal done
        await task.aadd(number)
        done += 1

    started = time.monotonic()
    async with anyio.create_task_group() as group:
        while (elapsed := time.monotonic() - started) < seconds:
            for _ in range(min(int(elapsed * rate) - added, MOST_UNDER_WAY - (added - done))):
                group.start_soon(add, added)
                added += 1
            await anyio.sleep(TICK)
    return added


# --- in the child that works --------------------------------------------------------------------------------


def work(root: str, seconds: float, every: float, samples: str) -> int:
    """Run the jobs for so long, and append a sample to a file now and then, each a line; how many were done."""
    sys.setswitchinterval(worker.SWITCH_INTERVAL)
    with App(root) as app, _claims_timed() as claims:
        return anyio.run(_work, app, seconds, every, Path(samples), claims)


async def _work(app: App, seconds: float, every: float, samples: Path, claims: list[Timed]) -> int:
    runner, started, number = app.works.embedded(), time.monotonic(), 0
    async with runner.running(grace=10):
        while (number := number + 1) * every <= seconds + every / 2:
            await anyio.sleep(started + number * every - time.monotonic())
            taken, claims[:] = claims[:], []
            minutes, done = (time.monotonic() - started) / 60, runner.ended[Succeeded]
            middle = 1_000 * statistics.median(claim.seconds for claim in taken) if taken else None
            found = statistics.median(claim.jobs for claim in taken) if taken else None
            facts = await anyio.to_thread.run_sync(_facts, app.root)
            sample = Sample(minutes, done, middle, found, *facts)
            with samples.open("a") as file:
                file.write(json.dumps(sample) + "\n")
    return runner.ended[Succeeded]


@contextmanager
def _claims_timed() -> Iterator[list[Timed]]:
    """Each claim that found something."""
    taken: list[Timed] = []
    claim = SqlCycle.claim

    def timed(cycle: SqlCycle, demands: Mapping[str, int], worker: int) -> None:
        started = time.perf_counter()
        claim(cycle, demands, worker)
        seconds, jobs = time.perf_counter() - started, sum(map(len, cycle.harvest.claims.values()))
        if jobs:
            taken.append(Timed(seconds, jobs))

    with patch.object(SqlCycle, "claim", timed):
        yield taken


# --- what databases say -------------------------------------------------------------------------------------


def _facts(root: Path) -> Facts:
    with asking(root) as connection:
        return _ASK[connection.dialect.name](connection, root)


def _sqlite(_: Connection, root: Path) -> Facts:
    file = Path(project.address(root).removeprefix("sqlite:///"))
    return Facts(sum(beside.stat().st_size for beside in file.parent.glob(f"{file.name}*")))


def _postgresql(connection: Connection, _: Path) -> Facts:
    return Facts(**{name: int(value) for name, value in connection.execute(text(_POSTGRESQL)).mappings().one().items()})


def _mysql(connection: Connection, _: Path) -> Facts:
    found = connection.execute(text(_MYSQL)).mappings().one()
    log = connection.execute(text(_LOG)).one()[1]
    return Facts(**{name: int(value) for name, value in found.items()}, log=int(log))


_ASK: Mapping[str, Callable[[Connection, Path], Facts]] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "mysql": _mysql,
    "mariadb": _mysql,
}
