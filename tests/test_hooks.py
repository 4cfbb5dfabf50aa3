"""Telling hooks what happened to jobs: at least once, in order, and never to the harm of a job."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar, copy_context
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import anyio
import anyio.to_thread
import pytest
from children_support import until
from runtime_support import PATIENCE, StageApp, ended, query
from store_support import START, ManualClock

from yaotask import App, Ignore, current_job, invoke, process
from yaotask.clock import SECOND
from yaotask.errors import NoCurrentJob
from yaotask.events import Delivery, EventKind
from yaotask.invoke import MOST_THREADS
from yaotask.resolve import Resolver
from yaotask.runtime.calling import Caller
from yaotask.runtime.children import Children, NoChild
from yaotask.runtime.hooks import MESSENGERS, Courier
from yaotask.runtime.quarantine import MOST_AT_ONCE, MOST_HELD, MOST_SUSPECTS, Called, Quarantine
from yaotask.runtime.spawner import Spawner
from yaotask.store.consumers import FailedDelivery
from yaotask.store.ledger import Ledger

pytest_plugins = ["runtime_fixtures"]

ONCE = "poll: 1h\nhook_attempts: 1\n"
QUICK = f"{ONCE}hook_timeout: 20ms\n"
WHO: ContextVar[str] = ContextVar("who", default="nobody")
SUCCESS = Delivery(1, 1, "mail", 12, EventKind.SUCCESS, 0, 0, ["done"])


class Told:
    """What hooks were called with, and the wait for it."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._more = threading.Condition()

    def hook(self, name: str) -> Callable[..., None]:
        def hook(*args: Any) -> None:
            with self._more:
                self.calls.append((name, *args))
                self._more.notify_all()

        return hook

    async def wait(self, count: int) -> list[tuple[Any, ...]]:
        def wait() -> bool:
            with self._more:
                return self._more.wait_for(lambda: len(self.calls) >= count, PATIENCE)

        assert await anyio.to_thread.run_sync(wait)
        return self.calls


def succeed(task_id: int) -> str:
    return "done"


def fail(task_id: int) -> None:
    raise ValueError("bad")


# --- what each hook is told ------------------------------------------------------------------------------


async def test_a_success_is_told_after_the_add_with_its_response(stage: StageApp) -> None:
    told = Told()
    app = stage(succeed, hooks={name: told.hook(name) for name in ("add", "success", "error")})
    async with app.running():
        id = await app.acall("tasks.mail.add")
        await told.wait(2)

    assert told.calls == [("add", id), ("success", id, "done")]


async def test_a_failure_is_told_after_its_retry_with_the_error(stage: StageApp) -> None:
    told = Told()
    hooks = {name: told.hook(name) for name in ("success", "error", "retry")}
    app = stage(fail, hooks=hooks, attempts=1, attempt_after=7)
    async with app.running():
        id = await app.acall("tasks.mail.add")
        await told.wait(2)
    (_, retried, error, attempt, after), (_, failed, last) = told.calls

    assert [call[0] for call in told.calls] == ["retry", "error"]
    assert (retried, failed, attempt, after) == (id, id, 1, 7)
    assert (error.type, last.type, last.message, str(last)) == ("ValueError", "ValueError", "bad", "bad")
    assert "raise ValueError" in last.traceback


async def test_a_job_that_is_ignored_or_cancelled_says_so(stage: StageApp) -> None:
    def ignore(task_id: int) -> None:
        raise Ignore("already sent")

    told = Told()
    app = stage(ignore, hooks={name: told.hook(name) for name in ("ignore", "cancel")})
    cancelled = await app.acall("tasks.mail.add")
    await app.acancel(f"mail.{cancelled}")
    async with app.running():
        ignored = await app.acall("tasks.mail.add")
        await told.wait(2)

    assert sorted(told.calls) == [("cancel", cancelled), ("ignore", ignored, "already sent")]


