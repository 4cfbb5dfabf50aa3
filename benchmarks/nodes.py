"""A node of several workers: what computes in Python gains by each of them."""

from __future__ import annotations

import runpy
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import project
from draining import add
from harness import Bench, Row, measure, measure_together, yaotask

PROCESSES = 2
# One job computes for some milliseconds.
TIMES = 100_000


class Gain(NamedTuple):
    """How many times as fast several processes are as one."""

    jobs: float
    # The same loops without yaotask: what the machine allows at this moment.
    bare: float


# --- in the child -------------------------------------------------------------------------------------------


def count(root: str, jobs: int) -> float:
    """Do what so many jobs do; the seconds that it takes."""
    handler = runpy.run_path(f"{root}/scripts/handlers.py")["Count"]
    started = time.perf_counter()
    for _ in range(jobs):
        handler("", TIMES)
    return time.perf_counter() - started


# --- in the parent ------------------------------------------------------------------------------------------


def rows(bench: Bench) -> Iterator[Row]:
    """`yaotask run` with one worker and with two, in turn, and beside them as many bare loops."""
    gains = [gain for _ in range(bench.pick(3, 1)) for gain in bench.repeat(partial(_gain, bench))]
    pairs = f"{PROCESSES} against one, {len(gains)} pairs"
    yield Row(f"workers that compute in threads, {pairs}", "×", [gain.jobs for gain in gains], ">= 1.7")
    yield Row(f"processes with bare loops, {pairs}", "×", [gain.bare for gain in gains])


def _gain(bench: Bench) -> Gain:
    jobs = bench.pick(1_500, 100)
    bare = _bare(bench, jobs, 1) / _bare(bench, jobs, PROCESSES)
    return Gain(_node(bench, jobs, 1) / _node(bench, jobs, PROCESSES), bare)


def _node(bench: Bench, jobs: int, processes: int) -> float:
    """Seconds from the first start of a job to the last end, with so many workers."""
    root = bench.project()
    measure(add, root, task="count", jobs=jobs, argument=TIMES)
    command = yaotask("-a", str(root), "run", "--drain", "--processes", str(processes))
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    project.check_succeeded(root, "count", jobs)
    return project.time_taken(root, "count")


def _bare(bench: Bench, jobs: int, processes: int) -> float:
    root = bench.project()
    return max(measure_together(count, root, [{"jobs": jobs // processes}] * processes))
