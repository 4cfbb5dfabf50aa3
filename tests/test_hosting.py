"""What goes on beside a block of somebody else's program."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest
from runtime_support import PATIENCE

from yaotask.hosting import Guest, Hosting


def never() -> None:
    raise AssertionError("nobody is in a hurry")


def guest(told: list[object], *, begin: Exception | None = None, end: Exception | None = None) -> Guest:
    """One that tells what it is given at its end."""

    @asynccontextmanager
    async def stay(grace: Callable[[], float]) -> AsyncIterator[None]:
        if begin is not None:
            raise begin
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            try:
                yield
                told.append(grace())
            except BaseException as error:
                told.append(type(error))
                raise
            finally:
                group.cancel_scope.cancel()
        if end is not None:
            raise end

    return stay


def leaving(leave: anyio.Event, error: Exception | None = None) -> Guest:
    """One that goes when it likes."""

    @asynccontextmanager
    async def stay(grace: Callable[[], float]) -> AsyncIterator[None]:
        async with anyio.create_task_group() as group:

            async def go() -> None:
                await leave.wait()
                group.cancel_scope.cancel()

            group.start_soon(go)
            yield
            group.cancel_scope.cancel()
        if error is not None:
            raise error

    return stay


# --- the end of the block -----------------------------------------------------------------------------------------


async def test_a_block_that_ends_gives_its_grace() -> None:
    told: list[object] = []
    async with Hosting(guest(told), 3.0, never):
        during = list(told)

    assert (during, told) == ([], [3.0])


@pytest.mark.parametrize("error", [ValueError("mine"), ExceptionGroup("all of mine", [ValueError(), KeyError()])])
async def test_what_a_block_raises_stays_as_it_is_and_gives_no_grace(error: Exception) -> None:
    told: list[object] = []
    with pytest.raises(type(error)) as raised:
        async with Hosting(guest(told), 3.0, never):
            raise error

    assert raised.value is error
    assert (error.__context__, error.__cause__) == (None, None)
    assert told == [0.0]


async def test_a_cancelled_block_gives_no_grace() -> None:
    told: list[object] = []
    with anyio.move_on_after(0.01) as scope:
        async with Hosting(guest(told), 3.0, lambda: told.append("in a hurry")):
            await anyio.sleep_forever()

    assert scope.cancelled_caught
    assert 0.0 in told


async def test_what_fails_at_the_end_is_raised_there() -> None:
    with pytest.raises(KeyError):
        async with Hosting(guest([], end=KeyError()), 0.0, never):
            pass


async def test_of_two_errors_the_block_has_its_own_and_the_other_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="mine"):
        async with Hosting(guest([], end=KeyError("its")), 0.0, never):
            raise ValueError("mine")

    assert "KeyError: 'its'" in caplog.text


def stays(gate: anyio.Event, entered: anyio.Event) -> Guest:
    """One that takes its time to go."""

    @asynccontextmanager
    async def stay(grace: Callable[[], float]) -> AsyncIterator[None]:
        yield
        entered.set()
        with anyio.CancelScope(shield=True):
            await gate.wait()

    return stay


def test_who_is_interrupted_in_the_grace_hurries_and_is_cancelled_after_it() -> None:
    """As by Ctrl-C: asyncio's own cancellations pass through all scopes."""
    told: list[str] = []

    async def main() -> None:
        gate, entered = anyio.Event(), anyio.Event()

        def hurry() -> None:
            told.append("in a hurry")
            gate.set()

        async def run() -> None:
            try:
                async with Hosting(stays(gate, entered), 3.0, hurry):
                    pass
            finally:
                told.append("gone" if gate.is_set() else "abandoned")

        task = asyncio.create_task(run())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())

    assert told == ["in a hurry", "gone"]


async def test_a_scope_that_is_cancelled_in_the_grace_ends_it() -> None:
    gate, entered = anyio.Event(), anyio.Event()
    async with anyio.create_task_group() as group:

        async def cancel() -> None:
            await entered.wait()
            group.cancel_scope.cancel()

        group.start_soon(cancel)
        async with Hosting(stays(gate, entered), 3.0, gate.set):
            pass
        raise AssertionError

    assert gate.is_set()


