"""The project that is measured, and what its store says of its jobs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import text

from databases import asking
from yaotask.clock import SECOND
from yaotask.jobs import JobState
from yaotask.settings import load_settings
from yaotask.store.opening import place

# Jobs a second; a worker that is slower hangs.
SLOWEST = 1_000
# More than any benchmark adds.
SIZE = 100_000_000
WORKER_NUMS = 100
# Threads of a sync handler.
THREADS = 8
# Threads of a handler that is all computing.
COUNTING = 4

SCRIPT = '''\
import time

import anyio
from sqlalchemy import create_engine, text

from yaotask import current_job


async def Noop(task_id, *args):
    pass


def NoopInThread(task_id, *args):
    pass


def Count(task_id, times):
    """Nothing but Python, which keeps the interpreter to itself."""
    total = 0
    for number in range(times):
        total += number


async def Short(task_id, *args):
    await anyio.sleep(0.01)


async def Started(task_id, added):
    """How many nanoseconds ago it was added."""
    return time.monotonic_ns() - added


def Report(task_id, count):
    """How many nanoseconds each report of progress took."""
    job, taken = current_job(), []
    for number in range(count):
        before = time.perf_counter_ns()
        job.progress(number, count)
        taken.append(time.perf_counter_ns() - before)
        time.sleep(0.001)
    return taken


def Stored(task_id, count, database):
    """How many nanoseconds after each report of progress another connection could read it."""
    job, taken = current_job(), []
    query = text("SELECT current FROM yaotask_jobs WHERE task = :task AND id = :id")
    mine = {"task": job.task, "id": job.id}
    with create_engine(database, isolation_level="AUTOCOMMIT").connect() as connection:
        for number in range(1, count + 1):
            before = time.perf_counter_ns()
            job.progress(number, count)
            while connection.execute(query, mine).scalar_one() != number:
                time.sleep(0.000_1)
            taken.append(time.perf_counter_ns() - before)
            time.sleep(0.005)
    return taken
'''

TASKS = {
    "noop": {"process": "scripts.handlers.Noop", "worker_nums": WORKER_NUMS},
    "threads": {"process": "scripts.handlers.NoopInThread", "worker_nums": THREADS},
    "count": {"process": "scripts.handlers.Count", "worker_nums": COUNTING},
    "short": {"process": "scripts.handlers.Short", "worker_nums": WORKER_NUMS},
    "started": {"process": "scripts.handlers.Started", "worker_nums": WORKER_NUMS},
    "report": {"process": "scripts.handlers.Report", "worker_nums": 1},
    "stored": {"process": "scripts.handlers.Stored", "worker_nums": 1},
}


def write(root: Path, settings: Mapping[str, Any]) -> None:
    """Write the project into a folder."""
    (root / "yaotask.yml").write_text(json.dumps(settings), encoding="utf-8")
    (root / "scripts").mkdir()
    (root / "scripts" / "handlers.py").write_text(SCRIPT, encoding="utf-8")
    (root / "tasks").mkdir()
    for id, keys in TASKS.items():
        define(root, id, keys)


def define(root: Path, id: str, keys: dict[str, object]) -> None:
    """Write the definition of one more task."""
    text = json.dumps({"name": id, "size": SIZE, **keys})
    (root / "tasks" / f"{id}.json").write_text(text, encoding="utf-8")


def address(root: Path) -> str:
    """Where its store is, for programs in any folder."""
    return place(root, load_settings(root, {})[0].store).url.render_as_string(hide_password=False)


def wait_until_done(root: Path, jobs: int) -> None:
    """Wait until so many jobs have ended; it is cheap to ask, so that it disturbs nobody."""
    query, deadline = "SELECT coalesce(sum(jobs), 0) FROM yaotask_rollups", time.monotonic() + 60 + jobs / SLOWEST
    with asking(root) as connection:
        while (ended := int(connection.execute(text(query)).scalar_one())) < jobs:
            assert time.monotonic() < deadline, f"only {ended} of {jobs} jobs have ended"
            time.sleep(0.1)


def time_taken(root: Path, task: str) -> float:
    """Seconds from the first start of a task's jobs to the last end, as the store has them."""
    query = text("SELECT max(finished_at) - min(started_at) FROM yaotask_jobs WHERE task = :task")
    with asking(root) as connection:
        return int(connection.execute(query, {"task": task}).scalar_one()) / SECOND


def check_succeeded(root: Path, task: str, jobs: int) -> None:
    """See that exactly so many jobs of a task have succeeded, by their rows."""
    query = text("SELECT count(*) FROM yaotask_jobs WHERE task = :task AND state = :state")
    with asking(root) as connection:
        succeeded = connection.execute(query, {"task": task, "state": int(JobState.SUCCESS)}).scalar_one()
    assert succeeded == jobs, f"{succeeded} of {jobs} jobs of {task} succeeded"
