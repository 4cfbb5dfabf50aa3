"""How a worker says that it is well, or what hangs in it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Any, NoReturn

import anyio
import anyio.to_thread
import pytest
from pulse_support import CANCEL_GRACE, HOOK_TIMEOUT, Beat, Shifted, Supervisor, worker
from run_support import until
from runtime_support import PATIENCE, StageApp, a_job, ended, query

from yaotask import App
from yaotask.channel import Channel
from yaotask.clock import SystemClock
from yaotask.jobs import JobState
from yaotask.runtime import pulse
from yaotask.runtime.calling import Call
from yaotask.runtime.hooks import MESSENGERS
from yaotask.runtime.pool import Pool
from yaotask.runtime.pulse import Pulse

pytest_plugins = ["runtime_fixtures"]

TIMEOUT = 20
WELL: Beat = {"ended": {}, "zombies": {}, "stuck": {}, "blocked": None}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats come soon; how long something takes is the test's clock's to say."""
    monkeypatch.setattr(pulse, "EVERY", 0.01)
    monkeypatch.setattr(pulse, "TURN", 0.01)


@pytest.fixture
def supervisor() -> Supervisor:
    return Supervisor(Shifted())


def is_blocked(beat: Beat) -> bool:
    return beat["blocked"] is not None


async def heard(supervisor: Supervisor, look: Any) -> Beat:
    """Like `hears`, while the loop turns."""
    return await anyio.to_thread.run_sync(supervisor.hears, look)


# --- well ------------------------------------------------------------------------------------------


def test_a_process_without_pools_says_that_it_lives(supervisor: Supervisor) -> None:
    near, far = Channel.pair()
    pulse = Pulse(near, supervisor.clock)
    with closing(Channel(far)) as other, supervisor.hearing(other), closing(near), pulse.beating():
        beat = supervisor.hears(lambda beat: True)

    assert beat == WELL


async def test_beats_say_how_attempts_ended() -> None:
    near, far = Channel.pair()
    pulse = Pulse(near, Shifted(), ended=lambda: Counter(success=3))
    with closing(Channel(far)) as other, closing(near), pulse.beating():
        beat = await other.areceive()

    assert beat == {"beat": {**WELL, "ended": {"success": 3}}}


# --- the loop --------------------------------------------------------------------------------------


async def test_a_handler_that_blocks_the_loop_is_named(
    stage: StageApp, supervisor: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Beat] = []

    async def handler(task_id: int) -> None:
        told.append(supervisor.passes(3))

    app = stage(handler, timeout=TIMEOUT)
    with caplog.at_level(logging.WARNING):
        async with worker(app, supervisor):
            await app.acall("tasks.mail.add")
            await ended(app, 1)
            await heard(supervisor, lambda beat: not is_blocked(beat))
    error, *_, turns = caplog.records

    assert (told[0]["blocked"]["job"][0], told[0]["blocked"]["overdue"]) == (1, False)
    assert error.message.startswith("mail.1 has blocked the event loop for")
    assert "in handler" in error.__dict__["yaotask_stack"]
    assert turns.message == "the event loop turns again"


async def test_a_handler_that_blocks_the_loop_past_its_time_is_overdue(stage: StageApp, supervisor: Supervisor) -> None:
    told: list[bool] = []

    async def handler(task_id: int) -> None:
        for seconds in (TIMEOUT, CANCEL_GRACE + 1):
            told.append(supervisor.passes(seconds)["blocked"]["overdue"])

    app = stage(handler, timeout=TIMEOUT)
    async with worker(app, supervisor):
        await app.acall("tasks.mail.add")
        await ended(app, 1)

    assert told == [False, True]


async def test_what_is_no_job_blocks_the_loop_no_longer_than_a_hook_may_take(
    stage: StageApp, supervisor: Supervisor
) -> None:
    async def handler(task_id: int) -> None: ...

    async with worker(stage(handler), supervisor):
        before = supervisor.passes(HOOK_TIMEOUT)["blocked"]
        after = supervisor.passes(CANCEL_GRACE + 1)["blocked"]

    assert before == {"job": None, "overdue": False}
    assert after == {"job": None, "overdue": True}


