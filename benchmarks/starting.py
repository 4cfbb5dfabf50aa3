"""Starting and standing by: what the program costs when it does little."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from functools import partial

import anyio

import project
from harness import Bench, Row, measure, yaotask
from yaotask import App

TASKS = 50
# --- in the child -------------------------------------------------------------------------------------------


def stand_by(root: str, settling: float, seconds: float) -> float:
    """The processor's time that a worker with nothing to do takes, in percent of one core.

    First it may settle, after which it looks for other processes' jobs as rarely as it ever will.
    """
    with App(root) as app:
        return anyio.run(_stand_by, app, settling, seconds)


async def _stand_by(app: App, settling: float, seconds: float) -> float:
    async with app.running():
        await anyio.sleep(settling)
        started, cpu = time.perf_counter(), time.process_time()
        await anyio.sleep(seconds)
        return 100 * (time.process_time() - cpu) / (time.perf_counter() - started)


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
    yield Row(f"idle, {TASKS} tasks, of one core", "%", bench.repeat(partial(_idle, bench)), "<= 1")
    _help()  # the first time Python compiles what it imports
    yield Row("`yaotask --help`", "ms", bench.repeat(_help), "<= 100")
    yield Row("`yaotask run` to the first job", "ms", bench.repeat(partial(_first_job, bench)), "<= 1,000")


def _idle(bench: Bench) -> float:
    root = bench.project()
    for number in range(TASKS - len(project.TASKS)):
        project.define(root, f"more{number}", {"process": "scripts.handlers.Noop"})
    return measure(stand_by, root, settling=bench.pick(3.0, 0.5), seconds=bench.pick(10.0, 1.0))


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
