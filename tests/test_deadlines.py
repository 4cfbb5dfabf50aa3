"""Time on running attempts: who is shown as running, whose time is up."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import anyio
import anyio.to_thread
import pytest
from runtime_support import PATIENCE, StageApp, a_job, ended, query, reaches
from store_support import ManualClock

from yaotask import current_job
from yaotask.runtime.attempt import Attempt
from yaotask.runtime.deadlines import SHOW_AFTER, Deadlines
from yaotask.runtime.pool import Pool
from yaotask.store.ledger import Ledger
from yaotask.store.protocol import Started

pytest_plugins = ["runtime_fixtures"]


class Watched:
    """A pool with attempts of the test's choice, and notes of what becomes of them."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.running: list[Attempt] = []
        self.timed_out: list[Attempt] = []
        self.expired: list[Attempt] = []
        self.shown: list[Started] = []
        self.desk = SimpleNamespace(expire=self.expired.append)
        self.deadlines = Deadlines(cast(Ledger, SimpleNamespace(started=self.shown.append)), self.clock)
        self.deadlines.watch(cast(Pool, self))

    def attempts(self) -> Iterator[Attempt]:
        return iter(self.running)

    def time_out(self, attempt: Attempt) -> None:
        self.running.remove(attempt)
        self.timed_out.append(attempt)

    def start(self, **claim: Any) -> Attempt:
        attempt = Attempt(a_job(**claim), self.clock.monotonic(), lambda: None)
        self.running.append(attempt)
        return attempt


def test_with_nothing_to_do_there_is_nothing_to_wait_for() -> None:
    assert Watched().deadlines.look() == math.inf


def test_an_attempt_is_shown_once_and_not_before_it_has_lasted() -> None:
    watched = Watched()
    watched.start()
    first = watched.deadlines.look()
    early = list(watched.shown)
    watched.clock.advance(SHOW_AFTER)
    second = watched.deadlines.look()
    watched.deadlines.look()

    assert (first, second) == (SHOW_AFTER, 30.0)
    assert early == []
    assert watched.shown == [Started(1, 1, 0)]


def test_a_short_attempt_costs_no_write() -> None:
    watched = Watched()
    watched.start()
    watched.running.clear()
    watched.clock.advance(1)
    watched.deadlines.look()

    assert watched.shown == []


def test_time_counts_from_the_start_of_the_attempt_and_the_job_s_own_timeout_wins() -> None:
    watched = Watched()
    long, short = watched.start(), watched.start(timeout=500)
    watched.clock.advance(0.499)
    watched.deadlines.look()
    early = list(watched.timed_out)
    watched.clock.advance(0.001)
    watched.deadlines.look()
    half = list(watched.timed_out)
    watched.clock.advance(29.5)
    watched.deadlines.look()

    assert (early, half, watched.timed_out) == ([], [short], [short, long])


def test_an_attempt_whose_handler_has_returned_cannot_time_out() -> None:
    watched = Watched()
    watched.start().returned(cast(Any, None))
    watched.clock.advance(60)
    watched.deadlines.look()

    assert watched.timed_out == []


def test_a_transaction_that_lasts_too_long_is_cut_off_and_its_handler_goes_on() -> None:
    watched = Watched()
    attempt = watched.start()
    opened = SimpleNamespace(cap=5.0, transaction=SimpleNamespace(expired=False))
    attempt.job.open_transaction = opened
    watched.deadlines.look()
    early = list(watched.expired)
    watched.clock.advance(5)
    watched.deadlines.look()
    opened.transaction.expired = True
    upcoming = watched.deadlines.look()

    assert (early, watched.expired, watched.timed_out) == ([], [attempt], [])
    assert upcoming == 30.0


# --- in a running project --------------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", ["thread", "async"])
async def test_a_long_handler_is_soon_shown_as_running_and_its_start_is_kept(stage: StageApp, executor: str) -> None:
    gate = threading.Event()

    def handler(task_id: int) -> None:
        assert gate.wait(PATIENCE)

    async def ahandler(task_id: int) -> None:
        await anyio.to_thread.run_sync(handler, task_id)

    app = stage(handler if executor == "thread" else ahandler)
    async with app.running():
        id = await app.acall("tasks.mail.add")
        running = await reaches(app, id, "RUNNING")
        gate.set()
        job = await ended(app, id)

    assert running["started_at"] is not None
    assert job["started_at"] == running["started_at"]


@pytest.mark.parametrize("executor", ["thread", "async"])
async def test_a_handler_whose_time_is_up_is_told_to_stop(stage: StageApp, executor: str) -> None:
    told: list[str] = []
    done = threading.Event()

    def handler(task_id: int) -> None:
        while not current_job().cancelled:
            done.wait(0.001)
        told.append("flag")
        done.set()

    async def ahandler(task_id: int) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            told.append("flag" if current_job().cancelled else "nothing")
            done.set()

    app = stage(handler if executor == "thread" else ahandler, timeout="30ms")
    async with app.running():
        job = await ended(app, await app.acall("tasks.mail.add"))
        assert await anyio.to_thread.run_sync(done.wait, PATIENCE)

    assert (job["status"], job["error_type"], told) == ("FAILURE", "TimeoutError", ["flag"])
    assert "30ms" in job["error"]


async def test_a_timeout_is_a_failed_try_and_retried(stage: StageApp) -> None:
    tries: list[int] = []

    async def handler(task_id: int) -> str:
        tries.append(current_job().attempt)
        if len(tries) < 3:
            await anyio.sleep_forever()
        return "done"

    app = stage(handler, timeout="20ms", attempts=2, attempt_after=0)
    async with app.running():
        job = await ended(app, await app.acall("tasks.mail.add"))

    assert (job["status"], tries) == ("SUCCESS", [1, 2, 3])
    assert query(app, "SELECT outcome, error_type FROM yaotask_attempts ORDER BY attempt") == [
        ("retry", "TimeoutError"),
        ("retry", "TimeoutError"),
        ("success", None),
    ]


async def test_a_timeout_of_one_job_is_its_own(stage: StageApp) -> None:
    async def handler(task_id: int) -> str:
        if task_id == 1:
            await anyio.sleep_forever()
        return "done"

    app = stage(handler, worker_nums=2)
    async with app.running():
        first = await app.tasks["mail"].options(timeout="20ms").aadd()
        job = await ended(app, first)

    assert job["error_type"] == "TimeoutError"


async def test_a_handler_that_blocks_its_loop_past_its_timeout_has_failed_all_the_same(
    stage: StageApp, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(task_id: int) -> str:
        late = current_job().deadline + timedelta(milliseconds=5)
        while datetime.now(UTC) < late:
            pass
        return "late"

    app = stage(handler, timeout="30ms")
    async with app.running():
        job = await ended(app, await app.acall("tasks.mail.add"))

    assert (job["status"], job["error_type"], job["response"]) == ("FAILURE", "TimeoutError", None)
    assert "mail.1 ended after its timeout unseen" in caplog.text