# What jobs leave on the loop of trio comes in no certain order.
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_jobs_took_before_it_is_not_counted_to_what_is_no_job(
    stage: StageApp, supervisor: Supervisor
) -> None:
    told: list[bool] = []

    def after() -> None:
        told.append(supervisor.passes(HOOK_TIMEOUT)["blocked"]["overdue"])
        told.append(supervisor.passes(CANCEL_GRACE + 1)["blocked"]["overdue"])

    async def handler(task_id: int) -> None:
        asyncio.get_running_loop().call_soon(after)
        supervisor.passes(HOOK_TIMEOUT + CANCEL_GRACE + 1)

    app = stage(handler, timeout=10 * (HOOK_TIMEOUT + CANCEL_GRACE))
    async with worker(app, supervisor):
        await app.acall("tasks.mail.add")
        await ended(app, 1)

    assert told == [False, True]


def state(app: App, id: int) -> tuple[int, int]:
    rows = query(app, "SELECT id, state, attempt FROM yaotask_jobs")
    return next((state, attempt) for found, state, attempt in rows if found == id)


async def test_while_the_loop_is_blocked_what_was_not_started_is_handed_back_and_nothing_claimed(
    stage: StageApp, supervisor: Supervisor
) -> None:
    seen: list[Any] = []

    async def handler(task_id: int) -> None:
        if not seen:
            seen.append(state(app, 2))
            supervisor.passes(3)
            seen.append(until(lambda: state(app, 2) == (JobState.WAITING, 0)))
            seen.append(pool.demand())

    app = stage(handler, worker_nums=2)
    await app.tasks["mail"].aadd_many([[], []])
    async with worker(app, supervisor) as runner:
        (pool,) = runner.pools
        statuses = [(await ended(app, id))["status"] for id in (1, 2)]

    assert seen == [(JobState.RUNNING, 1), True, 0]
    assert statuses == ["SUCCESS", "SUCCESS"]


class Suspended(SystemClock):
    """A clock that has gone on for long before the first look of the pulse."""

    @staticmethod
    def monotonic() -> float:
        return 0.0 if threading.current_thread() is threading.main_thread() else 1_000.0


def test_after_a_process_stood_still_its_loop_gets_a_chance_to_turn(supervisor: Supervisor) -> None:
    near, far = Channel.pair()
    pulse = Pulse(near, Suspended())
    with closing(Channel(far)) as other, supervisor.hearing(other), closing(near), pulse.beating():
        supervisor.hears(is_blocked)
        first, *_ = supervisor.beats

    assert not is_blocked(first)


# --- zombies ---------------------------------------------------------------------------------------


def zombies(count: int) -> Callable[[Beat], bool]:
    return lambda beat: beat["zombies"] == ({"mail": count} if count else {})


@pytest.mark.parametrize(
    ("worker_nums", "stuck"), [(1, {"mail": "handlers that do not end hold all its places"}), (2, {})]
)
async def test_threads_that_hold_all_places_of_a_task_are_told_after_the_grace(
    stage: StageApp, supervisor: Supervisor, worker_nums: int, stuck: dict[str, str]
) -> None:
    released = threading.Event()

    def handler(task_id: int) -> None:
        assert released.wait(PATIENCE)

    app = stage(handler, worker_nums=worker_nums, timeout=0.05)
    async with worker(app, supervisor):
        await app.acall("tasks.mail.add")
        before = await heard(supervisor, zombies(1))
        after = await anyio.to_thread.run_sync(supervisor.passes, CANCEL_GRACE + 1)
        released.set()
        freed = await heard(supervisor, zombies(0))

    assert before["stuck"] == {}
    assert after["stuck"] == stuck
    assert freed["stuck"] == {}


