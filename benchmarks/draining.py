"""Draining: jobs that wait are run, by one worker process."""

from __future__ import annotations

import mmap
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypedDict
from unittest.mock import patch

import anyio

import project
from harness import Bench, Row, measure, measure_together
from yaotask import App, worker
from yaotask.jobs import Succeeded
from yaotask.store import direct

# Between two looks whether all is done; each look takes time from the worker.
GLANCE = 0.005
# What is held everywhere, whatever the machine.
MOST_COMMITS = 0.02


class Drained(TypedDict):
    """How long a drain took, and how much of it the worker's process spent on a processor."""

    seconds: float
    cpu: float


# --- in the child -------------------------------------------------------------------------------------------


def add(root: str, task: str, jobs: int, argument: int | None = None) -> None:
    """Add jobs with this argument, or a number of its own each, and let nobody run them yet."""
    with App(root) as app:
        app.tasks[task].add_many([number if argument is None else argument] for number in range(jobs))


def drain(root: str, jobs: int) -> Drained:
    """Work until so many jobs are stored as done; the time of the store's opening is not counted."""
    # As `yaotask run` has it.
    sys.setswitchinterval(worker.SWITCH_INTERVAL)
    with App(root) as app:
        return anyio.run(_drain, app, jobs)


async def _drain(app: App, jobs: int) -> Drained:
    runner = app.works.embedded()
    started, cpu = time.perf_counter(), time.process_time()
    async with runner.running(grace=10):
        while runner.ended[Succeeded] < jobs:  # noqa: ASYNC110 - a worker has no end to announce
            await anyio.sleep(GLANCE)
        return {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}


def drain_and_count(root: str, jobs: int) -> int:
    """Drain, and count the commits of the process."""
    commits = 0

    def run(cursor: Any, statement: str, values: Mapping[str, Any]) -> None:
        nonlocal commits
        commits += statement.startswith("COMMIT")
        cursor.execute(statement, values)

    with patch.object(direct, "run", run):
        drain(root, jobs)
    assert commits > 0, "the connection that writes was not seen"
    return commits


def drain_together(root: str, jobs: int, counts: str, index: int) -> list[float]:
    """Drain with others, once all are ready, until all have done so many jobs; when that began and ended."""
    sys.setswitchinterval(worker.SWITCH_INTERVAL)
    with App(root) as app, _shared(Path(counts)) as done:
        return anyio.run(_drain_together, app, jobs, done, index)


@contextmanager
def _shared(path: Path) -> Iterator[memoryview]:
    """Numbers that several processes see: of each, how many jobs it has done and one, or nought until it is ready."""
    with (
        path.open("r+b") as file,
        mmap.mmap(file.fileno(), 0) as mapped,
        memoryview(mapped) as bare,
        bare.cast("q") as numbers,
    ):
        yield numbers


async def _drain_together(app: App, jobs: int, done: memoryview, index: int) -> list[float]:
    runner = app.works.embedded()
    app.store_status()  # which opens the store
    done[index] = 1
    while 0 in done.tolist():  # noqa: ASYNC110 - other processes, which tell nothing
        await anyio.sleep(GLANCE)
    started = time.monotonic()
    async with runner.running(grace=10):
        while sum(done.tolist()) < jobs + len(done):
            await anyio.sleep(GLANCE)
            done[index] = runner.ended[Succeeded] + 1
        return [started, time.monotonic()]


# --- in the parent ------------------------------------------------------------------------------------------


def rows(bench: Bench) -> Iterator[Row]:
    """One row for each kind of handler, and what a job costs."""
    jobs = bench.pick(100_000, 3_000)
    noop = bench.repeat(partial(fresh_drain, bench, "noop", jobs))
    yield Row("drain, async no-op", "jobs/s", rates(noop, jobs), bench.aim(">= 50,000", ">= 30,000", ">= 10,000"))
    used = [run["cpu"] * 1e6 / jobs for run in noop]
    yield Row("worker's CPU time for 1,000 no-ops", "ms", used, bench.aim("<= 30", "<= 40"))
    if bench.on_server:
        both = bench.repeat(partial(_fresh_drain_together, bench, jobs))
        yield Row("drain, async no-op, by 2 processes", "jobs/s", both, bench.aim("", ">= 40,000"))

    threads = bench.repeat(partial(fresh_drain, bench, "threads", jobs))
    what = f"drain, sync no-op in {project.THREADS} threads"
    yield Row(what, "jobs/s", rates(threads, jobs), bench.aim(">= 25,000", ">= 20,000"))

    short = bench.pick(20_000, 1_000)
    napping = bench.repeat(partial(fresh_drain, bench, "short", short))
    what = f"async jobs of 10 ms, {project.WORKER_NUMS} at once"
    yield Row(what, "jobs/s", rates(napping, short), bench.aim(">= 9,500", ">= 9,000", ">= 7,000"))
    yield from _commits(bench)


def _commits(bench: Bench) -> Iterator[Row]:
    jobs = bench.pick(50_000, 5_000)
    commits = bench.repeat(partial(_fresh_count, bench, jobs))
    per_job = [count / jobs for count in commits]
    assert max(per_job) <= MOST_COMMITS, f"{max(per_job)} commits a job"
    yield Row("commits a job while draining no-ops", "", per_job, f"<= {MOST_COMMITS}")


def _fresh_drain_together(bench: Bench, jobs: int, processes: int = 2) -> float:
    """Jobs a second of several processes that drain one store."""
    root = bench.project()
    measure(add, root, task="noop", jobs=jobs)
    counts = root / "counts"
    counts.write_bytes(bytes(8 * processes))
    calls = [{"jobs": jobs, "counts": str(counts), "index": index} for index in range(processes)]
    spans = measure_together(drain_together, root, calls)
    project.check_succeeded(root, "noop", jobs)
    return jobs / (max(end for _, end in spans) - min(start for start, _ in spans))


def fresh_drain(bench: Bench, task: str, jobs: int) -> Drained:
    """Add jobs to an empty store and drain them, each in a process of its own."""
    root = bench.project()
    measure(add, root, task=task, jobs=jobs)
    drained = measure(drain, root, jobs=jobs)
    project.check_succeeded(root, task, jobs)
    return drained


def _fresh_count(bench: Bench, jobs: int) -> int:
    root = bench.project()
    measure(add, root, task="noop", jobs=jobs)
    commits = measure(drain_and_count, root, jobs=jobs)
    project.check_succeeded(root, "noop", jobs)
    return commits


def rates(runs: list[Drained], jobs: int) -> list[float]:
    return [jobs / run["seconds"] for run in runs]


def long_queue(bench: Bench) -> Iterator[Row]:
    """The same jobs from a short queue and from one that is a hundred times longer, in turn."""
    jobs, times = bench.pick(20_000, 500), bench.pick(100, 20)
    crowded = bench.project()
    measure(add, crowded, task="noop", jobs=jobs * times)
    what = f"drain from a queue of {jobs * times:,}, of the speed with {jobs:,}"
    yield Row(what, "%", bench.repeat(partial(compare, bench, crowded, jobs)), bench.aim(">= 80", ">= 80", ">= 70"))


def compare(bench: Bench, crowded: Path, jobs: int) -> float:
    """How fast so many jobs are drained from a store that holds more, in percent of a fresh one's speed."""
    alone = fresh_drain(bench, "noop", jobs)["seconds"]
    among_others = measure(drain, crowded, jobs=jobs)["seconds"]
    return 100 * alone / among_others
