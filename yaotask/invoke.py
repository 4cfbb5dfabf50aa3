"""Calling users' functions: on the loop, or in a thread, each in a context of its own."""

from __future__ import annotations

import asyncio
import inspect
import math
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from types import coroutine
from typing import Any, Literal, NoReturn, TypeVar, cast

import anyio
import anyio.to_thread
from anyio.lowlevel import EventLoopToken, RunVar, current_token

from yaotask.bell import Bell
from yaotask.mainloop import KeptLoop
from yaotask.resolve import Resolver
from yaotask.signatures import Parameters

T = TypeVar("T")
Function = Callable[..., Any]
Executor = Literal["async", "thread", "process"]

# So many sync functions of users are called from a loop at the same time.
MOST_THREADS = 40
_threads: RunVar[anyio.CapacityLimiter] = RunVar("_threads")
_hears_signals: RunVar[bool] = RunVar("_hears_signals")


@dataclass(frozen=True, slots=True)
class Handler:
    """A function that does the work of a task, and where it runs: on the loop, in a thread, or in a child process."""

    function: Function
    parameters: Parameters
    executor: Executor

    @classmethod
    def find(cls, resolver: Resolver, path: str, executor: str | None = None) -> Handler:
        """What a definition's `process` and `executor` name. Raises HandlerNotFound."""
        function = resolver.resolve(path)
        return cls(function, Parameters.of(function), cast(Executor, executor) if executor else suited(function))

    @property
    def holds_a_thread(self) -> bool:
        """Whether it runs in a thread of the worker, and not beside others on its loop."""
        return self.executor == "thread"


def suited(function: Function) -> Executor:
    """Where a function runs whose definition does not say it."""
    return "async" if is_async(function) else "thread"


def is_async(function: Function) -> bool:
    """Whether calling it gives a coroutine."""
    call = getattr(function, "__call__", None)  # noqa: B004 - an object may be called through an async method
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def on_loop() -> bool:
    """Whether this thread runs an event loop, which must not be blocked."""
    try:
        current_token()
    except RuntimeError:
        # In a callback, which is in no task, anyio may not know.
        return asyncio._get_running_loop() is not None
    return True


def has_ended(loop: EventLoopToken) -> bool:
    """Whether nothing can run on a loop any more; of those of asyncio."""
    native = loop.native_token
    return isinstance(native, asyncio.AbstractEventLoop) and native.is_closed()


def call(function: Function, /, *args: Any, **kwargs: Any) -> Any:
    """Call a function from a thread without a loop; what an async one does is waited for, as by `wait_for`."""
    value = function(*args, **kwargs)
    return wait_for(value) if inspect.isawaitable(value) else value


def wait_for(value: Awaitable[T]) -> T:
    """Await something in a thread without a loop: on the one that this thread keeps, or else on one of its own."""
    kept = _here.kept
    return anyio.run(_awaited, value) if kept is None or on_loop() else kept.run(value)


async def _awaited(value: Awaitable[T]) -> T:
    return await value


class _Here(threading.local):
    kept: KeptLoop | None = None


_here = _Here()


@contextmanager
def keeping_a_loop(on_end: Callable[[BaseException], NoReturn]) -> Iterator[None]:
    """Inside, all async functions that this thread calls run on one and the same loop; `on_end` as of KeptLoop."""
    kept = _here.kept = KeptLoop(on_end)
    try:
        yield
    finally:
        _here.kept = None
        kept.close()


async def stoppable(value: Awaitable[T], stops_by: Callable[[Callable[[], None]], None]) -> T:
    """Await something on a loop of asyncio; what `stops_by` is given cancels it, from any thread.

    Once, and not at each thing that it awaits then, as a scope does: one that goes on all the same shall not take the
    processor for that. Raises CancelledError.
    """
    task, is_over, is_stopped = asyncio.current_task(), False, False

    def stop() -> None:
        nonlocal is_stopped
        if not is_over and task is not None:
            is_stopped = task.cancel()

    stops_by(partial(Bell.of_this_loop().call, stop))
    try:
        return await value
    finally:
        is_over = True
        if is_stopped and task is not None:
            task.uncancel()


