"""The event loop of a process that runs users' code on it, and that nothing there shall end unnoticed."""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import NoReturn


def watched(on_end: Callable[[BaseException], NoReturn]) -> AbstractEventLoop:
    """A new loop of asyncio, which tells when a task on it ends it: by a SystemExit, or a KeyboardInterrupt.

    Otherwise asyncio would cancel all other tasks then, and each would seem to have failed by itself.
    """
    loop = asyncio.new_event_loop()
    run_forever = loop.run_forever

    def run_to_the_end() -> None:
        try:
            run_forever()
        except (SystemExit, KeyboardInterrupt) as error:
            on_end(error)

    loop.run_forever = run_to_the_end  # type: ignore[method-assign]
    return loop
