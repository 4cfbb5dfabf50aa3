"""The event loop of a process that runs users' code on it, and that nothing there shall end unnoticed."""

from __future__ import annotations

import asyncio
import sys
from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable
from contextvars import ContextVar, copy_context
from typing import NoReturn, TypeVar

import anyio

T = TypeVar("T")

# Where it is installed, anyio asks it on which kind of loop it is; it knows by itself in tasks, but not in callbacks.
_library: ContextVar[str | None] | None = getattr(sys.modules.get("sniffio"), "current_async_library_cvar", None)


def run(work: Callable[[], Awaitable[None]], on_end: Callable[[BaseException], NoReturn]) -> None:
    """Run `work` on a loop of asyncio; `on_end` is told when a task ends that loop, before the work itself has ended.

    A SystemExit, or a KeyboardInterrupt, does that, and so does its `stop`. Otherwise asyncio would cancel all other
    tasks then, and each would seem to have failed by itself.
    """
    is_over = False

    async def work_to_the_end() -> None:
        nonlocal is_over
        try:
            await work()
        finally:
            is_over = True

    def watched_loop() -> AbstractEventLoop:
        loop = asyncio.new_event_loop()
        run_forever = loop.run_forever

        def run_to_the_end() -> None:
            try:
                run_forever()
            except (SystemExit, KeyboardInterrupt) as error:
                if is_over:
                    raise
                on_end(error)
            if not is_over:
                on_end(RuntimeError("the loop was stopped"))

        loop.run_forever = run_to_the_end  # type: ignore[method-assign]
        return loop

    anyio.run(work_to_the_end, backend_options={"loop_factory": watched_loop})


class KeptLoop:
    """A loop of asyncio that stays: what one call has left on it, a client with its connections, is there for the next.

    `on_end` is told when a task that an earlier call has left there ends it, before the present one has ended. Where
    that itself does, or stops it, the next one has another. Belongs to one thread.
    """

    def __init__(self, on_end: Callable[[BaseException], NoReturn]) -> None:
        self._on_end = on_end
        self._runner = asyncio.Runner()
        # Made when it is first needed.
        self._loop: AbstractEventLoop | None = None
        # Those that were ended, with what is left there, whose end may be long in coming.
        self._given_up: list[AbstractEventLoop] = []

    def run(self, value: Awaitable[T]) -> T:
        """Await something there."""
        is_over = False

        async def to_the_end() -> T:
            nonlocal is_over
            try:
                return await value
            finally:
                is_over = True

        if self._is_closed:
            self._runner = asyncio.Runner()
        self._loop, inside = self._runner.get_loop(), copy_context()
        if _library is not None:
            inside.run(_library.set, "asyncio")
        left = asyncio.all_tasks(self._loop)
        try:
            return self._runner.run(to_the_end(), context=inside)
        except BaseException as error:
            if not is_over:
                if any(task.done() and not task.cancelled() and task.exception() is error for task in left):
                    self._on_end(error)
                # What is left there is not waited for: that it never ended is no news.
                self._loop.set_exception_handler(lambda loop, about: None)
                self._given_up.append(self._loop)
                self._runner, self._loop = asyncio.Runner(), None
            raise

    @property
    def _is_closed(self) -> bool:
        """Whether users' code has done that."""
        return self._loop is not None and self._loop.is_closed()

    def close(self) -> None:
        """Cancel what was left there, and wait for its end."""
        if not self._is_closed:
            self._runner.close()
        for loop in self._given_up:
            loop.close()
