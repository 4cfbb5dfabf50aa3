"""Beside others: the same work by huey, on SQLite too, in turn with ours."""

from __future__ import annotations

import json
import subprocess
import tempfile
import venv
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import draining
from harness import PATIENCE, Bench, Row

HUEY = Path(__file__).with_name("huey_drain.py")
WORKERS = (1, 2, 4, 8)


def rows(bench: Bench) -> Iterator[Row]:
    """With as many threads as make huey fastest here; nothing where the store is on a server."""
    if bench.on_server:
        return
    python = _install(bench.folder / "huey", "huey")
    few, jobs, ours = bench.pick(2_000, 100), bench.pick(10_000, 200), bench.pick(100_000, 2_000)
    best = max(WORKERS, key=partial(_huey, bench, python, few))
    pairs = bench.repeat(lambda: (_ours(bench, ours), _huey(bench, python, jobs, best)))
    what = f"drain no-ops by huey, {best} threads, WAL, fsync"
    yield Row(what, "jobs/s", [theirs for _, theirs in pairs])
    yield Row("drain by yaotask, in turn with it", "jobs/s", [rate for rate, _ in pairs])
    yield Row("the ratio", "×", [rate / theirs for rate, theirs in pairs], ">= 25")


def _install(folder: Path, requirement: str) -> Path:
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", requirement], check=True)
    return python


def _ours(bench: Bench, jobs: int) -> float:
    return jobs / draining.fresh_drain(bench, "noop", jobs)["seconds"]


def _huey(bench: Bench, python: Path, jobs: int, workers: int) -> float:
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        command = [str(python), str(HUEY), str(Path(folder) / "huey.db"), str(jobs), str(workers)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=PATIENCE, check=True)
    seconds: float = json.loads(done.stdout)
    return jobs / seconds