async def test_an_error_of_the_block_outlives_a_cancellation_in_the_end_of_the_guest() -> None:
    gate = anyio.Event()
    with pytest.raises(ValueError, match="mine"), anyio.CancelScope() as scope:
        async with Hosting(stays(gate, anyio.Event()), 0.0, gate.set):
            scope.cancel()
            raise ValueError("mine")


async def test_a_guest_that_is_gone_before_a_block_that_never_waits_cancels_nothing_after_it() -> None:
    @asynccontextmanager
    async def gone(grace: Callable[[], float]) -> AsyncIterator[None]:
        async with anyio.create_task_group() as group:
            group.cancel_scope.cancel()
            yield

    async with Hosting(gone, 3.0, never):
        pass
    await anyio.lowlevel.checkpoint()


def test_a_timeout_around_the_grace_is_a_timeout() -> None:
    async def main() -> None:
        gate, entered = anyio.Event(), anyio.Event()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), Hosting(stays(gate, entered), 3.0, gate.set):
                pass

    asyncio.run(main())


def test_a_guest_that_others_cancel_is_missed(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        mine = asyncio.current_task()
        async with Hosting(guest([]), 3.0, never):
            for task in asyncio.all_tasks() - {mine}:
                task.cancel()
            await anyio.sleep_forever()

    with pytest.raises(RuntimeError, match="the task in which jobs were run was cancelled"):
        asyncio.run(main())
    assert caplog.text == ""


# --- the end of the guest -----------------------------------------------------------------------------------------


async def test_one_that_cannot_begin_has_no_block() -> None:
    begun = False
    with pytest.raises(KeyError):
        async with Hosting(guest([], begin=KeyError()), 0.0, never):
            begun = True

    assert not begun


@pytest.mark.parametrize("error", [None, KeyError("its")])
async def test_one_that_goes_by_itself_ends_the_block(error: Exception | None) -> None:
    leave, caught = anyio.Event(), None
    try:
        with anyio.fail_after(PATIENCE):
            async with Hosting(leaving(leave, error), 0.0, never):
                leave.set()
                await anyio.sleep_forever()
    except KeyError as its:
        caught = its
    # Nothing of the cancellation is left.
    await anyio.lowlevel.checkpoint()

    assert caught is error
    assert error is None or error.__suppress_context__


async def test_a_cancellation_of_its_own_goes_on_although_the_guest_has_gone_too() -> None:
    leave = anyio.Event()
    with anyio.CancelScope() as outer:
        async with Hosting(leaving(leave), 0.0, lambda: None):
            leave.set()
            outer.cancel()
            await anyio.sleep_forever()

    assert outer.cancelled_caught


async def test_who_is_cancelled_while_it_begins_leaves_no_guest() -> None:
    ended, entered = anyio.Event(), anyio.Event()

    @asynccontextmanager
    async def slow(grace: Callable[[], float]) -> AsyncIterator[None]:
        entered.set()
        try:
            await anyio.sleep_forever()
            yield
        finally:
            ended.set()

    async def enter() -> None:
        async with Hosting(slow, 0.0, never):
            pass

    async with anyio.create_task_group() as group:
        group.start_soon(enter)
        await entered.wait()
        group.cancel_scope.cancel()

    assert ended.is_set()


# --- other tasks --------------------------------------------------------------------------------------------------


def test_a_block_may_be_entered_and_left_by_different_tasks() -> None:
    """As fixtures of pytest-asyncio are."""
    told: list[object] = []
    hosting = Hosting(guest(told), 3.0, never)

    async def enter() -> None:
        async with asyncio.timeout(PATIENCE):
            await hosting.__aenter__()

    async def leave() -> None:
        await hosting.__aexit__(None, None, None)

    with asyncio.Runner() as loop:
        loop.run(enter())
        loop.run(leave())

    assert told == [3.0]


def test_nobody_is_cancelled_for_a_block_whose_task_has_ended() -> None:
    async def enter() -> tuple[Hosting, anyio.Event]:
        leave = anyio.Event()
        hosting = Hosting(leaving(leave, KeyError()), 3.0, never)
        await hosting.__aenter__()
        return hosting, leave

    async def go_on(hosting: Hosting, leave: anyio.Event) -> str:
        leave.set()
        # It ends meanwhile.
        await hosting._end()
        with pytest.raises(KeyError):
            await hosting.__aexit__(None, None, None)
        return "done"

    with asyncio.Runner() as loop:
        answer = loop.run(go_on(*loop.run(enter())))

    assert answer == "done"
