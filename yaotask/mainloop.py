"""The event loop of a process that runs users' code on it, and that nothing there shall end unnoticed."""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable
from typing import NoReturn

import anyio


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
