"""How another thread gets something done on an event loop."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from functools import partial

import anyio
import anyio.lowlevel
import pytest

from yaotask.bell import Bell


def in_a_thread(function: Callable[[], object]) -> None:
    """Run it in another thread, to its end, while the loop stands still."""
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


class Caller:
    """Counts how often the loop is woken, and passes it on."""

    def __init__(self, bell: Bell) -> None:
        self.times = 0
        self._soon = bell._soon
        bell._soon = self  # type: ignore[method-assign]

    def __call__(self, function: Callable[[], object]) -> None:
        self.times += 1
        self._soon(function)


async def test_a_call_from_another_thread_is_made_on_the_loop() -> None:
    bell, done = Bell.of_this_loop(), anyio.Event()
    where: list[threading.Thread] = []

    in_a_thread(lambda: bell.call(lambda: where.append(threading.current_thread())))
    in_a_thread(lambda: bell.call(done.set))
    await done.wait()

    assert where == [threading.current_thread()]


async def test_calls_keep_their_order() -> None:
    bell, done = Bell(), anyio.Event()
    made: list[int] = []

    for number in range(100):
        in_a_thread(partial(bell.call, partial(made.append, number)))
    bell.call(done.set)
    await done.wait()

    assert made == list(range(100))


async def test_many_calls_wake_the_loop_once() -> None:
    bell, done = Bell(), anyio.Event()
    caller = Caller(bell)

    def ring() -> None:
        for _ in range(1_000):
            bell.call(int)
        bell.call(done.set)

    in_a_thread(ring)
    await done.wait()

    assert caller.times == 1


async def test_a_call_made_by_a_call_comes_in_a_later_turn() -> None:
    bell, done = Bell(), anyio.Event()
    caller = Caller(bell)
    made: list[str] = []

    def first() -> None:
        bell.call(lambda: made.append("third"))
        bell.call(done.set)
        made.append("first")

    bell.call(first)
    bell.call(lambda: made.append("second"))
    await done.wait()

    assert made == ["first", "second", "third"]
    assert caller.times == 2


async def test_a_loop_has_one_bell() -> None:
    assert Bell.of_this_loop() is Bell.of_this_loop()


def test_every_loop_has_its_own_bell(anyio_backend: str) -> None:
    async def bell() -> Bell:
        return Bell.of_this_loop()

    assert anyio.run(bell, backend=anyio_backend) is not anyio.run(bell, backend=anyio_backend)


def test_calls_are_dropped_once_the_loop_has_ended(anyio_backend: str) -> None:
    async def bell_of_a_loop() -> Bell:
        return Bell()

    bell = anyio.run(bell_of_a_loop, backend=anyio_backend)
    calls = [threading.Event() for _ in range(3)]
    kept = [weakref.ref(call) for call in calls]

    for call in calls:
        bell.call(call.set)
    asked = [call.is_set() for call in calls]
    del call, calls

    assert asked == [False, False, False]
    assert [reference() for reference in kept] == [None, None, None]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_call_that_raises_does_not_keep_others_waiting(anyio_backend: str) -> None:
    # asyncio tells its handler and goes on; trio ends the whole run.
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(str(context["exception"])))
    bell, done = Bell(), anyio.Event()

    def fail() -> None:
        raise ValueError("no")

    bell.call(fail)
    bell.call(done.set)
    await done.wait()

    assert told == ["no"]


async def test_a_call_for_which_there_is_no_memory_keeps_none_of_the_later_ones_waiting() -> None:
    bell, done = Bell(), anyio.Event()
    soon, tries = bell._soon, iter([MemoryError])

    def fail_once(function: Callable[[], object]) -> None:
        for error in tries:
            raise error
        soon(function)

    bell._soon = fail_once  # type: ignore[method-assign]
    with pytest.raises(MemoryError):
        bell.call(int)
    bell.call(done.set)
    with anyio.fail_after(5):
        await done.wait()


def test_a_loop_that_has_ended_is_let_go() -> None:
    async def ring() -> weakref.ref[asyncio.AbstractEventLoop]:
        Bell.of_this_loop().call(int)
        await anyio.lowlevel.checkpoint()
        return weakref.ref(asyncio.get_running_loop())

    loops = [asyncio.run(ring()) for _ in range(3)]
    gc.collect()

    assert [loop() for loop in loops] == [None] * 3
