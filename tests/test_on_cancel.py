"""`job.on_cancel`: what handlers want called once they should stop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from cancel_support import cancel, running, seen, wait_for_the_flag
from runtime_support import PATIENCE, SETTINGS, StageApp, a_job, change, ended

from yaotask import App, current_job, process

pytest_plugins = ["runtime_fixtures"]

THREAD_AND_LOOP = pytest.mark.parametrize("executor", ["thread", "async"])


async def test_callbacks_are_called_once_and_in_order_each_where_it_belongs(
    stage: StageApp, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[tuple[str, str, bool]] = []
    over, gate = threading.Event(), anyio.Event()
    loop = threading.current_thread()

    def note(name: str) -> None:
        calls.append((name, current_job().name, threading.current_thread() is loop))

    async def anote() -> None:
        await anyio.lowlevel.checkpoint()
        note("second")

    def bad() -> None:
        raise SystemExit(3)

    async def handler(task_id: int) -> None:
        job = current_job()
        for callback in (lambda: note("first"), anote, bad, lambda: note("third"), over.set):
            job.on_cancel(callback)
        with anyio.CancelScope(shield=True):
            await gate.wait()

    app = stage(handler)
    async with app.running():
        id = await running(app)
        for _ in range(2):
            await app.acancel(f"mail.{id}")
        assert await seen(over)
        gate.set()
        await ended(app, id)

    name = f"mail.{id}"
    assert calls == [("first", name, False), ("second", name, True), ("third", name, False)]
    assert [record.getMessage() for record in caplog.records if "on_cancel" in record.getMessage()] == [
        f"what {name} gave to on_cancel failed: SystemExit: 3"
    ]


async def test_a_callback_that_comes_after_the_cancel_is_called_at_once(stage: StageApp) -> None:
    called = threading.Event()

    def handler(task_id: int) -> bool:
        job = current_job()
        wait_for_the_flag(job)
        job.on_cancel(called.set)
        return called.wait(PATIENCE)

    app = stage(handler)
    async with app.running():
        _, job = await cancel(app)

    assert job["response"] is True


async def test_what_is_to_be_called_on_a_loop_that_has_ended_is_called_on_another(stage: StageApp) -> None:
    called = threading.Event()

    async def call() -> None:
        await anyio.lowlevel.checkpoint()
        called.set()

    async def register() -> None:
        current_job().on_cancel(call)

    def handler(task_id: int) -> None:
        anyio.run(register)
        wait_for_the_flag(current_job())

    app = stage(handler)
    async with app.running():
        await cancel(app)
        assert await seen(called)


@pytest.mark.parametrize("executor", ["thread", "process"])
@pytest.mark.parametrize("returns", [False, True])
async def test_an_async_handler_ends_when_what_it_gave_was_called_on_its_loop(
    project: Callable[..., Path], executor: str, returns: bool
) -> None:
    root = project(
        tasks={"mail": f"name: M\nprocess: scripts.mail.Send\nexecutor: {executor}\n"},
        scripts={
            "mail": f"""
            import asyncio
            from contextlib import suppress
            from pathlib import Path
            from yaotask import current_job

            async def Send(task_id):
                loop = asyncio.get_running_loop()

                async def close():
                    for _ in range(5):
                        await asyncio.sleep(0.01)
                    assert asyncio.get_running_loop() is loop
                    Path("closed").touch()

                current_job().on_cancel(close)
                with suppress({"asyncio.CancelledError" if returns else ""}):
                    await asyncio.sleep(3600)
            """
        },
        settings=SETTINGS,
    )
    with pytest.MonkeyPatch.context() as patch, App(root) as app:
        patch.chdir(root)
        async with app.running():
            _, job = await cancel(app)

    assert job["status"] == ("SUCCESS" if returns else "CANCELLED")
    assert (root / "closed").exists()


async def test_a_handler_that_returns_is_a_success_though_a_callback_takes_long(stage: StageApp) -> None:
    entered, gate = threading.Event(), threading.Event()

    def call() -> None:
        entered.set()
        gate.wait(PATIENCE)

    async def handler(task_id: int) -> str:
        current_job().on_cancel(call)
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        return "done"

    app = stage(handler, executor="thread")
    async with app.running():
        _, job = await cancel(app)
        assert await seen(entered)
        assert not gate.is_set()
        gate.set()

    assert (job["status"], job["response"]) == ("SUCCESS", "done")


async def test_a_callback_may_call_for_its_app(stage: StageApp) -> None:
    statuses: list[object] = []
    told = threading.Event()

    def look() -> None:
        job = process("tasks.mail.get", current_job().id)
        statuses.append((job["status"], job["cancel_requested"]))
        told.set()

    def handler(task_id: int) -> None:
        current_job().on_cancel(look)
        assert told.wait(PATIENCE)

    app = stage(handler)
    async with app.running():
        await cancel(app)

    assert statuses == [("RUNNING", True)]


async def time_out(app: App, id: int) -> None:
    await ended(app, id)


async def lose(app: App, id: int) -> None:
    # Its worker was taken for dead, and somebody gave the job up.
    change(app, "UPDATE yaotask_jobs SET state = 6, fence = fence + 1, worker = NULL, attempt = 0, finished_at = 1")


async def end_the_worker(app: App, id: int) -> None:
    """The test leaves the block."""


@THREAD_AND_LOOP
@pytest.mark.parametrize("how", [time_out, lose, end_the_worker])
async def test_callbacks_are_called_whenever_the_handler_should_stop(
    stage: StageApp, executor: str, how: Callable[[App, int], Any]
) -> None:
    called, told = threading.Event(), threading.Event()

    def handler(task_id: int) -> None:
        job = current_job()
        job.on_cancel(called.set)
        while not called.wait(0.001):
            if how is lose and not job.over:
                job.progress(1)
        told.set()

    async def ahandler(task_id: int) -> None:
        job = current_job()
        job.on_cancel(called.set)
        try:
            while True:
                await anyio.sleep(0.001)
                if how is lose:
                    job.progress(1)
        finally:
            told.set()

    timeout = "300ms" if how is time_out else "1h"
    app = stage(handler if executor == "thread" else ahandler, timeout=timeout, worker_nums=1)
    async with app.running(grace=0):
        id = await running(app)
        await how(app, id)
        if how is not end_the_worker:
            assert await seen(called)

    assert called.wait(PATIENCE)
    assert told.wait(PATIENCE)


def test_a_callback_must_be_callable() -> None:
    with pytest.raises(TypeError, match="on_cancel takes a function without arguments, not str"):
        a_job().on_cancel("stop")  # type: ignore[arg-type]
