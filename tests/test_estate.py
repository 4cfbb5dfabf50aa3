"""What dead processes of a node leave behind: each job gets what is its due, as soon as the store can be had."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from reach_support import Reach
from runtime_support import PATIENCE
from store_support import FAILED, Bench, ManualClock

from yaotask.jobs import Claim, JobState
from yaotask.runtime.estate import PAUSE, Estate, Legacy
from yaotask.store import presence
from yaotask.store.presence import Lock

pytest_plugins = ["store_fixtures"]

DEATH = "its worker 1 died while it had the job: SIGKILL"


class Patient(ManualClock):
    """Others get their turn while somebody sleeps."""

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)
        await anyio.lowlevel.checkpoint()


class Heirs:
    """A supervisor's estate, and the workers that it will have to settle."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.reach = Reach(bench)
        self.clock = Patient()
        self.estate = Estate(self.reach.access, self.clock)
        self._bench = bench
        self._lock = Lock.take(folder, "ours")

    def worker(self, jobs: int) -> tuple[int, list[Claim]]:
        """A worker that has claimed so many new jobs."""
        worker = int(self._bench.errand(lambda cycle: presence.register(cycle, f"{jobs}", self._lock)))
        self._bench.add(jobs)
        return worker, self._bench.claim(worker=worker)

    @asynccontextmanager
    async def settling(self) -> AsyncIterator[None]:
        """Within the block the estate is at work; at its end all is settled."""
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                group.start_soon(self.estate.run)
                yield
                while not self.estate.is_settled:
                    await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()

    def close(self) -> None:
        self._lock.release()


@pytest.fixture
def heirs(bench: Bench, tmp_path: Path) -> Iterator[Heirs]:
    heirs = Heirs(bench, tmp_path / "workers")
    yield heirs
    heirs.close()


def rows(bench: Bench) -> list[tuple[JobState, int, int]]:
    """State, attempts used and losses of each job."""
    found = bench.query("SELECT state, attempt, losses FROM yaotask_jobs ORDER BY id")
    return [(JobState(row["state"]), row["attempt"], row["losses"]) for row in found]


def workers(bench: Bench) -> int:
    return int(bench.value("SELECT count(*) FROM yaotask_workers"))


async def test_jobs_of_a_process_that_died_are_lost(
    heirs: Heirs, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    worker, _ = heirs.worker(2)
    with caplog.at_level(logging.WARNING):
        async with heirs.settling():
            heirs.estate.take(Legacy(worker, DEATH))

    assert rows(bench) == [(JobState.RETRYING, 0, 1)] * 2
    assert bench.row()["error"] == DEATH
    assert workers(bench) == 0
    assert "mail.2 runs again" in caplog.text


async def test_jobs_of_a_process_that_was_ended_are_handed_back(heirs: Heirs, bench: Bench) -> None:
    worker, _ = heirs.worker(2)
    async with heirs.settling():
        heirs.estate.take(Legacy(worker))

    assert rows(bench) == [(JobState.WAITING, 0, 0)] * 2
    assert workers(bench) == 0


async def test_culprits_fail_suspects_are_lost_and_the_rest_is_handed_back(heirs: Heirs, bench: Bench) -> None:
    worker, (culprit, suspect, _) = heirs.worker(3)
    async with heirs.settling():
        heirs.estate.take(Legacy(worker, overdue=[bench.end(culprit, FAILED)], suspects=frozenset({suspect.key})))

    assert rows(bench) == [(JobState.FAILURE, 1, 0), (JobState.RETRYING, 0, 1), (JobState.WAITING, 0, 0)]
    assert workers(bench) == 0


async def test_a_job_that_cannot_be_handed_back_keeps_back_no_other(heirs: Heirs, bench: Bench) -> None:
    first, second = heirs.worker(3)[0], heirs.worker(1)[0]
    bench.refuse("bad", "UPDATE", "OLD.id = 2", "bad row")
    async with heirs.settling():
        heirs.estate.take(Legacy(first))
        heirs.estate.take(Legacy(second))
    bench.release("bad")

    lost, waits = (JobState.RETRYING, 0, 1), (JobState.WAITING, 0, 0)
    assert rows(bench) == [lost, (JobState.RUNNING, 1, 0), lost, waits]


async def test_what_comes_while_one_legacy_is_settled_is_settled_after_it(heirs: Heirs, bench: Bench) -> None:
    first, second = heirs.worker(1)[0], heirs.worker(2)[0]
    async with heirs.settling():
        heirs.estate.take(Legacy(first, DEATH))
        heirs.estate.take(Legacy(second))

    assert rows(bench) == [(JobState.RETRYING, 0, 1), (JobState.WAITING, 0, 0), (JobState.WAITING, 0, 0)]


async def test_while_the_store_is_out_of_reach_nothing_is_settled_and_that_is_told_once(
    heirs: Heirs, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    worker, (culprit, *_) = heirs.worker(2)
    heirs.reach.broken = True
    with caplog.at_level(logging.ERROR):
        async with heirs.settling():
            heirs.estate.take(Legacy(worker, overdue=[bench.end(culprit, FAILED)]))
            while heirs.reach.asked < 3:
                await anyio.lowlevel.checkpoint()
            open_, failed = not heirs.estate.is_settled, heirs.estate.failed
            heirs.reach.broken = False

    assert open_
    assert "locked" in str(failed)
    assert heirs.clock.elapsed >= 2 * PAUSE
    assert len(caplog.messages) == 1
    assert heirs.estate.failed is None
    assert rows(bench) == [(JobState.FAILURE, 1, 0), (JobState.WAITING, 0, 0)]
    assert bench.value("SELECT count(*) FROM yaotask_attempts") == 1
