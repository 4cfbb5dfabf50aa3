"""Waiting: from an add to the handler's first line when there is nothing else to do, and what progress costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import anyio

import bare
import project
from harness import Bench, Row, measure, worker
from yaotask import App
from yaotask.chance import SystemChance


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


# --- in the child -------------------------------------------------------------------------------------------


def start_here(root: str, jobs: int, gap: float) -> list[int]:
    """Nanoseconds from each add to the first line of its handler, both in this process."""
    with App(root) as app:
        return anyio.run(_start_here, app, jobs, gap)


async def _start_here(app: App, jobs: int, gap: float) -> list[int]:
    async with app.running():
        return await _add_with_gaps(app, jobs, gap)


def start_elsewhere(root: str, jobs: int, gap: float) -> list[int]:
    """The same for jobs that another process runs."""
    with App(root) as app:
        # The first job may have to wait for the worker to start.
        for _ in app.follow(_name(app.tasks["started"].add(time.monotonic_ns())), timeout=30):
            pass
        return anyio.run(_add_with_gaps, app, jobs, gap)


async def _add_with_gaps(app: App, jobs: int, gap: float) -> list[int]:
    chance, names = SystemChance(), []
    for _ in range(jobs):
        # Never in step with whoever looks for jobs at intervals.
        await anyio.sleep(gap * chance.uniform(0.5, 1.5))
        names.append(_name(await app.tasks["started"].aadd(time.monotonic_ns())))
    return [await _response(app, name) for name in names]


def _name(id: int) -> str:
    return f"started.{id}"


async def _response(app: App, name: str) -> int:
    response: int | None = None
    async for view in app.afollow(name):
        response = view["response"]
    assert response is not None, f"{name} did not succeed"
    return response


def one_job(root: str, task: str, arguments: list[object]) -> list[int]:
    """Run one job; its response."""
    with App(root) as app:
        return anyio.run(_one_job, app, task, arguments)


async def _one_job(app: App, task: str, arguments: list[object]) -> list[int]:
    response: list[int] = []
    async with app.running():
        name = f"{task}.{await app.tasks[task].aadd(*arguments)}"
        async for view in app.afollow(name):
            response = view["response"]
    assert response, f"{name} did not succeed"
    return response


# --- in the parent ------------------------------------------------------------------------------------------


def rows(bench: Bench) -> Iterator[Row]:
    """The same process; another one that was busy lately; another one that had long been idle; another machine's."""
    jobs, few = bench.pick(400, 20), bench.pick(10, 2)
    here = bench.repeat(lambda: measure(start_here, bench.project(), jobs=jobs, gap=0.03))
    aims = bench.aim("<= 1", "<= 1.5"), bench.aim("<= 5", "<= 8", "<= 10")
    yield from _percentiles("add to the handler's first line, idle", here, *aims)
    elsewhere = bench.repeat(lambda: _elsewhere(bench, jobs, 0.03))
    aims = bench.aim("<= 2", "<= 2.5"), bench.aim("<= 10")
    yield from _percentiles("the same, run by another process", elsewhere, *aims)
    asleep = bench.repeat(lambda: _elsewhere(bench, few, bench.pick(3.0, 0.5)))
    yield Row("the same, after seconds of nothing, p50", "ms", [percentile(run, 50) / 1e6 for run in asleep], "<= 2")
    yield Row(f"the same, worst of {few}", "ms", [max(run) / 1e6 for run in asleep])
    if bench.on_server:
        yield from _far_away(bench, jobs)


def _far_away(bench: Bench, jobs: int) -> Iterator[Row]:
    """Another node, which shares nothing but the database: told by it where it can, and by polling alone."""
    if bench.kind == "postgresql":
        told = bench.repeat(lambda: _on_another_node(bench, jobs, 0.03))
        yield from _percentiles("the same, run by another node, by NOTIFY", told, "<= 2.5", "<= 10")
        least = bench.repeat(lambda: measure(bare.hand_over, bench.project(), jobs=jobs, gap=0.03))
        what = "two bare connections and NOTIFY: a row in, told, taken"
        yield Row(f"{what}, p50", "ms", [percentile(run, 50) / 1e6 for run in least])
    few = bench.pick(60, 4)
    polled = bench.repeat(lambda: _on_another_node(bench, few, 0.5, hints="off"))
    yield from _percentiles("the same, by polling each second", polled, "", "<= 1,100")


def _elsewhere(bench: Bench, jobs: int, gap: float) -> list[int]:
    root = bench.project()
    with worker(root):
        return measure(start_elsewhere, root, jobs=jobs, gap=gap)


def _on_another_node(bench: Bench, jobs: int, gap: float, **settings: object) -> list[int]:
    root = bench.project()
    with worker(bench.node(root, **settings)):
        return measure(start_elsewhere, root, jobs=jobs, gap=gap)


def _percentiles(what: str, runs: list[list[int]], p50: str, p99: str) -> Iterator[Row]:
    yield Row(f"{what}, p50", "ms", [percentile(run, 50) / 1e6 for run in runs], p50)
    yield Row(f"{what}, p99", "ms", [percentile(run, 99) / 1e6 for run in runs], p99)


def progress(bench: Bench) -> Iterator[Row]:
    """What a report of progress costs its handler, and when others can see it."""
    count = bench.pick(500, 50)
    called = bench.repeat(lambda: measure(one_job, bench.project(), task="report", arguments=[count]))
    yield Row("progress, as its handler sees it", "µs", [statistics.median(run) / 1e3 for run in called], "<= 20")
    stored = bench.repeat(lambda: _stored(bench, count))
    yield Row("progress, until it is stored, p99", "ms", [percentile(run, 99) / 1e6 for run in stored], "<= 5")


def _stored(bench: Bench, count: int) -> list[int]:
    root: Path = bench.project()
    return measure(one_job, root, task="stored", arguments=[count, project.address(root)])
