"""Cancelling a job while its handler runs: what the handler is told, and how the job ends."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from cancel_support import add, cancel, running, seen, wait_for_the_flag
from runtime_support import PATIENCE, SETTINGS, StageApp, change, ended, query, reaches
from sqlalchemy import text

from yaotask import App, Retry, aprocess, current_job, process

pytest_plugins = ["runtime_fixtures"]

THREAD_AND_LOOP = pytest.mark.parametrize("executor", ["thread", "async"])
IMPATIENT = f"{SETTINGS}cancel_grace: 50ms\n"
# Far more than it takes, and far less than the poll, so that a cancel that waits for that is seen.
SOON = 2.0


# --- on the loop ------------------------------------------------------------------------------------------


async def test_an_async_handler_is_cancelled_cleans_up_and_its_place_is_free(stage: StageApp) -> None:
    cleaned: list[bool] = []

    async def handler(task_id: int) -> str:
        if task_id == 1:
            try:
                await anyio.sleep_forever()
            finally:
                cleaned.append(current_job().cancelled)
        return "done"

    app = stage(handler, attempts=3)
    async with app.running():
        answer, job = await cancel(app)
        after = await ended(app, await add(app))
    (tried,) = await app.aattempts("mail.1")

    assert (answer, job["status"], job["attempt"], job["error"]) == ("RUNNING", "CANCELLED", 1, None)
    assert (cleaned, tried["outcome"]) == ([True], "cancelled")
    assert after["status"] == "SUCCESS"


async def test_what_an_async_handler_makes_of_its_cancellation_counts_if_it_returns(stage: StageApp) -> None:
    async def handler(task_id: int) -> str:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            pass
        return "half done"

    app = stage(handler)
    async with app.running():
        _, job = await cancel(app)

    assert (job["status"], job["response"]) == ("SUCCESS", "half done")


@THREAD_AND_LOOP
@pytest.mark.parametrize(
    "error", [ValueError("no"), Retry(after=0), SystemExit(3)], ids=lambda error: type(error).__name__
)
async def test_a_handler_that_raises_after_its_cancellation_is_not_tried_again(
    stage: StageApp, executor: str, error: BaseException
) -> None:
    def handler(task_id: int) -> None:
        wait_for_the_flag(current_job())
        raise error

    async def ahandler(task_id: int) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise error

    app = stage(handler if executor == "thread" else ahandler, attempts=3)
    async with app.running():
        _, job = await cancel(app)

    assert (job["status"], job["attempt"], job["error"]) == ("CANCELLED", 1, None)


async def test_one_that_swallows_its_cancellation_is_given_up_after_the_grace_and_keeps_its_place(
    stage: StageApp,
) -> None:
    gate = anyio.Event()

    async def handler(task_id: int) -> str:
        with anyio.CancelScope(shield=True):
            await gate.wait()
        return "late"

    app = stage(handler, settings=IMPATIENT)
    async with app.running():
        _, job = await cancel(app)
        second = await add(app)
        waits = (await app.aget(f"mail.{second}"))["status"]
        gate.set()
        after = await ended(app, second)

    assert (job["status"], job["response"]) == ("CANCELLED", None)
    assert (waits, after["status"]) == ("WAITING", "SUCCESS")


async def test_a_handler_that_cancels_its_own_job_is_cancelled(stage: StageApp) -> None:
    async def handler(task_id: int) -> None:
        # Long before it would be shown as running.
        await aprocess("tasks.mail.cancel", task_id)
        await anyio.sleep_forever()

    app = stage(handler)
    async with app.running():
        job = await ended(app, await add(app))

    # The try counts: a job that had not begun would have been at none.
    assert (job["status"], job["attempt"]) == ("CANCELLED", 1)


# --- in a thread ------------------------------------------------------------------------------------------


async def test_a_handler_in_a_thread_sees_the_flag_and_what_it_returns_counts(stage: StageApp) -> None:
    def handler(task_id: int) -> str:
        wait_for_the_flag(current_job())
        return "half done"

    app = stage(handler)
    async with app.running():
        answer, job = await cancel(app)

    assert (answer, job["status"], job["response"]) == ("RUNNING", "SUCCESS", "half done")


async def test_an_async_handler_in_a_thread_is_cancelled_and_cleans_up(stage: StageApp) -> None:
    cleaned: list[bool] = []

    async def handler(task_id: int) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cleaned.append(current_job().cancelled)

    app = stage(handler, executor="thread")
    async with app.running():
        _, job = await cancel(app)

    assert (job["status"], job["error"], cleaned) == ("CANCELLED", None, [True])


async def test_an_async_handler_in_a_thread_is_cancelled_once(stage: StageApp) -> None:
    """One that goes on all the same would take the processor, were it cancelled at each turn."""

    async def handler(task_id: int) -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        for _ in range(20):
            await asyncio.sleep(0.001)
        return "done"

    app = stage(handler, executor="thread")
    async with app.running():
        _, job = await cancel(app)

    assert (job["status"], job["response"]) == ("SUCCESS", "done")


async def test_an_async_handler_in_a_thread_is_cancelled_at_its_timeout(stage: StageApp) -> None:
    cleaned = threading.Event()

    async def handler(task_id: int) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cleaned.set()

    app = stage(handler, executor="thread", timeout=0.05)
    async with app.running():
        job = await ended(app, await add(app))
        assert await seen(cleaned)

    assert (job["status"], job["error_type"]) == ("FAILURE", "TimeoutError")


async def test_a_handler_in_a_thread_that_goes_on_is_cancelled_at_its_timeout(stage: StageApp) -> None:
    gate = threading.Event()

    def handler(task_id: int) -> str:
        assert gate.wait(PATIENCE)
        return "late"

    app = stage(handler, settings=IMPATIENT, timeout="300ms", attempts=3)
    async with app.running():
        _, job = await cancel(app)
        gate.set()

    assert (job["status"], job["response"], job["error"]) == ("CANCELLED", None, None)
    assert job["duration_ms"] >= 300


async def test_a_blocked_loop_does_not_hide_a_cancel_from_a_handler_in_a_thread(stage: StageApp) -> None:
    noticed, called = threading.Event(), threading.Event()

    def handler(task_id: int) -> None:
        current_job().on_cancel(called.set)
        wait_for_the_flag(current_job())
        noticed.set()

    app = stage(handler)
    async with app.running():
        id = await running(app)
        thread = threading.Thread(target=app.cancel, args=(f"mail.{id}",))
        thread.start()
        in_time = noticed.wait(PATIENCE) and called.wait(PATIENCE)
        thread.join()

    assert in_time


async def test_a_handler_that_cancels_itself_in_its_thread_runs_on(stage: StageApp) -> None:
    def handler(task_id: int) -> list[object]:
        answers = [process("tasks.mail.cancel", task_id) for _ in range(2)]
        wait_for_the_flag(current_job())
        return answers

    app = stage(handler)
    async with app.running():
        job = await ended(app, await add(app))

    assert (job["status"], job["response"]) == ("SUCCESS", ["RUNNING", "RUNNING"])


# --- the transaction of a job -----------------------------------------------------------------------------


@pytest.mark.parametrize("succeeds", [True, False])
async def test_a_transaction_commits_with_a_success_alone(stage: StageApp, succeeds: bool) -> None:
    waits, gate = threading.Event(), threading.Event()

    def handler(task_id: int) -> str:
        waits.set()
        assert gate.wait(PATIENCE)
        with current_job().transaction() as connection:
            connection.execute(text("INSERT INTO effects VALUES (1)"))
            if not succeeds:
                raise ValueError("no")
        return "done"

    app = stage(handler)
    await anyio.to_thread.run_sync(app.upgrade_store)
    change(app, "CREATE TABLE effects (n INTEGER)")
    async with app.running():
        id = await running(app)
        await app.acancel(f"mail.{id}")
        gate.set()
        job = await ended(app, id)

    assert job["status"] == ("SUCCESS" if succeeds else "CANCELLED")
    assert len(query(app, "SELECT * FROM effects")) == succeeds


# --- while hooks are told ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("raises", "status"), [(False, "SUCCESS"), (True, "CANCELLED")])
async def test_a_cancel_while_the_end_waits_for_the_progress_hook_lets_it_be_told(
    stage: StageApp, raises: bool, status: str
) -> None:
    told: list[int] = []
    entered, gate = anyio.Event(), anyio.Event()
    asked: list[bool] = []

    async def handler(task_id: int) -> str:
        job = current_job()
        job.on_cancel(lambda: asked.append(True))
        job.progress(1)
        job.progress(2)
        if raises:
            raise ValueError("no")
        return "done"

    async def on_progress(task_id: int, current: int, total: int | None, message: str | None) -> None:
        entered.set()
        await gate.wait()
        told.append(current)

    app = stage(handler, hooks={"progress": on_progress}, attempts=3)
    async with app.running():
        id = await add(app)
        await entered.wait()
        await reaches(app, id, "RUNNING")
        await app.acancel(f"mail.{id}")
        gate.set()
        job = await ended(app, id)

    assert (job["status"], told) == (status, [1, 2])
    # The handler had ended by then.
    assert asked == []


async def test_the_cancel_hook_is_told_and_no_other(stage: StageApp) -> None:
    told: list[tuple[str, int]] = []

    def hook(name: str) -> Callable[..., None]:
        return lambda task_id, *rest: told.append((name, task_id))

    async def handler(task_id: int) -> None:
        await anyio.sleep_forever()

    names = ("success", "error", "retry", "cancel", "ignore")
    app = stage(handler, hooks={name: hook(name) for name in names}, attempts=3)
    async with app.running(grace=PATIENCE):
        _, job = await cancel(app)

    assert told == [("cancel", job["id"])]


# --- how soon ---------------------------------------------------------------------------------------------


@THREAD_AND_LOOP
async def test_a_cancel_from_another_process_arrives_long_before_the_poll(stage: StageApp, executor: str) -> None:
    heard: list[float] = []

    def handler(task_id: int) -> None:
        wait_for_the_flag(current_job())
        heard.append(time.monotonic())

    async def ahandler(task_id: int) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            heard.append(time.monotonic())

    app = stage(handler if executor == "thread" else ahandler)
    async with app.running():
        id = await running(app)
        async with App(app.root) as other:
            asked = time.monotonic()
            await other.acancel(f"mail.{id}")
            await ended(app, id)

    assert heard[0] - asked < SOON