async def test_a_handler_that_swallows_its_cancellation_is_told_after_the_grace(
    stage: StageApp, supervisor: Supervisor
) -> None:
    released = anyio.Event()

    async def handler(task_id: int) -> None:
        with anyio.CancelScope(shield=True):
            await released.wait()

    app = stage(handler, worker_nums=2, timeout=0.05)
    async with worker(app, supervisor):
        await app.acall("tasks.mail.add")
        await heard(supervisor, zombies(1))
        after = await anyio.to_thread.run_sync(supervisor.passes, CANCEL_GRACE + 1)
        released.set()
        await heard(supervisor, zombies(0))

    assert after["stuck"] == {"mail": "a handler goes on although it was cancelled"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_the_death_of_a_thread_that_found_no_memory_is_told_and_its_job_is_given_back(
    stage: StageApp, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(*arguments: Any) -> NoReturn:
        raise MemoryError

    app = stage(lambda task_id: None, worker_nums=2)
    with monkeypatch.context() as patch:
        patch.setattr(Pool, "begin", begin)
        async with worker(app, supervisor):
            before = await heard(supervisor, bool)
            id = await app.acall("tasks.mail.add")
            after = await heard(supervisor, lambda beat: beat["stuck"])
    async with App(app.root) as anew, anew.running():
        job = await ended(anew, id)

    assert before["stuck"] == {}
    assert after["stuck"] == {"mail": "a thread that ran its handlers has died"}
    assert job["status"] == "SUCCESS"


# --- hooks ------------------------------------------------------------------------------------------


async def turning(supervisor: Supervisor, seconds: float) -> Beat:
    """Like `passes`, while the loop turns."""
    return await anyio.to_thread.run_sync(supervisor.passes, seconds)


async def test_a_hook_that_goes_on_although_it_was_cancelled_has_its_worker_replaced(
    stage: StageApp, supervisor: Supervisor
) -> None:
    late = [Call(1, True, 0.0)]

    async def handler(task_id: int) -> None: ...

    async with worker(stage(handler), supervisor, late_hooks=lambda: late):
        told = [await turning(supervisor, seconds) for seconds in (1, CANCEL_GRACE - 2, 3)]
        late.clear()
        after = await turning(supervisor, 1)

    assert [beat["stuck"] for beat in told] == [{}, {}, {"hooks": "one goes on although it was cancelled"}]
    assert after["stuck"] == {}


async def test_many_hooks_that_do_not_end_in_their_threads_have_their_worker_replaced(
    stage: StageApp, supervisor: Supervisor
) -> None:
    late = [Call(number, False, 0.0) for number in range(MESSENGERS)]

    async def handler(task_id: int) -> None: ...

    async with worker(stage(handler), supervisor, late_hooks=lambda: late):
        many = await turning(supervisor, CANCEL_GRACE + 2)
        late.pop()
        fewer = await turning(supervisor, 1)

    assert many["stuck"] == {"hooks": "those that do not end hold too many threads"}
    assert fewer["stuck"] == {}


async def test_progress_hooks_that_do_not_end_are_among_them(stage: StageApp, supervisor: Supervisor) -> None:
    release, told = threading.Event(), threading.Event()

    def hook(id: int, *progress: Any) -> None:
        told.set()
        release.wait(PATIENCE)

    async def handler(task_id: int) -> None: ...

    app = stage(handler, hooks={"progress": hook})
    runner = app.works.runner(())
    (pool,) = runner.pools
    assert pool.desk.herald is not None
    pool.desk.herald._timeout = pool.desk.herald._under_way._timeout = 0.01
    await anyio.to_thread.run_sync(pool.desk.herald.announce, a_job(), (1, 2, None))
    # Its own time began with its thread, later than the time of who waits for it.
    late = await anyio.to_thread.run_sync(until, runner.late_hooks)
    release.set()
    await anyio.to_thread.run_sync(until, lambda: not runner.late_hooks())

    assert told.is_set()
    assert [call.is_async for call in late] == [False]


async def test_while_the_loop_does_not_turn_no_hook_can_end(stage: StageApp, supervisor: Supervisor) -> None:
    told: list[dict[str, str]] = []

    async def handler(task_id: int) -> None:
        for _ in range(2):
            told.append(supervisor.passes(CANCEL_GRACE + 2)["stuck"])

    app = stage(handler)
    async with worker(app, supervisor, late_hooks=lambda: [Call(1, True, 0.0)]):
        await app.acall("tasks.mail.add")
        await ended(app, 1)

    assert told == [{}, {}]
