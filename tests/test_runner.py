"""A runner from its first claim to its orderly end."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import transitions
from children_support import until
from runtime_support import PATIENCE, StageApp, break_down, ended, query
from store_support import ManualClock, connected

from yaotask import App
from yaotask.chance import SystemChance
from yaotask.clock import SystemClock
from yaotask.errors import StorageUnavailable
from yaotask.runtime import runner
from yaotask.runtime.runner import until_settled
from yaotask.store import presence
from yaotask.store.locks import Lock
from yaotask.store.opening import open_store, place
from yaotask.store.protocol import Errand, Mailbox, Ticket

pytest_plugins = ["runtime_fixtures"]


def succeed(task_id: int) -> str:
    return "done"


def lock_files(app: App) -> list[Path]:
    return list((app.root / ".yaotask" / "workers").glob("*"))


def traces(app: App) -> tuple[int, int, int]:
    """The files of workers (a lock, an ear for hints), their rows, and jobs that some worker has."""
    ((workers,),) = query(app, "SELECT count(*) FROM yaotask_workers")
    ((claimed,),) = query(app, "SELECT count(*) FROM yaotask_jobs WHERE worker IS NOT NULL OR state = 1")
    return len(lock_files(app)), workers, claimed


async def test_nothing_is_left_behind(stage: StageApp) -> None:
    app = stage(succeed)
    async with app.running():
        await ended(app, await app.acall("tasks.mail.add"))
        during = traces(app)

    assert during == (2, 1, 0)
    assert traces(app) == (0, 0, 0)


async def test_a_runner_may_be_stopped_before_it_has_had_work(stage: StageApp) -> None:
    app = stage(succeed)
    with anyio.fail_after(PATIENCE):
        async with app.running(grace=PATIENCE * 2):
            pass

    assert traces(app) == (0, 0, 0)


async def test_a_project_without_tasks_is_run_and_stopped_at_once(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    with App(tmp_path) as app, anyio.fail_after(PATIENCE):
        async with app.running(grace=PATIENCE * 2):
            pass


async def test_an_app_may_be_run_again(stage: StageApp) -> None:
    app = stage(succeed)
    for id in (1, 2):
        async with app.running():
            await app.acall("tasks.mail.add")
            assert (await ended(app, id))["status"] == "SUCCESS"

    assert traces(app) == (0, 0, 0)


async def test_an_app_is_run_once_at_a_time(stage: StageApp) -> None:
    app = stage(succeed)
    async with app.running():
        with pytest.raises(RuntimeError, match="already"):
            async with app.running():
                pass
        # The first is none the worse for it.
        job = await ended(app, await app.acall("tasks.mail.add"))

    assert job["status"] == "SUCCESS"
    assert traces(app) == (0, 0, 0)


# --- the end --------------------------------------------------------------------------------------------------


async def test_running_jobs_get_their_grace(stage: StageApp) -> None:
    entered, gate = anyio.Event(), anyio.Event()

    async def handler(task_id: int) -> str:
        entered.set()
        await gate.wait()
        return "done"

    app = stage(handler)
    async with anyio.create_task_group() as group, app.running(grace=PATIENCE):
        id = await app.acall("tasks.mail.add")
        await entered.wait()
        group.start_soon(_open_later, gate)

    assert (await app.aget(f"mail.{id}"))["status"] == "SUCCESS"


async def _open_later(gate: anyio.Event) -> None:
    await anyio.wait_all_tasks_blocked()
    gate.set()


async def test_what_does_not_end_in_time_is_handed_back_uncounted(stage: StageApp) -> None:
    entered = anyio.Event()

    async def handler(task_id: int) -> None:
        entered.set()
        await anyio.sleep_forever()

    app = stage(handler)
    async with app.running(grace=0):
        running, waiting = [await app.acall("tasks.mail.add") for _ in range(2)]
        await entered.wait()
    jobs = [await app.aget(f"mail.{id}") for id in (running, waiting)]

    assert [(job["status"], job["attempt"]) for job in jobs] == [("WAITING", 0)] * 2
    assert traces(app) == (0, 0, 0)


async def test_a_thread_that_does_not_end_in_time_is_left_alone_and_refused(stage: StageApp) -> None:
    entered, gate, left = threading.Event(), threading.Event(), threading.Event()

    def handler(task_id: int) -> str:
        entered.set()
        assert gate.wait(PATIENCE)
        left.set()
        return "late"

    app = stage(handler)
    async with app.running(grace=0):
        id = await app.acall("tasks.mail.add")
        await anyio.to_thread.run_sync(entered.wait, PATIENCE)
    handed_back = (await app.aget(f"mail.{id}"))["status"]
    gate.set()
    await anyio.to_thread.run_sync(left.wait, PATIENCE)

    assert handed_back == "WAITING"
    assert (await app.aget(f"mail.{id}"))["status"] == "WAITING"


async def test_a_cancellation_from_outside_hands_back_at_once(stage: StageApp) -> None:
    starts: list[int] = []
    entered = anyio.Event()

    async def handler(task_id: int) -> None:
        starts.append(task_id)
        entered.set()
        await anyio.sleep_forever()

    app = stage(handler)
    with anyio.fail_after(PATIENCE), anyio.CancelScope() as scope:
        async with app.running(grace=PATIENCE * 2):
            for _ in range(3):
                await app.acall("tasks.mail.add")
            await entered.wait()
            scope.cancel()
            await anyio.sleep_forever()

    assert starts == [1]
    assert query(app, "SELECT DISTINCT state, attempt FROM yaotask_jobs") == [(0, 0)]
    assert traces(app) == (0, 0, 0)


async def test_an_exception_in_the_block_passes_as_it_is_after_an_orderly_end(stage: StageApp) -> None:
    app = stage(succeed)
    cause = KeyError("the cause")
    with pytest.raises(ValueError, match="bad") as caught:
        async with app.running(grace=PATIENCE * 2):
            raise ValueError("bad") from cause

    assert caught.value.__cause__ is cause
    assert traces(app) == (0, 0, 0)


async def test_hooks_are_told_before_the_end(stage: StageApp) -> None:
    told: list[int] = []
    app = stage(succeed, hooks={"success": lambda id, response: told.append(id)})
    async with app.running():
        ids = [await app.acall("tasks.mail.add") for _ in range(20)]
        await ended(app, ids[-1])

    assert sorted(told) == ids
    assert query(app, "SELECT count(*) FROM yaotask_events") == [(0,)]


async def test_where_nothing_can_be_written_any_more_the_block_is_cancelled(
    stage: StageApp, caplog: pytest.LogCaptureFixture
) -> None:
    app = stage(succeed)
    with pytest.raises(StorageUnavailable, match="has stopped: no room for a page"):
        async with app.running(grace=PATIENCE * 2):
            app._access.opened.ledger.errand(break_down, Ticket())
            await anyio.sleep_forever()

    assert "the ledger has died" in caplog.text


async def test_once_nothing_can_be_written_any_more_nothing_is_waited_for(
    stage: StageApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "LAST_WORDS", 10 * PATIENCE)
    entered = anyio.Event()

    async def stay(task_id: int) -> None:
        entered.set()
        await anyio.sleep_forever()

    app = stage(stay)
    await app.tasks["mail"].aadd()
    begun = app.clock.monotonic()
    with pytest.raises(StorageUnavailable, match="has stopped: no room for a page"):
        async with app.running(grace=PATIENCE * 2):
            await entered.wait()
            app._access.opened.ledger.errand(break_down, Ticket())
            await anyio.sleep_forever()

    assert app.clock.monotonic() - begun < PATIENCE


async def test_what_could_not_be_handed_back_is_taken_over_although_its_process_lives_on(stage: StageApp) -> None:
    entered = anyio.Event()

    async def handler(task_id: int) -> str:
        if not entered.is_set():
            entered.set()
            await anyio.sleep_forever()
        return "done"

    app = stage(handler)
    id = await app.acall("tasks.mail.add")
    with pytest.raises(StorageUnavailable):
        async with app.running(grace=0):
            await entered.wait()
            app._access.opened.ledger.errand(break_down, Ticket())
            await anyio.sleep_forever()
    async with App(app.root) as anew, anew.running():
        job = await ended(anew, id)

    assert job["response"] == "done"
    assert lock_files(app) == []


# --- the dead ---------------------------------------------------------------------------------------------------


def die_with(app: App, jobs: int) -> None:
    """Another worker claims so many jobs and dies."""
    store = open_store(place(app.root, app.settings.store), SystemClock(), SystemChance())
    lock, ticket = Lock.take(app.root / ".yaotask" / "workers", "dead"), Ticket()
    store.run_cycle(Mailbox(errands=[Errand(lambda cycle: presence.register(cycle, "dead", lock), ticket)]))  # type: ignore[arg-type]
    claims = store.run_cycle(Mailbox(worker=ticket.value, demands={"mail": jobs})).claims["mail"]
    os.close(lock.handle)
    store.close()
    assert len(claims) == jobs


async def test_jobs_of_a_dead_worker_come_first(stage: StageApp) -> None:
    app = stage(succeed)
    id = await app.acall("tasks.mail.add")
    die_with(app, 1)
    async with app.running():
        job = await ended(app, id)

    assert job["status"] == "SUCCESS"
    assert query(app, "SELECT outcome FROM yaotask_attempts") == [("lost",)]
    assert traces(app) == (0, 0, 0)


async def test_a_worker_that_dies_meanwhile_loses_its_jobs_to_the_living(stage: StageApp) -> None:
    entered, gate = anyio.Event(), anyio.Event()

    async def handler(task_id: int) -> str:
        entered.set()
        await gate.wait()
        return "done"

    app = stage(handler)
    async with app.running():
        _, other = [await app.acall("tasks.mail.add") for _ in range(2)]
        await entered.wait()
        die_with(app, 1)
        gate.set()
        job = await ended(app, other)

    assert (job["status"], job["response"]) == ("SUCCESS", "done")
    assert query(app, "SELECT outcome FROM yaotask_attempts") == [("lost",)]


async def test_a_job_that_cannot_be_taken_back_holds_up_nobody(
    stage: StageApp, caplog: pytest.LogCaptureFixture
) -> None:
    app = stage(succeed)
    bad, good = [await app.acall("tasks.mail.add") for _ in range(2)]
    die_with(app, 2)
    with connected(place(app.root, app.settings.store)) as connection:
        transitions.refuse(connection, "bad_row", "UPDATE", f"OLD.id = {bad}", "bad row")
    with anyio.fail_after(PATIENCE):
        async with app.running():
            job = await ended(app, good)

    assert job["status"] == "SUCCESS"
    assert (await app.aget(f"mail.{bad}"))["status"] != "SUCCESS"
    assert "mail.1 could not be taken back" in caplog.text


async def test_the_longer_a_drain_takes_the_less_often_it_is_looked_at() -> None:
    clock, looks = ManualClock(), list[float]()

    def is_unsettled() -> bool:
        looks.append(clock.monotonic())
        return clock.monotonic() < 60

    await until_settled(is_unsettled, clock)

    pauses = [after - before for before, after in pairwise(looks)]
    assert pauses[0] == pytest.approx(0.02)
    assert pauses[-1] == pytest.approx(0.5)
    assert all(after >= before - 1e-6 for before, after in pairwise(pauses))
    # The end of a short drain is seen soon, and that of a long one within half a second.
    assert looks[-1] <= 60.5


async def test_a_runner_that_cannot_leave_may_work_again(stage: StageApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app = stage(succeed)

    def away(*_: object) -> None:
        raise StorageUnavailable("the server is away")

    monkeypatch.setattr(runner, "LAST_WORDS", 0.1)
    with monkeypatch.context() as patch, pytest.raises(StorageUnavailable, match="away"):
        patch.setattr(presence, "leave", away)
        async with app.running():
            pass
    async with app.running():
        job = await ended(app, await app.acall("tasks.mail.add"))

    assert job["status"] == "SUCCESS"


async def test_a_store_that_is_away_for_a_moment_as_a_runner_leaves_is_waited_for(
    stage: StageApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, leave = stage(succeed), presence.leave

    def away(*_: object) -> None:
        monkeypatch.setattr(presence, "leave", leave)
        raise StorageUnavailable("the server is away")

    async with app.running():
        monkeypatch.setattr(presence, "leave", away)

    assert query(app, "SELECT count(*) FROM yaotask_workers") == [(0,)]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_handlers_task_that_is_cancelled_after_its_end_ends_nobody_else(stage: StageApp) -> None:
    """A watchdog that comes late, as `loop.call_later(60, task.cancel)`."""
    tasks: list[asyncio.Task[Any] | None] = []

    async def handler(task_id: int) -> None:
        tasks.append(asyncio.current_task())

    app = stage(handler)
    async with app.running():
        for _ in range(3):
            job = await ended(app, await app.acall("tasks.mail.add"))
            # It rests by then.
            await until(lambda: bool(app._access.opened.ledger.is_quiet))
            assert job["status"] == "SUCCESS"
            task = tasks[-1]
            assert task is not None
            task.cancel()

    assert len(tasks) == 3


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("swallows", [False, True])
async def test_a_handler_that_cancels_its_task_leaves_nothing_of_that_to_the_next(
    stage: StageApp, swallows: bool
) -> None:
    left: list[int] = []

    async def handler(task_id: int) -> None:
        task = asyncio.current_task()
        assert task is not None
        left.append(task.cancelling())
        if task_id > 1:
            await asyncio.sleep(0)
            return
        task.cancel()
        if swallows:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)

    app = stage(handler)
    ids = await app.tasks["mail"].aadd_many([[]] * 3)
    async with app.running():
        jobs = [await ended(app, id) for id in ids]

    assert [job["status"] for job in jobs] == ["SUCCESS"] * 3
    assert left == [0, 0, 0]


async def test_results_are_written_before_their_worker_leaves_in_a_hurry(
    stage: StageApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine needs its time for so much.
    monkeypatch.setattr(runner, "LAST_WORDS", 30.0)
    count, gate, begun, returned = 24, anyio.Event(), list[int](), list[int]()

    async def give_much(task_id: int) -> str:
        begun.append(task_id)
        await gate.wait()
        returned.append(task_id)
        return "x" * 1_000_000

    app = stage(give_much, worker_nums=count)
    ids = await app.tasks["mail"].aadd_many([[]] * count)
    async with app.running(grace=0):
        await until(lambda: len(begun) == count)
        gate.set()
        while len(returned) < count:
            await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()

    assert {(await app.aget(f"mail.{id}"))["status"] for id in ids} == {"SUCCESS"}
