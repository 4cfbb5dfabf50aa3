"""What goes on beside a block of somebody else's program: in a task of its own, whose end is the end of the block.

A context manager that holds task groups has to be left by the task that has entered it, and inside all that was
entered before; fixtures of test frameworks do not keep to that, nor do programs with a callback for their start and
one for their end. And what the block raises would come out of a task group as something else.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from contextvars import copy_context
from types import TracebackType
from typing import Any, Protocol

import anyio

log = logging.getLogger(__name__)

# What is given the seconds that work under way may go on when the block is left, once it is.
Guest = Callable[[Callable[[], float]], AbstractAsyncContextManager[None]]

# A loop itself does not keep its tasks from being collected.
_detached: set[asyncio.Task[None]] = set()


class Block(Protocol):
    """The block, as a part of the task that runs it."""

    def cancel(self) -> None:
        """Cancel what goes on in it, if anything does."""
        ...

    def left(self, error: BaseException | None) -> bool:
        """To be said when it is left, by what; whether that comes of `cancel` alone, and is to go no further."""
        ...


class AsyncioBlock:
    """Like asyncio's own timeouts it may be entered and left anywhere."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self._before = task.cancelling()
        self._is_cancelled = False

    def cancel(self) -> None:
        self._is_cancelled = self._task.cancel()

    def left(self, error: BaseException | None) -> bool:
        if not self._is_cancelled or self._task is not asyncio.current_task():
            return False
        return self._task.uncancel() <= self._before and isinstance(error, asyncio.CancelledError)


class ScopedBlock:
    """A block on any other loop."""

    def __init__(self) -> None:
        self._scope = anyio.CancelScope()
        self._scope.__enter__()

    def cancel(self) -> None:
        self._scope.cancel()

    def left(self, error: BaseException | None) -> bool:
        kind, trace = (None, None) if error is None else (type(error), error.__traceback__)
        return bool(self._scope.__exit__(kind, error, trace))


class Hosting(AbstractAsyncContextManager[None]):
    """Has a guest while a block lasts, which is given its `grace`, in seconds, when the block ends without an error.

    Where the guest ends first the block is cancelled, on asyncio as by `task.cancel()`, and what the guest has raised
    is raised after it. Who is cancelled while the guest has its grace says so by `hurry`, and waits for its end.
    """

    def __init__(self, guest: Guest, grace: float, hurry: Callable[[], None]) -> None:
        self._guest = guest
        self._grace = grace
        self._hurry = hurry
        self._block: Block | None = None
        self._failed: BaseException | None = None

    async def __aenter__(self) -> None:
        self._begun, self._over, self._ended = anyio.Event(), anyio.Event(), anyio.Event()
        self._scope = anyio.CancelScope()
        _detach(self._host)
        try:
            await self._begun.wait()
        except BaseException as error:
            self._scope.cancel()
            await self._end(error)
            raise
        if self._failed is not None:
            raise self._failed
        self._block = _block_of_this_task()
        if self._ended.is_set():
            self._block.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if error is not None:
            self._grace = 0.0
        self._over.set()
        interruption = await self._end()
        if not isinstance(error, Exception):
            error = interruption or error
        is_ours = self._block is not None and self._block.left(error)
        if error is not None and not is_ours:
            if self._failed is not None:
                log.error("what went on beside a block that failed has failed, too", exc_info=self._failed)
            if error is interruption:
                raise error
            return False
        if self._failed is not None:
            # What cancelled the block is not the consequence of that.
            self._failed.__suppress_context__ = True
            raise self._failed
        return is_ours

    async def _end(self, interruption: BaseException | None = None) -> BaseException | None:
        """Wait for the end of the guest, which hurries when that is interrupted: the last interruption, if any."""
        while True:
            try:
                # On asyncio it may be interrupted again.
                with anyio.CancelScope(shield=interruption is not None):
                    await self._ended.wait()
                return interruption
            except (anyio.get_cancelled_exc_class(), KeyboardInterrupt) as error:
                interruption = error
                if not self._ended.is_set():
                    self._hurry()

    async def _host(self) -> None:
        try:
            with self._scope:
                async with self._guest(lambda: self._grace):
                    self._begun.set()
                    await self._over.wait()
        except GeneratorExit:
            # The loop was closed over it.
            raise
        except BaseException as error:
            self._failed = error
            if isinstance(error, anyio.get_cancelled_exc_class()):
                # Nobody has asked for it who knows what this task is for; or this is the end of the loop.
                self._failed = RuntimeError("the task in which jobs were run was cancelled")
                raise
        finally:
            self._begun.set()
            self._ended.set()
            if self._block is not None and not self._over.is_set():
                self._block.cancel()


def _block_of_this_task() -> Block:
    task = _asyncio_task()
    return ScopedBlock() if task is None else AsyncioBlock(task)


def _detach(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Start a task of this loop, which belongs to no other."""
    if _asyncio_task() is None:
        importlib.import_module("trio").lowlevel.spawn_system_task(work, context=copy_context())
        return
    task = asyncio.get_running_loop().create_task(work())
    _detached.add(task)
    task.add_done_callback(_detached.discard)


def _asyncio_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
