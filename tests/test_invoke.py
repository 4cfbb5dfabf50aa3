"""Calling users' functions: on the loop or in a thread, each in a context of its own."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NoReturn

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint

from yaotask import invoke

LATEST: contextvars.ContextVar[str] = contextvars.ContextVar("latest", default="nothing")


def drive(function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Coroutine[Any, Any, Any]:
    """Drive a call of the function in a copy of the present context."""
    inside = contextvars.copy_context()
    return invoke.drive(inside, inside.run(function, *args))


# --- which is which ------------------------------------------------------------------------------------


async def plain_async() -> str:
    return "async"


class AsyncCallable:
    async def __call__(self) -> str:
        return "object"


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (plain_async, True),
        (partial(plain_async), True),
        (AsyncCallable(), True),
        (lambda: plain_async(), False),
        (print, False),
    ],
)
def test_what_gives_a_coroutine_is_known_without_calling_it(function: Callable[..., Any], expected: bool) -> None:
    assert invoke.is_async(function) is expected


async def test_a_loop_is_seen_where_it_runs() -> None:
    assert invoke.on_loop()
    assert not await anyio.to_thread.run_sync(invoke.on_loop)


# --- drive ---------------------------------------------------------------------------------------------


async def test_a_coroutine_that_never_waits_ends_without_giving_way() -> None:
    others: list[str] = []

    async def other() -> None:
        others.append("ran")

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        answer = await drive(plain_async)
        before = list(others)

    assert (answer, before, others) == ("async", [], ["ran"])


async def test_a_coroutine_that_waits_gets_what_it_waits_for() -> None:
    async def wait() -> str:
        await checkpoint()
        return await anyio.to_thread.run_sync(str, 7)

    assert await drive(wait) == "7"


async def test_an_exception_passes_before_and_after_a_wait() -> None:
    async def fail(waits: bool) -> None:
        if waits:
            await checkpoint()
        raise KeyError("gone")

    for waits in (False, True):
        with pytest.raises(KeyError, match="gone"):
            await drive(fail, waits)


async def test_every_step_runs_in_the_given_context() -> None:
    seen: list[str] = []

    async def note() -> None:
        LATEST.set("mine")
        await checkpoint()
        seen.append(LATEST.get())

    await drive(note)

    assert seen == ["mine"]
    assert LATEST.get() == "nothing"


async def test_cancellation_from_outside_reaches_it_and_its_cleanup_runs() -> None:
    waiting, told = anyio.Event(), list[str]()

    async def wait() -> None:
        waiting.set()
        try:
            await anyio.sleep_forever()
        finally:
            told.append("cleaned up")

    async with anyio.create_task_group() as group:
        group.start_soon(drive, wait)
        await waiting.wait()
        group.cancel_scope.cancel()

    assert told == ["cleaned up"]


async def test_one_that_swallows_its_cancellation_may_return() -> None:
    async def stubborn() -> str:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            pass
        return "stayed"

    with anyio.CancelScope() as scope:
        scope.cancel()
        answer = await drive(stubborn)

    assert answer == "stayed"


@asynccontextmanager
async def neighbours() -> AsyncIterator[None]:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep_forever)
        yield
        group.cancel_scope.cancel()


async def test_scopes_and_task_groups_work_inside() -> None:
    async def scoped() -> str:
        async with neighbours():
            with anyio.move_on_after(0):
                await anyio.sleep_forever()
            with pytest.raises(TimeoutError), anyio.fail_after(0):
                await anyio.sleep_forever()
        return "left"

    assert await drive(scoped) == "left"


def test_asyncio_s_own_timeouts_and_groups_work_inside() -> None:
    async def native() -> str:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(plain_async())
        return task.result()

    async def main() -> Any:
        return await drive(native)

    assert asyncio.run(main()) == "async"


# --- whose cancellation it is ----------------------------------------------------------------------------


async def test_a_cancellation_of_a_scope_around_it_ends_the_caller() -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(anyio.get_cancelled_exc_class()) as caught:
            await drive(anyio.sleep_forever)
        ends = invoke.ends_us(caught.value)
        ends_in_a_group = invoke.ends_us(BaseExceptionGroup("several", [caught.value, ValueError()]))

    assert (ends, ends_in_a_group) == (True, True)


async def test_an_error_is_no_cancellation_even_when_one_is_under_way() -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        alone, in_a_group = invoke.ends_us(ValueError()), invoke.ends_us(ExceptionGroup("several", [ValueError()]))
        with pytest.raises(anyio.get_cancelled_exc_class()):
            await checkpoint()

    assert (alone, in_a_group) == (False, False)


def test_waiting_for_a_cancelled_task_is_an_error_like_any_other() -> None:
    async def main() -> bool:
        task = asyncio.create_task(asyncio.sleep(9))
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        return invoke.ends_us(caught.value)

    assert not asyncio.run(main())


# --- call and acall ----------------------------------------------------------------------------------------


def test_an_async_function_called_in_a_thread_gets_a_loop_of_its_own() -> None:
    async def add(a: int, *, b: int) -> int:
        await checkpoint()
        return a + b

    assert invoke.call(add, 1, b=2) == 3
    assert invoke.call(max, 1, 2) == 2


def test_what_an_async_function_raises_in_a_thread_passes() -> None:
    async def fail() -> None:
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        invoke.call(fail)


async def test_a_sync_function_is_called_in_a_thread_and_an_async_one_here() -> None:
    async def here() -> threading.Thread:
        return threading.current_thread()

    assert await invoke.acall(here) is threading.current_thread()
    assert await invoke.acall(threading.current_thread) is not threading.current_thread()


@pytest.mark.parametrize("where", ["here", "thread"])
async def test_what_a_function_does_to_context_variables_stays_inside(where: str) -> None:
    async def here() -> None:
        LATEST.set("leaked")

    await invoke.acall(here if where == "here" else lambda: LATEST.set("leaked"))

    assert LATEST.get() == "nothing"


async def test_cancelling_a_call_leaves_its_thread_alone() -> None:
    entered, gate, left = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        entered.set()
        assert gate.wait(10)
        left.set()

    async with anyio.create_task_group() as group:
        group.start_soon(invoke.acall, work)
        await anyio.to_thread.run_sync(entered.wait, 10)
        group.cancel_scope.cancel()
    gone_on = not left.is_set()
    gate.set()

    assert gone_on
    assert await anyio.to_thread.run_sync(left.wait, 10)


# --- a loop that stays --------------------------------------------------------------------------------


def never(error: BaseException) -> NoReturn:
    raise AssertionError from error


async def the_loop() -> object:
    return asyncio.get_running_loop()


def test_a_thread_that_keeps_a_loop_has_one_for_all_calls() -> None:
    elsewhere: list[object] = []
    with invoke.keeping_a_loop(never):
        first, second = invoke.call(the_loop), invoke.call(the_loop)
        thread = threading.Thread(target=lambda: elsewhere.append(invoke.call(the_loop)))
        thread.start()
        thread.join()
    after = invoke.call(the_loop)

    assert first is second
    assert isinstance(first, asyncio.AbstractEventLoop)
    assert first.is_closed()
    assert first not in (*elsewhere, after)


def test_what_one_call_does_to_context_variables_is_not_seen_by_the_next() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    async def count() -> int:
        variable.set(variable.get() + 1)
        return variable.get()

    with invoke.keeping_a_loop(never):
        assert [invoke.call(count), invoke.call(count)] == [1, 1]
        variable.set(7)
        assert invoke.call(count) == 8


def test_tasks_that_are_left_on_a_loop_go_on_with_the_next_call_and_end_with_the_loop() -> None:
    ends: list[str] = []

    async def go_on() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("ended")

    async def leave() -> asyncio.Task[None]:
        task = asyncio.create_task(go_on())
        await asyncio.sleep(0)
        return task

    with invoke.keeping_a_loop(never):
        task = invoke.call(leave)
        invoke.call(the_loop)
        assert not task.done()
    assert ends == ["ended"]


def test_a_loop_that_somebody_has_closed_is_kept_no_more() -> None:
    with invoke.keeping_a_loop(never):
        first = invoke.call(the_loop)
        first.close()
        second = invoke.call(the_loop)
        second.close()

    assert second is not first


def test_callbacks_of_a_loop_that_stays_are_on_a_loop_too() -> None:
    seen: list[object] = []

    async def call_back() -> None:
        over = asyncio.Event()

        def note() -> None:
            seen.extend([invoke.on_loop(), anyio.current_time() > 0])
            over.set()

        asyncio.get_running_loop().call_soon(note)
        await over.wait()

    with invoke.keeping_a_loop(never):
        invoke.call(call_back)
    assert seen == [True, True]


def test_who_ends_a_loop_that_stays_is_told_of_unless_it_is_the_call_itself() -> None:
    class Told(Exception):
        pass

    def tell(error: BaseException) -> NoReturn:
        raise Told(type(error).__name__)

    async def begin(event: asyncio.Event) -> asyncio.Task[None]:
        async def end() -> None:
            await event.wait()
            sys.exit()

        return asyncio.create_task(end())

    async def wait(event: asyncio.Event) -> None:
        event.set()
        await asyncio.sleep(3600)

    async def begin_and_wait() -> None:
        event = asyncio.Event()
        _ = await begin(event)
        await wait(event)

    with invoke.keeping_a_loop(tell):
        for own in (begin_and_wait, raise_exit):
            with pytest.raises(SystemExit):
                invoke.call(own)
        event = asyncio.Event()
        _ = invoke.call(begin, event)
        with pytest.raises(Told, match="SystemExit"):
            invoke.call(wait, event)


async def raise_exit() -> None:
    raise SystemExit


ENDED = """
import asyncio, sys
from yaotask import invoke

async def end():
    sys.exit()

async def wait():
    task = asyncio.create_task(end())
    await asyncio.sleep(3600)

with invoke.keeping_a_loop(sys.exit):
    try:
        invoke.call(wait)
    except SystemExit:
        print("ended")
"""


def test_what_is_left_on_a_loop_that_was_ended_is_no_news_at_the_end_of_its_process() -> None:
    ran = subprocess.run([sys.executable, "-c", ENDED], capture_output=True, text=True, timeout=60, check=False)

    assert (ran.stdout, ran.stderr) == ("ended\n", "")
