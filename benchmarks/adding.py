"""Adding: how fast jobs become durable, with no worker at work."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import anyio

from harness import Bench, Row, measure
from yaotask import App
from yaotask.handles import Task

ADDERS = 100


# --- in the child -------------------------------------------------------------------------------------------


def one_at_a_time(root: str, jobs: int) -> tuple[float, float]:
    """Seconds of so many bare commits, then of so many adds, each awaited; each in two parts, taken in turn."""
    half, bare, ours = jobs // 2, 0.0, 0.0
    with App(root) as app, closing(_bare_database(Path(root))) as connection:
        app.tasks["noop"].add("opens the store")
        for _ in range(2):
            bare += _commit_bare_rows(connection, half)
            ours += anyio.run(_await_adds, app.tasks["noop"], half)
    return bare, ours


def _bare_database(root: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(root / "bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE jobs (key INTEGER PRIMARY KEY, task TEXT NOT NULL, args TEXT NOT NULL)")
    return connection


def _commit_bare_rows(connection: sqlite3.Connection, count: int) -> float:
    started = time.perf_counter()
    for number in range(count):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO jobs (task, args) VALUES (?, ?)", ("noop", f"[{number}]"))
        connection.execute("COMMIT")
    return time.perf_counter() - started


async def _await_adds(task: Task, count: int) -> float:
    started = time.perf_counter()
    for number in range(count):
        await task.aadd(number)
    return time.perf_counter() - started


def at_once(root: str, jobs: int) -> float:
    """Seconds in which many asyncio tasks add so many jobs, each awaiting its own."""
    with App(root) as app:
        app.tasks["noop"].add("opens the store")
        return anyio.run(_add_at_once, app.tasks["noop"], jobs)


async def _add_at_once(task: Task, jobs: int) -> float:
    started = time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(ADDERS):
            group.start_soon(_await_adds, task, jobs // ADDERS)
    return time.perf_counter() - started


def in_bulk(root: str, jobs: int) -> float:
    """Seconds in which one call adds so many jobs."""
    with App(root) as app:
        app.tasks["noop"].add("opens the store")
        started = time.perf_counter()
        ids = app.tasks["noop"].add_many([number] for number in range(jobs))
        seconds = time.perf_counter() - started
    assert len(set(ids)) == jobs
    return seconds


# --- in the parent ------------------------------------------------------------------------------------------


def rows(bench: Bench) -> Iterator[Row]:
    """One at a time, from many tasks, in bulk."""
    few, many, bulk = bench.pick(4_000, 200), bench.pick(100_000, 2_000), bench.pick(200_000, 5_000)
    pairs = bench.repeat(lambda: measure(one_at_a_time, bench.project(), jobs=few))
    yield Row("add, one at a time, awaited", "jobs/s", [few / ours for _, ours in pairs])
    what = "the same, of the speed of a bare durable commit"
    yield Row(what, "%", [100 * bare / ours for bare, ours in pairs], ">= 50")
    yield Row(f"add from {ADDERS} tasks at once", "jobs/s", _rates(bench, at_once, many), ">= 40,000")
    yield Row("add in bulk", "jobs/s", _rates(bench, in_bulk, bulk), ">= 100,000")


def _rates(bench: Bench, function: Callable[..., float], jobs: int) -> list[float]:
    return [jobs / seconds for seconds in bench.repeat(lambda: measure(function, bench.project(), jobs=jobs))]
