"""History: a worker that has run a million jobs, and the store that still holds them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import draining
import project
from harness import Bench, Row, measure, members, memory, worker
from yaotask import App
from yaotask.chance import SystemChance

# Seconds for all of a node to be there.
PATIENCE = 60.0

# --- in the child -------------------------------------------------------------------------------------------


def read(root: str, jobs: int, times: int) -> dict[str, float]:
    """Milliseconds, as medians: a job by id, and a page of twenty from anywhere by its key."""
    chance = SystemChance()
    with App(root) as app:
        return {
            "get": _median(lambda: app.get(f"noop.{int(chance.uniform(1, jobs))}"), times),
            "page": _median(lambda: app.list("noop", cursor=int(chance.uniform(100, jobs))), times),
        }


def _median(ask: Callable[[], object], times: int) -> float:
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - started)
    return 1_000 * statistics.median(taken)


# --- in the parent ------------------------------------------------------------------------------------------


def rows(bench: Bench) -> Iterator[Row]:
    """One store for all: made by one long run, then read, then worked with."""
    jobs, root = bench.pick(1_000_000, 20_000), bench.project()
    idle, after, whole = _long_run(root, jobs)
    yield Row("worker's memory, idle", "MB", [idle], "<= 60")
    yield Row("the same, with supervisor and services", "MB", [whole])
    yield Row(f"worker's memory, added by {jobs:,} jobs", "MB", [after - idle], "<= 10")

    reads = bench.repeat(lambda: measure(read, root, jobs=jobs, times=bench.pick(1_000, 100)))
    yield Row(f"get, one of {jobs:,} jobs", "ms", [run["get"] for run in reads], bench.aim("<= 0.5", "<= 1", "<= 2"))
    yield Row(f"page by key, of {jobs:,} jobs", "ms", [run["page"] for run in reads], bench.aim("<= 1", "<= 2", "<= 4"))

    few = bench.pick(20_000, 500)
    what = f"drain {few:,} beside {jobs:,} finished, of the speed without them"
    yield Row(what, "%", bench.repeat(partial(_compare, bench, root, few)), bench.aim(">= 80", ">= 80", ">= 70"))


def _long_run(root: Path, jobs: int) -> tuple[float, float, float]:
    """Have one worker run so many jobs; its memory after the first one and after the last, and its node's, in MB."""
    measure(draining.add, root, task="noop", jobs=1)
    with worker(root) as node:
        project.wait_until_done(root, 1)
        deadline = time.monotonic() + PATIENCE
        while len(processes := members(node)) < 3:  # the services come last
            assert time.monotonic() < deadline, f"of the node there is no more than {', '.join(processes)}"
            time.sleep(0.1)
        time.sleep(1.0)
        whole, idle = sum(map(memory, processes.values())), memory(processes["worker"])
        measure(draining.add, root, task="noop", jobs=jobs - 1)
        project.wait_until_done(root, jobs)
        after = memory(processes["worker"])
    project.check_succeeded(root, "noop", jobs)
    return idle, after, whole


def _compare(bench: Bench, root: Path, jobs: int) -> float:
    measure(draining.add, root, task="noop", jobs=jobs)
    return draining.compare(bench, root, jobs)
