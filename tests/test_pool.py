"""The jobs of one task: how many at once, in which order, and what becomes of those that will not end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import copy_context
from typing import Any, cast

import anyio
import anyio.to_thread
import pytest
from runtime_support import CLAIM, PATIENCE, POLICY, StageApp, a_handler, change, ended, query

from yaotask import App, current_job
from yaotask.clock import SystemClock
from yaotask.errors import ClaimLost
from yaotask.jobs import Claim, Interrupted, Outcome, Succeeded
from yaotask.runtime.children import Children
from yaotask.runtime.deadlines import Deadlines
from yaotask.runtime.desk import JobDesk
from yaotask.runtime.pool import Pool, Work
from yaotask.runtime.spawner import Spawner
from yaotask.store.ledger import Ledger
from yaotask.store.protocol import Finish, Progress, Started
from yaotask.store.sql import SqlStore

pytest_plugins = ["runtime_fixtures"]

THREAD_AND_LOOP = pytest.mark.parametrize("executor", ["thread", "async"])


class Gauge:
    """Counts who is inside at once; everybody waits at the gate."""

    def __init__(self) -> None:
        self.inside, self.most, self.started = 0, 0, list[int]()
        self._change = threading.Condition()
        self._open = False

    def enter(self, task_id: int) -> None:
        with self._change:
            self.started.append(task_id)
            self.inside += 1
            self.most = max(self.most, self.inside)
            self._change.notify_all()

    def leave(self) -> None:
        with self._change:
            self.inside -= 1
            self._change.notify_all()

    def pass_gate(self) -> None:
        with self._change:
            assert self._change.wait_for(lambda: self._open, PATIENCE)

    def open(self) -> None:
        with self._change:
            self._open = True
            self._change.notify_all()

    async def reached(self, count: int) -> None:
        """Until so many have started."""

        def wait() -> bool:
            with self._change:
                return self._change.wait_for(lambda: len(self.started) >= count, PATIENCE)

        assert await anyio.to_thread.run_sync(wait)

    def handler(self, executor: str) -> Callable[..., Any]:
        def handler(task_id: int) -> int:
            self.enter(task_id)
            try:
                self.pass_gate()
            finally:
                self.leave()
            return task_id

        async def ahandler(task_id: int) -> int:
            self.enter(task_id)
            try:
                await anyio.to_thread.run_sync(self.pass_gate, abandon_on_cancel=True)
            finally:
                self.leave()
            return task_id

        return handler if executor == "thread" else ahandler


async def add(app: App, count: int, **options: Any) -> list[int]:
    return [await app.tasks["mail"].options(**options).aadd() for _ in range(count)]


# --- how many ------------------------------------------------------------------------------------------------


@THREAD_AND_LOOP
async def test_never_more_than_worker_nums_run_at_once(stage: StageApp, executor: str) -> None:
    gauge = Gauge()
    app = stage(gauge.handler(executor), worker_nums=3)
    async with app.running():
        ids = await add(app, 10)
        await gauge.reached(3)
        gauge.open()
        for id in ids:
            await ended(app, id)

    assert gauge.most == 3
    assert sorted(gauge.started) == ids


@THREAD_AND_LOOP
async def test_a_thousand_jobs_end_through_three_slots(stage: StageApp, executor: str) -> None:
    inside, most, done = 0, 0, set[int]()
    lock = threading.Lock()

    def handler(task_id: int) -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        with lock:
            inside -= 1
            done.add(task_id)

    async def ahandler(task_id: int) -> None:
        handler(task_id)
        if task_id % 7 == 0:
            await anyio.lowlevel.checkpoint()

    app = stage(handler if executor == "thread" else ahandler, worker_nums=3)
    ids = await app.tasks["mail"].aadd_many([[]] * 1_000)
    async with app.running():
        with anyio.fail_after(PATIENCE):
            await app.works.embedded().drained()

    assert query(app, "SELECT state, count(*) FROM yaotask_jobs GROUP BY state") == [(2, 1_000)]
    assert done == set(ids)
    assert most <= 3


async def test_a_thread_that_has_timed_out_keeps_its_place_until_it_returns(stage: StageApp) -> None:
    gauge, late = Gauge(), list[type[BaseException]]()

    def handler(task_id: int) -> str:
        gauge.enter(task_id)
        gauge.pass_gate()
        gauge.leave()
        try:
            current_job().progress(99)
        except ClaimLost as error:
            late.append(type(error))
            assert current_job().cancelled
        return "late"

    app = stage(handler, worker_nums=2, timeout="50ms")
    async with app.running():
        ids = await add(app, 4)
        zombies = [await ended(app, id) for id in ids[:2]]
        waiting = [(await app.aget(f"mail.{id}"))["status"] for id in ids[2:]]
        inside = gauge.most
        change(app, "UPDATE yaotask_jobs SET timeout = 10000 WHERE state = 0")
        gauge.open()
        later = [await ended(app, id) for id in ids[2:]]

    assert [(job["status"], job["error_type"]) for job in zombies] == [("FAILURE", "TimeoutError")] * 2
    assert (waiting, inside) == (["WAITING"] * 2, 2)
    assert [(job["status"], job["response"]) for job in later] == [("SUCCESS", "late")] * 2
    assert late == [ClaimLost] * 2
    assert gauge.most == 2


async def test_the_late_result_of_a_timed_out_thread_is_refused(stage: StageApp) -> None:
    gauge = Gauge()
    app = stage(gauge.handler("thread"), timeout="30ms")
    async with app.running():
        (id,) = await add(app, 1)
        await ended(app, id)
        gauge.open()
    job = await app.aget(f"mail.{id}")

    assert (job["status"], job["response"]) == ("FAILURE", None)


# --- in which order ----------------------------------------------------------------------------------------------


@THREAD_AND_LOOP
async def test_larger_priorities_run_first_and_equal_ones_in_turn(stage: StageApp, executor: str) -> None:
    order: list[int] = []

    def handler(task_id: int) -> None:
        order.append(task_id)

    async def ahandler(task_id: int) -> None:
        order.append(task_id)

    app = stage(handler if executor == "thread" else ahandler)
    normal, low, high, again = [await add(app, 3, priority=priority) for priority in (0, -10, 10, 0)]
    async with app.running():
        await ended(app, low[-1])

    assert order == [*high, *normal, *again, *low]


# --- handlers that end otherwise -----------------------------------------------------------------------------


@THREAD_AND_LOOP
async def test_a_handler_that_exits_has_failed_its_try_and_others_run(stage: StageApp, executor: str) -> None:
    def handler(task_id: int) -> str:
        if task_id == 1:
            raise SystemExit(3)
        return "done"

    async def ahandler(task_id: int) -> str:
        return handler(task_id)

    app = stage(handler if executor == "thread" else ahandler)
    async with app.running():
        first, second = await add(app, 2)
        jobs = [await ended(app, first), await ended(app, second)]

    assert [(job["status"], job["error_type"]) for job in jobs] == [("FAILURE", "SystemExit"), ("SUCCESS", None)]


@THREAD_AND_LOOP
async def test_a_lost_claim_stops_its_handler(stage: StageApp, executor: str) -> None:
    entered, gate, stopped = threading.Event(), threading.Event(), threading.Event()

    def handler(task_id: int) -> None:
        entered.set()
        assert gate.wait(PATIENCE)
        job = current_job()
        try:
            while not job.cancelled:
                job.progress(1)
                stopped.wait(0.001)
        finally:
            stopped.set()

    async def ahandler(task_id: int) -> None:
        entered.set()
        try:
            await anyio.to_thread.run_sync(gate.wait, PATIENCE)
            # Already here it may be told, where the loss was seen when its start was to be stored.
            current_job().progress(1)
            await anyio.sleep_forever()
        finally:
            stopped.set()

    app = stage(handler if executor == "thread" else ahandler)
    async with app.running():
        (id,) = await add(app, 1)
        assert await anyio.to_thread.run_sync(entered.wait, PATIENCE)
        # Another connection ends the job: its worker was taken for dead, and somebody gave it up.
        change(app, "UPDATE yaotask_jobs SET state = 6, fence = fence + 1, worker = NULL, attempt = 0, finished_at = 1")
        gate.set()
        assert await anyio.to_thread.run_sync(stopped.wait, PATIENCE)
    job = await app.aget(f"mail.{id}")

    assert (job["status"], job["current"]) == ("CANCELLED", 0)


async def test_an_async_handler_that_times_out_frees_its_place_at_once(stage: StageApp) -> None:
    async def handler(task_id: int) -> str:
        if task_id == 1:
            await anyio.sleep_forever()
        return "done"

    app = stage(handler)
    async with app.running():
        (first,), (second,) = await add(app, 1, timeout="30ms"), await add(app, 1)
        jobs = [await ended(app, first), await ended(app, second)]

    assert [job["status"] for job in jobs] == ["FAILURE", "SUCCESS"]


async def test_an_async_handler_that_swallows_its_cancellation_is_refused_and_its_place_is_used_again(
    stage: StageApp,
) -> None:
    async def handler(task_id: int) -> str:
        if task_id == 1:
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                pass
            return "late"
        await anyio.lowlevel.checkpoint()
        return "done"

    app = stage(handler)
    async with app.running():
        (first,), (second,) = await add(app, 1, timeout="30ms"), await add(app, 1)
        jobs = [await ended(app, first), await ended(app, second)]

    assert [(job["status"], job["response"]) for job in jobs] == [("FAILURE", None), ("SUCCESS", "done")]


async def test_an_async_handler_that_shields_itself_keeps_its_place_and_is_refused(stage: StageApp) -> None:
    gate, started = anyio.Event(), list[int]()

    async def handler(task_id: int) -> str:
        started.append(task_id)
        if task_id == 1:
            with anyio.CancelScope(shield=True):
                await gate.wait()
        return "done"

    app = stage(handler)
    async with app.running():
        (first,), (second,) = await add(app, 1, timeout="20ms"), await add(app, 1)
        timed_out = await ended(app, first)
        meanwhile = list(started)
        gate.set()
        later = await ended(app, second)

    assert (timed_out["error_type"], timed_out["response"]) == ("TimeoutError", None)
    assert (meanwhile, later["status"]) == ([1], "SUCCESS")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_handler_that_waits_for_a_cancelled_task_fails_like_any_other(stage: StageApp) -> None:
    async def handler(task_id: int) -> str:
        if task_id == 1:
            task = asyncio.ensure_future(asyncio.sleep(9))
            task.cancel()
            await task
        return "done"

    app = stage(handler)
    async with app.running():
        first, second = await add(app, 2)
        jobs = [await ended(app, first), await ended(app, second)]

    assert [job["status"] for job in jobs] == ["FAILURE", "SUCCESS"]


# --- a pool alone ------------------------------------------------------------------------------------------------


class Book:
    """A ledger that only takes notes."""

    def __init__(self) -> None:
        self.finishes: list[Finish] = []
        self._change = threading.Condition()

    def finish(self, finish: Finish) -> None:
        with self._change:
            self.finishes.append(finish)
            self._change.notify_all()

    def poke(self) -> None: ...

    async def reaches(self, count: int) -> None:
        """Until so many attempts have ended."""

        def wait() -> bool:
            with self._change:
                return self._change.wait_for(lambda: len(self.finishes) >= count, PATIENCE)

        assert await anyio.to_thread.run_sync(wait)

    def progress(self, note: Progress) -> None: ...

    def started(self, note: Started) -> None: ...

    @property
    def ends(self) -> list[tuple[int, type[Outcome]]]:
        return [(finish.claim.id, type(finish.outcome)) for finish in self.finishes]


@asynccontextmanager
async def bare_pool(handler: Callable[..., Any], **work: Any) -> AsyncIterator[tuple[Pool, Book]]:
    book, clock = Book(), SystemClock()
    ledger = cast(Ledger, book)
    deadlines, spawner = Deadlines(ledger, clock), Spawner()
    desk = JobDesk(POLICY, ledger, cast(SqlStore, None), clock, deadlines)
    worked = Work(**{"task": "mail", "handler": a_handler(handler), "worker_nums": 1, "policy": POLICY, **work})
    pool = Pool(worked, ledger, clock, desk, deadlines, cast(Children, None))
    pool.open(spawner, copy_context())
    async with anyio.create_task_group() as group:
        group.start_soon(spawner.run, group, copy_context())
        yield pool, book
        pool.stop()
        assert pool.dissolve() == []
        group.cancel_scope.cancel()


def claims(*ids: int) -> list[Claim]:
    return [CLAIM._replace(key=id, id=id) for id in ids]


@THREAD_AND_LOOP
async def test_claims_that_were_not_started_are_handed_back_at_the_stop(executor: str) -> None:
    gauge = Gauge()
    async with bare_pool(gauge.handler(executor)) as (pool, book):
        pool.deliver(claims(1, 2, 3))
        await gauge.reached(1)
        pool.stop()
        handed_back = book.ends
        gauge.open()
        await book.reaches(3)

    assert handed_back == [(2, Interrupted), (3, Interrupted)]
    assert book.ends[2:] == [(1, Succeeded)]
    assert gauge.started == [1]


@THREAD_AND_LOOP
async def test_claims_that_come_after_the_stop_are_handed_back_too(executor: str) -> None:
    async with bare_pool(Gauge().handler(executor)) as (pool, book):
        pool.stop()
        pool.deliver(claims(1))
        await book.reaches(1)

    assert book.ends == [(1, Interrupted)]


async def test_a_hold_at_the_end_takes_no_slot_the_word_that_it_is_over() -> None:
    gauge = Gauge()
    async with bare_pool(gauge.handler("thread")) as (pool, _):
        pool.deliver(claims(1))
        await gauge.reached(1)
        pool.stop()
        held = pool.dissolve()
        pool.hold()
        gauge.open()

        assert len(held) == 1
        assert held[0].join(PATIENCE)


async def test_an_interrupted_attempt_ends_once() -> None:
    async def handler(task_id: int) -> None:
        entered.set()
        await anyio.sleep_forever()

    entered = anyio.Event()
    async with bare_pool(handler) as (pool, book):
        pool.deliver(claims(1))
        await entered.wait()
        pool.interrupt()
        pool.interrupt()
        await anyio.wait_all_tasks_blocked()

    assert book.ends == [(1, Interrupted)]


async def test_demand_is_one_claim_for_each_free_place() -> None:
    gauge = Gauge()
    async with bare_pool(gauge.handler("thread"), worker_nums=3) as (pool, book):
        whole = pool.demand()
        pool.deliver(claims(1, 2))
        some = pool.demand()
        gauge.open()
        await book.reaches(2)
        pool.stop()

    assert (whole, some, pool.demand()) == (3, 1, 0)


async def test_a_claim_takes_no_more_than_the_setting_allows() -> None:
    async with bare_pool(lambda task_id: None, worker_nums=9, claim_batch=4) as (pool, _):
        assert pool.demand() == 4


async def test_of_many_attempts_the_lost_one_is_stopped() -> None:
    stopped: list[int] = []

    async def handler(task_id: int) -> None:
        started.append(task_id)
        try:
            await anyio.sleep_forever()
        finally:
            stopped.append(task_id)

    started: list[int] = []
    async with bare_pool(handler, worker_nums=3) as (pool, book):
        pool.deliver(claims(1, 2, 3))
        await anyio.wait_all_tasks_blocked()
        pool.lost(2, 99)
        pool.lost(2, CLAIM.fence)
        await anyio.wait_all_tasks_blocked()
        after, ends = list(stopped), book.ends
        pool.interrupt()

    assert started == [1, 2, 3]
    assert (after, ends) == ([2], [])


async def test_a_thread_that_the_system_would_not_start_is_asked_for_again(
    stage: StageApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start, refused = threading.Thread.start, list[str]()

    def refuse_once(thread: threading.Thread) -> None:
        if thread.name == "yaotask-mail" and not refused:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_once)
    app = stage(lambda task_id: "done", worker_nums=1)
    async with app.running():
        job = await ended(app, await app.acall("tasks.mail.add"))

    assert (job["status"], refused) == ("SUCCESS", ["yaotask-mail"])
    assert "mail: no thread could be started for a handler, will try again: can't start new thread" in caplog.text