async def test_a_next_try_waits_until_the_retry_was_told(stage: StageApp) -> None:
    order: list[str] = []
    told, entered, gate = anyio.Event(), threading.Event(), threading.Event()

    async def handler(task_id: int) -> None:
        order.append("try")
        if order.count("try") == 1:
            raise ValueError("bad")
        told.set()

    def on_retry(*args: Any) -> None:
        entered.set()
        assert gate.wait(PATIENCE)
        order.append("told")

    app = stage(handler, hooks={"retry": on_retry}, attempts=1, attempt_after=0)
    async with app.running():
        id = await app.acall("tasks.mail.add")
        await anyio.to_thread.run_sync(entered.wait, PATIENCE)
        held = (await app.aget(f"mail.{id}"))["status"]
        gate.set()
        await ended(app, id)

    assert held == "RETRYING"
    assert order == ["try", "told", "try"]


async def test_a_next_try_waits_for_one_try_to_tell_of_the_last_and_no_longer(stage: StageApp) -> None:
    order: list[str] = []

    def handler(task_id: int) -> None:
        order.append("try")
        if order.count("try") == 1:
            raise ValueError("bad")

    def on_retry(*args: Any) -> None:
        order.append("told")
        raise OSError("the server is down")

    app = stage(handler, hooks={"retry": on_retry}, attempts=1, attempt_after=0)
    async with app.running(grace=0):
        job = await ended(app, await app.acall("tasks.mail.add"))

    assert (job["status"], order) == ("SUCCESS", ["try", "told", "try"])


# --- what hooks may do ---------------------------------------------------------------------------------------


async def test_hooks_have_no_current_job_and_may_call_anything(stage: StageApp) -> None:
    seen: list[Any] = []
    both = Told()
    done = both.hook("done")

    def on_add(id: int) -> None:
        with pytest.raises(NoCurrentJob):
            current_job()
        seen.append(process("tasks.mail.get", id)["id"])
        if id == 1:
            process("tasks.mail.add")
        done()

    app = stage(succeed, hooks={"add": on_add})
    async with app.running():
        await app.acall("tasks.mail.add")
        await both.wait(2)

    assert seen == [1, 2]


async def test_an_async_hook_runs_on_the_loop(stage: StageApp) -> None:
    told, threads = anyio.Event(), list[threading.Thread]()

    async def on_success(id: int, response: str) -> None:
        await anyio.lowlevel.checkpoint()
        threads.append(threading.current_thread())
        told.set()

    app = stage(succeed, hooks={"success": on_success})
    async with app.running():
        await app.acall("tasks.mail.add")
        with anyio.fail_after(PATIENCE):
            await told.wait()

    assert threads == [threading.current_thread()]


class Unsayable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def _raise(error: BaseException) -> Callable[..., None]:
    def hook(*args: Any) -> None:
        raise error

    return hook


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        (_raise(KeyError("gone")), "KeyError: 'gone'"),
        (_raise(SystemExit(3)), "SystemExit: 3"),
        (_raise(Unsayable()), "RuntimeError"),
        (_raise(ValueError("a\0b\ud800")), "ValueError: a␀b\ufffd"),
        (_raise(TimeoutError("the server is slow")), "TimeoutError: the server is slow"),
        ("runtime_support.nobody", "nobody"),
    ],
)
async def test_a_hook_that_fails_leaves_its_job_alone_and_its_event_to_be_seen(
    stage: StageApp, hook: Any, words: str
) -> None:
    app = stage(succeed, hooks={"success": hook}, settings=ONCE)
    async with app.running():
        id = await app.acall("tasks.mail.add")
        job = await ended(app, id)
    ((error, state),) = query(app, "SELECT error, state FROM yaotask_events")

    assert job["status"] == "SUCCESS"
    assert words in error
    assert state == 1


# --- the courier alone -----------------------------------------------------------------------------------------


class FakeQuarantine(Quarantine):
    """Without child processes: what comes of a call is the test's to say."""

    def __init__(self) -> None:
        children = SimpleNamespace(open=lambda spawner: None, is_stopped=True)
        super().__init__(cast(Children, children), 30.0, ManualClock())
        self.is_ready = True
        self.called: list[tuple[str, int]] = []
        self.fate: Callable[[str, Delivery], Awaitable[Called]]

    def wait(self) -> anyio.Event:
        """Every call waits for this, and then does no harm."""
        gate = anyio.Event()

        async def wait(path: str, delivery: Delivery) -> Called:
            await gate.wait()
            return Called(None)

        self.fate = wait
        return gate

    async def _call_once(self, path: str, delivery: Delivery) -> Called:
        self.called.append((path, delivery.seq))
        return await self.fate(path, delivery)


