"""What running jobs say of themselves: stored, and told to the progress hook in order."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import anyio.to_thread
import pytest
from runtime_support import PATIENCE, StageApp, ended, query

from yaotask import current_job, process
from yaotask.errors import NoCurrentJob

pytest_plugins = ["runtime_fixtures"]

FIVE = [(n, 5, f"sent {n}") for n in range(1, 6)]


def report(task_id: int) -> str:
    for progress in FIVE:
        current_job().progress(*progress)
    return "done"


async def areport(task_id: int) -> str:
    return report(task_id)


async def areport_with_waits(task_id: int) -> str:
    for progress in FIVE:
        current_job().progress(*progress)
        await anyio.lowlevel.checkpoint()
    return "done"


# --- the progress hook ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", ["sync", "async"])
@pytest.mark.parametrize(
    ("handler", "executor"),
    [(report, "thread"), (areport, "async"), (areport_with_waits, "async"), (areport, "thread")],
    ids=["sync", "async", "async that waits", "async in a thread"],
)
async def test_progress_is_told_in_order_before_the_end(
    stage: StageApp, handler: Any, executor: str, hook: str
) -> None:
    told: list[Any] = []

    def on_progress(*args: Any) -> None:
        told.append(args)

    async def aon_progress(*args: Any) -> None:
        await anyio.lowlevel.checkpoint()
        told.append(args)

    def on_success(id: int, response: str) -> None:
        told.append(response)
        over.set()

    over = threading.Event()
    hooks = {"progress": on_progress if hook == "sync" else aon_progress, "success": on_success}
    app = stage(handler, hooks=hooks, executor=executor)
    async with app.running():
        id = await app.acall("tasks.mail.add")
        assert await anyio.to_thread.run_sync(over.wait, PATIENCE)

    assert told == [*((id, *progress) for progress in FIVE), "done"]


async def test_a_sync_handler_waits_for_its_hook(stage: StageApp) -> None:
    order: list[str] = []

    def handler(task_id: int) -> None:
        current_job().progress(50)
        order.append("handler goes on")

    app = stage(handler, hooks={"progress": lambda *args: order.append("hook")})
    async with app.running():
        await ended(app, await app.acall("tasks.mail.add"))

    assert order == ["hook", "handler goes on"]


def _sys_exit(*args: Any) -> None:
    raise SystemExit(3)


def _fail(*args: Any) -> None:
    raise Unsayable


class Unsayable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("hook", [_sys_exit, _fail, "runtime_support.nobody"])
@pytest.mark.parametrize("handler", [report, areport])
async def test_a_progress_hook_that_fails_leaves_its_job_alone(
    stage: StageApp, handler: Any, hook: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = stage(handler, hooks={"progress": hook})
    async with app.running():
        job = await ended(app, await app.acall("tasks.mail.add"))

    assert (job["status"], job["current"], job["message"]) == ("SUCCESS", 5, "sent 5")
    assert "the progress hook of mail.1 failed" in caplog.text


async def test_a_progress_hook_that_hangs_holds_up_the_end_for_its_timeout_alone(stage: StageApp) -> None:
    calls: list[int] = []

    async def on_progress(id: int, current: int, *rest: Any) -> None:
        calls.append(current)
        await anyio.sleep_forever()

    # Shorter than the wait for the hook: a job whose handler has ended in time has not timed out.
    app = stage(areport, hooks={"progress": on_progress}, settings="hook_timeout: 50ms\n", timeout="40ms")
    async with app.running():
        job = await ended(app, await app.acall("tasks.mail.add"))
        await anyio.wait_all_tasks_blocked()

    assert (job["status"], job["response"]) == ("SUCCESS", "done")
    assert calls in ([1], [1, 2])


@pytest.mark.parametrize("handler", [report, areport], ids=["sync", "async"])
async def test_a_hanging_progress_hook_does_not_keep_a_handler_in_its_thread(
    stage: StageApp, handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    gate, left = threading.Event(), threading.Semaphore(0)
    entered: list[object] = []

    def on_progress(*args: Any) -> None:
        entered.append(args)
        assert gate.wait(PATIENCE)
        left.release()

    app = stage(handler, hooks={"progress": on_progress}, settings="hook_timeout: 10ms\n", executor="thread")
    async with app.running():
        job = await ended(app, await app.acall("tasks.mail.add"))
        gate.set()
        # On a busy machine the time of a call can be over before its thread has begun.
        for _ in list(entered):
            assert await anyio.to_thread.run_sync(left.acquire, True, PATIENCE)

    assert (job["status"], job["current"]) == ("SUCCESS", 5)
    assert "the progress hook of mail.1 failed: TimeoutError" in caplog.text


async def test_the_end_of_a_worker_does_not_wait_for_a_hanging_hook(stage: StageApp) -> None:
    entered = anyio.Event()

    async def on_progress(*args: Any) -> None:
        entered.set()
        await anyio.sleep_forever()

    app = stage(areport, hooks={"progress": on_progress})
    with anyio.fail_after(PATIENCE):
        async with app.running(grace=0):
            id = await app.acall("tasks.mail.add")
            await entered.wait()
            await anyio.wait_all_tasks_blocked()

    assert (await app.aget(f"mail.{id}"))["status"] == "SUCCESS"


async def test_a_progress_hook_has_no_current_job(stage: StageApp) -> None:
    seen: list[str] = []

    def on_progress(*args: Any) -> None:
        with pytest.raises(NoCurrentJob):
            current_job()
        seen.append("no job")

    app = stage(report, hooks={"progress": on_progress})
    async with app.running():
        await ended(app, await app.acall("tasks.mail.add"))

    assert seen == ["no job"] * 5


async def test_a_progress_hook_sees_the_job_by_its_id(stage: StageApp) -> None:
    seen: list[str] = []
    app = stage(report, hooks={"progress": lambda id, *rest: seen.append(process("tasks.mail.get", id)["task_id"])})
    async with app.running():
        await ended(app, await app.acall("tasks.mail.add"))

    assert seen == ["mail.1"] * 5


# --- what is stored -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", ["thread", "async"])
async def test_the_last_progress_of_a_job_is_kept_with_its_end(stage: StageApp, executor: str) -> None:
    app = stage(report if executor == "thread" else areport)
    async with app.running():
        job = await ended(app, await app.acall("tasks.mail.add"))

    assert (job["status"], job["current"], job["total"], job["message"]) == ("SUCCESS", 5, 5, "sent 5")


async def test_a_process_call_reports_for_the_own_job_too(stage: StageApp) -> None:
    def handler(task_id: int) -> None:
        process("tasks.mail.progress", task_id, 3, 10, "sent 3")

    app = stage(handler)
    async with app.running():
        job = await ended(app, await app.acall("tasks.mail.add"))

    assert (job["current"], job["total"], job["message"]) == (3, 10, "sent 3")


async def test_counts_extra_and_a_result_of_its_own_are_kept(stage: StageApp) -> None:
    def handler(task_id: int) -> None:
        job = current_job()
        job.count(success=2, failure=1)
        job.extra["file"] = "report.csv"
        job.set_result({"rows": 3})

    app = stage(handler)
    async with app.running():
        job = await ended(app, await app.acall("tasks.mail.add"))

    assert (job["status"], job["success_count"], job["fail_count"]) == ("PARTIAL", 2, 1)
    assert (job["response"], job["extra_data"]) == ({"rows": 3}, {"file": "report.csv"})


async def test_extra_is_kept_through_failure_and_into_the_next_try(stage: StageApp) -> None:
    def handler(task_id: int) -> None:
        pages = current_job().extra.setdefault("pages", [])
        pages.append(len(pages))
        raise ValueError("bad")

    app = stage(handler, attempts=2, attempt_after=0)
    async with app.running():
        job = await ended(app, await app.acall("tasks.mail.add"))

    assert (job["status"], job["extra_data"]) == ("FAILURE", {"pages": [0, 1, 2]})


@pytest.mark.parametrize("executor", ["thread", "async"])
async def test_extra_that_cannot_be_stored_costs_the_job_nothing(
    stage: StageApp, executor: str, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(task_id: int) -> None:
        current_job().extra["set"] = {1, 2}

    async def ahandler(task_id: int) -> None:
        handler(task_id)

    app = stage(handler if executor == "thread" else ahandler)
    async with app.running():
        job = await ended(app, await app.acall("tasks.mail.add"))

    assert job["status"] == "SUCCESS"
    assert "`job.extra` cannot be stored" in caplog.text


async def test_messages_that_no_database_takes_are_mended_and_long_ones_cut(stage: StageApp) -> None:
    def handler(task_id: int) -> None:
        current_job().progress(1, 2, "a\0b\ud800" + "x" * 10_000)

    app = stage(handler)
    async with app.running():
        await ended(app, await app.acall("tasks.mail.add"))
    ((message,),) = query(app, "SELECT message FROM yaotask_jobs")

    assert message.startswith("a␀b\ufffdxxx")
    assert len(message.encode()) <= app.settings.limits.message_bytes