async def acall(function: Function, /, *args: Any, **kwargs: Any) -> Any:
    """Call a function from a loop; one that is not async runs in a thread.

    What it does to context variables stays inside. When this is cancelled, a thread goes on by itself
    and what it returns is dropped.
    """
    if is_async(function):
        inside = copy_context()
        return await drive(inside, inside.run(function, *args, **kwargs))
    return await in_thread(partial(call, function, *args, **kwargs))


async def in_thread(function: Callable[[], T], threads: anyio.CapacityLimiter | None = None) -> T:
    """Call a function in a thread, which goes on by itself when this is cancelled.

    `threads` says of how many it is one. Else those threads are ours: handlers that take all of anyio's own, which are
    few, keep no hook waiting.
    """
    if threads is not None:
        return await anyio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=threads)
    try:
        threads = _threads.get()
    except LookupError:
        threads = anyio.CapacityLimiter(MOST_THREADS)
        _threads.set(threads)
    return await anyio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=threads)


def is_interrupt(error: BaseException) -> bool:
    """Whether somebody may have pressed Ctrl-C, which must end whoever runs the loop.

    Only on a loop that leaves signals to Python; elsewhere users' code has raised it, and it is an error as any other.
    """
    return isinstance(error, KeyboardInterrupt) and on_loop() and not _hears_signals.get(False)


def expect_no_interrupt() -> None:
    """Whoever runs this loop hears signals in another way."""
    _hears_signals.set(True)


def ends_us(error: BaseException) -> bool:
    """Whether a call that raised this was ended by a cancellation of its caller, which must go on its way.

    Users' functions raise the like by themselves too: whoever waits for an asyncio task that somebody
    cancelled gets its CancelledError. That is an error as any other. To be asked on the loop.
    """
    kind = anyio.get_cancelled_exc_class()
    group = isinstance(error, BaseExceptionGroup) and error.subgroup(kind) is not None
    return (group or isinstance(error, kind)) and anyio.current_effective_deadline() == -math.inf


def own_task() -> asyncio.Task[Any] | None:
    """The task of asyncio that runs here; None on a loop of another kind."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


async def forget_cancels(task: asyncio.Task[Any]) -> None:
    """What a job has left of cancellations in the task that ran it, ours, is nothing of the next one's.

    A task that counts as being cancelled has asyncio's own task groups cancel it again and again.
    """
    if anyio.current_effective_deadline() == -math.inf:
        return
    while task.cancelling():
        task.uncancel()
    try:
        # One may be on its way still.
        await asyncio.sleep(0)
    except asyncio.CancelledError as error:
        if ends_us(error):
            raise


def takes_back(error: BaseException) -> bool:
    """Whether this is a cancellation that nobody of ours has asked for; the task that got it may go on.

    A handler's task is ours, and runs others later: users' code that keeps it, as a watchdog does, may cancel it then.
    """
    task = asyncio.current_task() if isinstance(error, asyncio.CancelledError) else None
    if task is None or ends_us(error):
        return False
    task.uncancel()
    return True


async def drive(context: Context, started: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end, every step of it in `context`.

    A task of its own would do the same for five times the cost. One that ends without waiting for
    anything ends here without giving way to other tasks.
    """
    try:
        waits_for = context.run(started.send, None)
    except StopIteration as stop:
        return stop.value
    return await _resume(context, started, waits_for)


@coroutine
def _resume(context: Context, started: Coroutine[Any, Any, Any], waits_for: Any) -> Generator[Any, Any, Any]:
    while True:
        try:
            answer = yield waits_for
        except BaseException as error:  # noqa: BLE001 - cancellation too: it is the coroutine's to handle
            step: Callable[[], Any] = partial(started.throw, error)
        else:
            step = partial(started.send, answer)
        try:
            waits_for = context.run(step)
        except StopIteration as stop:
            return stop.value