class Post:
    """A courier on this loop, with the ledger's side in the hands of the test."""

    def __init__(self, app: App, clock: ManualClock, *, timeout: float = 30.0, attempts: int = 5) -> None:
        self.resolver = Resolver(app.root)
        self.news = anyio.Event()
        self.quarantine = FakeQuarantine()
        ledger = cast(Ledger, SimpleNamespace(poke=lambda: self.news.set()))
        caller = Caller(self.resolver, clock, timeout, app.settings.limits, MESSENGERS)
        self.courier = Courier(app.catalog.tasks, ledger, clock, caller, self.quarantine, attempts=attempts)

    async def settled(self, count: int) -> tuple[list[Delivery], list[FailedDelivery]]:
        delivered: list[Delivery] = []
        failed: list[FailedDelivery] = []
        with anyio.fail_after(PATIENCE):
            while len(delivered) + len(failed) < count:
                await self.news.wait()
                self.news = anyio.Event()
                some, others = self.courier.settled()
                delivered += some
                failed += others
        return delivered, failed


@asynccontextmanager
async def posting(app: App, clock: ManualClock, **options: Any) -> AsyncIterator[Post]:
    post, spawner = Post(app, clock, **options), Spawner()
    post.courier.open(spawner)
    async with anyio.create_task_group() as group:
        group.start_soon(spawner.run, group, copy_context())
        yield post
        group.cancel_scope.cancel()
    post.resolver.close()


@pytest.mark.parametrize(("tries", "seconds"), [(0, 1), (1, 2), (2, 4), (3, 8), (4, None)])
async def test_a_failed_hook_is_called_again_later_and_later(stage: StageApp, tries: int, seconds: int | None) -> None:
    app = stage(succeed, hooks={"success": _raise(ValueError("bad"))})
    async with posting(app, ManualClock()) as post:
        post.courier.deliver([SUCCESS._replace(tries=tries)])
        delivered, ((_, error, next_at),) = await post.settled(1)

    assert delivered == []
    assert error == "ValueError: bad"
    assert next_at == (None if seconds is None else START + seconds * SECOND)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_hook_that_hangs_is_given_up(stage: StageApp, kind: str) -> None:
    gate = threading.Event()

    async def hang(*args: Any) -> None:
        await anyio.sleep_forever()

    def block(*args: Any) -> None:
        gate.wait(PATIENCE)

    app = stage(succeed, hooks={"success": hang if kind == "async" else block})
    async with posting(app, ManualClock(), timeout=0.01) as post:
        post.courier.deliver([SUCCESS])
        _, ((_, error, _),) = await post.settled(1)
    gate.set()

    assert error == "the hook took longer than 0.01 s"


@pytest.mark.parametrize("is_async", [True, False])
async def test_hooks_that_run_although_their_time_is_up_are_known(stage: StageApp, is_async: bool) -> None:
    clock, gate, entered = ManualClock(), threading.Event(), threading.Event()

    async def swallow(*args: Any) -> None:
        entered.set()
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(gate.wait, PATIENCE)

    def hang(*args: Any) -> None:
        entered.set()
        assert gate.wait(PATIENCE)

    app = stage(succeed, hooks={"success": swallow if is_async else hang})
    # On a busy machine a thread may need a while to begin.
    async with posting(app, clock, timeout=0.9) as post:
        post.courier.deliver([SUCCESS])
        assert await anyio.to_thread.run_sync(entered.wait, PATIENCE)
        before = post.courier.late()
        clock.advance(1)
        late = post.courier.late()
        gate.set()
        await post.settled(1)
        await until(lambda: not post.courier.late())

    assert before == []
    assert [(call.seq, call.is_async) for call in late] == [(SUCCESS.seq, is_async)]


def suspected(*numbers: int) -> list[Delivery]:
    return [SUCCESS._replace(seq=number, deaths=1) for number in numbers]


async def test_what_is_told_apart_keeps_no_other_event_waiting(stage: StageApp) -> None:
    app = stage(succeed, hooks={"success": lambda *args: None})
    async with posting(app, ManualClock()) as post:
        gate = post.quarantine.wait()
        before = post.courier.demand()
        count = post.quarantine.room(is_deadly=False)
        post.courier.deliver(suspected(*range(count)))
        waiting = post.courier.demand(), post.courier.tasks
        gate.set()
        await post.settled(count)

    assert waiting == (before, ("mail",))
    assert post.courier.demand() == before


