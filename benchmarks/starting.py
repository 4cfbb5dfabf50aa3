"""Starting and standing by: what the program costs when it does little."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from functools import partial

import project
from harness import Bench, Row, cpu_seconds, measure, members, worker, yaotask
from yaotask import App

TASKS = 50

# --- in the child -------------------------------------------------------------------------------------------


def add_started(root: str) -> int:
    """Add the job that will tell when it started; its id."""
    with App(root) as app:
        return app.tasks["started"].add(0)


def started_at(root: str, id: int) -> int:
    """When it did, in nanoseconds of the clock that all processes share."""
    with App(root) as app:
        response: int = app.get(f"started.{id}")["response"]
        return response


# --- in the parent ------------------------------------------------------------------------------------------


def rows(bench: Bench) -> Iterator[Row]:
    """Idle with many tasks; the command line; a worker's start."""
    yield Row(f"a node, idle, {TASKS} tasks, of one core", "%", bench.repeat(partial(_idle, bench)), "<= 1")
    if not bench.on_server:  # it has nothing to do with a store
        _help()  # the first time Python compiles what it imports
        yield Row("`yaotask --help`", "ms", bench.repeat(_help), "<= 100")
    aim = bench.aim("<= 1,000", "<= 1,200", "<= 1,200")
    yield Row("`yaotask run` to the first job", "ms", bench.repeat(partial(_first_job, bench)), aim)


def _idle(bench: Bench) -> float:
    root = bench.project()
    for number in range(TASKS - len(project.TASKS)):
        project.define(root, f"more{number}", {"process": "scripts.handlers.Noop"})
    with worker(root) as node:
        # After a while it looks for other processes' jobs as rarely as it ever will.
        time.sleep(bench.pick(5.0, 1.5))
        pids, seconds = members(node).values(), bench.pick(10.0, 1.0)
        before = sum(map(cpu_seconds, pids))
        time.sleep(seconds)
        return 100 * (sum(map(cpu_seconds, pids)) - before) / seconds


def _help() -> float:
    started = time.perf_counter()
    subprocess.run(yaotask("--help"), stdout=subprocess.DEVNULL, check=True)
    return 1_000 * (time.perf_counter() - started)


def _first_job(bench: Bench) -> float:
    root = bench.project()
    id = measure(add_started, root)
    launched = time.monotonic_ns()
    subprocess.run(yaotask("-a", str(root), "run", "--drain"), stderr=subprocess.DEVNULL, check=True)
    return (measure(started_at, root, id=id) - launched) / 1e6