async def test_progress_hooks_that_take_all_threads_keep_no_hook_waiting(stage: StageApp) -> None:
    gate = threading.Event()
    app = stage(succeed, hooks={"success": lambda *args: None})
    async with posting(app, ManualClock()) as post, anyio.create_task_group() as group:
        for _ in range(MOST_THREADS):
            group.start_soon(invoke.in_thread, gate.wait)
        post.courier.deliver([SUCCESS])
        delivered, failed = await post.settled(1)
        gate.set()

    assert (delivered, failed) == ([SUCCESS], [])


async def test_a_hook_for_which_there_is_no_thread_is_put_off_and_charged_with_nothing(
    stage: StageApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(*args: Any, **more: Any) -> NoReturn:
        raise RuntimeError("can't start new thread")

    app = stage(succeed, hooks={"success": lambda *args: None})
    monkeypatch.setattr("anyio.to_thread.run_sync", refuse)
    async with posting(app, ManualClock()) as post:
        post.courier.deliver([SUCCESS._replace(seq=1), SUCCESS._replace(seq=2)])
        delivered, failed = await post.settled(2)

    assert delivered == []
    assert [error for _, error, _ in failed] == [None, None]
    assert [record.getMessage() for record in caplog.records] == [
        "hooks have to wait: can't start new thread; raise the limit of threads (ulimit -u), or end some"
    ]


async def test_one_thread_that_is_to_be_had_tells_all(
    stage: StageApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain, free = anyio.to_thread.run_sync, anyio.Semaphore(1)

    async def run_one(function: Callable[[], Any], **more: Any) -> Any:
        if "limiter" not in more or not free.value:
            raise RuntimeError("can't start new thread")
        async with free:
            return await plain(function, **more)

    app = stage(succeed, hooks={"success": lambda *args: None})
    many = [SUCCESS._replace(seq=number) for number in range(1, 101)]
    async with posting(app, ManualClock()) as post:
        monkeypatch.setattr("anyio.to_thread.run_sync", run_one)
        post.courier.deliver(many)
        delivered, failed = await post.settled(100)

    assert (sorted(delivery.seq for delivery in delivered), failed) == (list(range(1, 101)), [])
    assert len(caplog.records) == 1


async def test_without_threads_async_hooks_are_told_all_the_same(
    stage: StageApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*args: Any, **more: Any) -> NoReturn:
        raise RuntimeError("can't start new thread")

    async def hear(*args: Any) -> None: ...

    app = stage(succeed, hooks={"success": hear, "add": lambda *args: None})
    monkeypatch.setattr("anyio.to_thread.run_sync", refuse)
    sync = [SUCCESS._replace(seq=number, kind=EventKind.ADD) for number in range(MESSENGERS)]
    others = [SUCCESS._replace(seq=100 + number) for number in range(50)]
    async with posting(app, ManualClock()) as post:
        post.courier.deliver([*sync, *others])
        delivered, failed = await post.settled(len(sync) + len(others))

    assert sorted(delivery.seq for delivery in delivered) == [delivery.seq for delivery in others]
    assert sorted(delivery.seq for delivery, _, _ in failed) == [delivery.seq for delivery in sync]


async def test_suspects_that_are_not_called_soon_are_left_to_others(stage: StageApp) -> None:
    """Each death of a worker is held against all that it had: who only waits there shall not be among them."""
    app = stage(succeed, hooks={"success": lambda *args: None})
    async with posting(app, ManualClock()) as post:
        gate = post.quarantine.wait()
        room = post.quarantine.room(is_deadly=False)
        post.courier.deliver(suspected(*range(room + 10)))
        delivered, put_off = await post.settled(10)
        gate.set()
        told, failed = await post.settled(room)

    assert (delivered, failed) == ([], [])
    assert [delivery.seq for delivery, _, _ in put_off] == list(range(room, room + 10))
    assert all(error is None and next_at is not None and next_at > START for _, error, next_at in put_off)
    assert sorted(delivery.seq for delivery in told) == list(range(room))


async def test_without_a_child_no_suspect_is_held_and_one_is_seen_to(stage: StageApp) -> None:
    app = stage(succeed, hooks={"success": lambda *args: None})
    async with posting(app, ManualClock()) as post:
        prepared = anyio.Event()

        async def prepare() -> None:
            post.quarantine.is_ready = True
            prepared.set()

        post.quarantine.is_ready = False
        post.quarantine.prepare = prepare  # type: ignore[method-assign]
        post.courier.deliver(suspected(1))
        delivered, ((put_off, error, _),) = await post.settled(1)
        with anyio.fail_after(PATIENCE):
            await prepared.wait()

    assert (delivered, put_off.seq, error) == ([], 1, None)
    assert post.quarantine.called == []
    assert post.quarantine.room(is_deadly=False) > 0


def test_the_longer_calls_take_the_fewer_suspects_are_held() -> None:
    quarantine = FakeQuarantine()
    rooms = []
    for seconds in (0.0, 0.01, 0.1, 1.0, 60.0):
        quarantine._typical[False] = seconds
        rooms.append(quarantine.room(is_deadly=False))

    assert rooms == [MOST_SUSPECTS, 200, 20, MOST_AT_ONCE, MOST_AT_ONCE]
    assert quarantine.room(is_deadly=True) == 1


async def test_of_a_task_whose_hook_ends_its_process_only_so_many_events_are_taken(stage: StageApp) -> None:
    first, gate = anyio.Event(), anyio.Event()

    async def end(path: str, delivery: Delivery) -> Called:
        if not first.is_set():
            first.set()
            return Called("ended", did_harm=True)
        await gate.wait()
        return Called("ended", did_harm=True)

    app = stage(succeed, hooks={"success": lambda *args: None})
    async with posting(app, ManualClock()) as post:
        post.quarantine.fate = end
        post.courier.deliver(suspected(1))
        await post.settled(1)
        # New ones, of which nothing is known but their hook.
        post.courier.deliver([SUCCESS._replace(seq=2 + number) for number in range(MOST_HELD)])
        many = post.courier.tasks
        gate.set()
        await post.settled(MOST_HELD)

    assert many == ()
    assert post.courier.tasks == ("mail",)


async def test_a_hook_that_has_ended_its_process_keeps_no_innocent_one_waiting(stage: StageApp) -> None:
    gate, calls = anyio.Event(), Counter[int]()

    async def call(path: str, delivery: Delivery) -> Called:
        calls[delivery.kind] += 1
        if delivery.kind == EventKind.SUCCESS:
            return Called(None)
        if calls[EventKind.ADD] > 1:
            await gate.wait()
        return Called("ended", did_harm=True)

    app = stage(succeed, hooks={"add": lambda *args: None, "success": lambda *args: None})
    async with posting(app, ManualClock()) as post:
        post.quarantine.fate = call
        # All of them have a place.
        post.quarantine._typical = {True: 0.0, False: 0.0}
        for number in range(0, 20, 2):
            post.courier.deliver([SUCCESS._replace(seq=number, deaths=1, kind=EventKind.ADD)])
            post.courier.deliver(suspected(number + 1))
        # The first of the others, and all of these.
        delivered, failed = await post.settled(11)
        busy = calls[EventKind.ADD]
        gate.set()
        await post.settled(9)

    assert (len(delivered), len(failed)) == (10, 1)
    assert busy <= 2


async def test_a_hook_that_has_ended_its_process_is_called_apart_until_it_does_no_harm(stage: StageApp) -> None:
    told = Told()
    fates = [Called("ended", did_harm=True), Called("bad"), Called(None)]

    async def call(path: str, delivery: Delivery) -> Called:
        return fates.pop(0)

    app = stage(succeed, hooks={"success": told.hook("here")})
    async with posting(app, ManualClock()) as post:
        post.quarantine.fate = call
        results = []
        for number in (1, 2, 3):
            post.courier.deliver([SUCCESS._replace(seq=number, deaths=number == 1)])
            results.append(await post.settled(1))

    # The second, whose call failed and did no harm, has lifted it.
    assert ([seq for _, seq in post.quarantine.called], [call[0] for call in told.calls]) == ([1, 2], ["here"])
    assert [[one.deaths for one, _, _ in failed] for _, failed in results] == [[1], [0], []]


async def test_what_nobody_had_time_for_is_left_to_others(stage: StageApp) -> None:
    async def call(path: str, delivery: Delivery) -> Called:
        raise NoChild("the worker ends")

    app = stage(succeed, hooks={"success": lambda *args: None})
    async with posting(app, ManualClock()) as post:
        post.quarantine.fate = call
        post.courier.deliver(suspected(1))
        await post.news.wait()
        settled = post.courier.settled()

        assert settled == ([], [])
        assert post.courier.is_idle


async def test_a_hook_that_is_not_configured_any_more_counts_as_told(stage: StageApp) -> None:
    app = stage(succeed)
    async with posting(app, ManualClock()) as post:
        post.courier.deliver([SUCCESS, SUCCESS._replace(task="gone")])
        delivered, failed = await post.settled(2)

    assert (len(delivered), failed) == (2, [])


async def test_an_event_that_comes_while_another_is_told_does_not_wait_for_it(stage: StageApp) -> None:
    second = anyio.Event()

    async def on_success(id: int, response: str) -> None:
        if id == 1:
            await second.wait()
        else:
            second.set()

    app = stage(succeed, hooks={"success": on_success})
    async with posting(app, ManualClock()) as post:
        post.courier.deliver([SUCCESS._replace(id=1)])
        await anyio.wait_all_tasks_blocked()
        post.courier.deliver([SUCCESS._replace(id=2)])
        delivered, _ = await post.settled(2)

    assert sorted(delivery.id for delivery in delivered) == [1, 2]


async def test_only_so_many_hooks_run_at_once_and_all_are_told(stage: StageApp) -> None:
    running, most = 0, 0

    async def on_success(id: int, response: str) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.lowlevel.checkpoint()
        running -= 1

    app = stage(succeed, hooks={"success": on_success})
    async with posting(app, ManualClock()) as post:
        post.courier.deliver([SUCCESS._replace(id=n) for n in range(1, 101)])
        delivered, _ = await post.settled(100)

    assert len(delivered) == 100
    assert most == MESSENGERS


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_hook_that_waits_for_a_cancelled_task_fails_alone(stage: StageApp) -> None:
    async def on_success(id: int, response: str) -> None:
        if id == 1:
            raise asyncio.CancelledError

    app = stage(succeed, hooks={"success": on_success})
    async with posting(app, ManualClock()) as post:
        post.courier.deliver([SUCCESS._replace(id=1), SUCCESS._replace(id=2)])
        delivered, failed = await post.settled(2)

    assert ([told.id for told in delivered], [told.id for told, _, _ in failed]) == ([2], [1])


async def test_context_variables_of_one_hook_do_not_reach_the_next(stage: StageApp) -> None:
    seen: list[str] = []

    async def on_success(id: int, response: str) -> None:
        seen.append(WHO.get())
        WHO.set("leaked")

    app = stage(succeed, hooks={"success": on_success})
    async with posting(app, ManualClock()) as post:
        post.courier.deliver([SUCCESS])
        await post.settled(1)
        post.courier.deliver([SUCCESS])
        await post.settled(1)

    assert seen == ["nobody", "nobody"]


async def test_demand_falls_by_what_is_under_way_and_to_nothing_at_the_end(stage: StageApp) -> None:
    app = stage(succeed)
    async with posting(app, ManualClock()) as post:
        whole = post.courier.demand()
        post.courier.deliver([SUCCESS])
        under_way, idle = post.courier.demand(), post.courier.is_idle
        await post.settled(1)
        after = post.courier.demand()
        post.courier.stop()

    assert (under_way, idle, after) == (whole - 1, False, whole)
    assert (post.courier.demand(), post.courier.is_idle) == (0, True)


async def test_handlers_that_take_all_threads_of_anyio_keep_no_hook_waiting(stage: StageApp) -> None:
    told, gate = threading.Event(), threading.Event()

    async def handler(task_id: int, waits: bool) -> None:
        if waits:
            await anyio.to_thread.run_sync(gate.wait, PATIENCE)

    app = stage(handler, hooks={"success": lambda id, response: told.set()}, worker_nums=50)
    limiter = anyio.to_thread.current_default_thread_limiter()
    async with app.running():
        await app.tasks["mail"].aadd_many([[True]] * int(limiter.total_tokens))
        await until(lambda: limiter.available_tokens == 0)
        await app.acall("tasks.mail.add", False)
        await until(told.is_set)
        gate.set()
