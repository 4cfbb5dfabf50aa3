"""Calling hooks in child processes: those that may have ended a worker, or have ended a child."""

from __future__ import annotations

import logging
from typing import NamedTuple

import anyio

from yaotask.channel import Message
from yaotask.events import Delivery
from yaotask.runtime.childprocess import ChildProcess
from yaotask.runtime.children import Children, NoChild
from yaotask.runtime.upbringing import ended

log = logging.getLogger(__name__)

# So many at the same time: any of them may be too much for the machine.
MOST_AT_ONCE = 2


class Called(NamedTuple):
    """What went wrong, or None; and whether the process had to end for it."""

    error: str | None
    did_harm: bool = False


class Quarantine:
    """There a hook that ends its process, or blocks it, harms nothing else. Belongs to the loop.

    Its children are its own, and are lent as long as hooks are called: to the last, when no job runs any more.
    """

    def __init__(self, children: Children, timeout: float) -> None:
        self.children = children
        self._timeout = timeout
        self._places = anyio.Semaphore(MOST_AT_ONCE)

    async def call(self, path: str, delivery: Delivery) -> Called:
        """Call a hook. Raises NoChild where the worker ends before it has returned."""
        async with self._places:
            while True:
                try:
                    return await self._call_once(path, delivery)
                except NoChild:
                    if self.children.is_stopped:
                        raise
                await self.children.pause()

    async def _call_once(self, path: str, delivery: Delivery) -> Called:
        child = await self.children.take()
        try:
            return await self._call_in(child, path, delivery)
        finally:
            self.children.put(child)

    async def _call_in(self, child: ChildProcess, path: str, delivery: Delivery) -> Called:
        last: Message | None = None
        try:
            with anyio.move_on_after(self._timeout) as scope:
                last = await child.tell(path, delivery)
        except BaseException:
            child.kill()
            raise
        if scope.cancelled_caught:
            child.kill()
            return Called(f"the hook took longer than {self._timeout:g} s, and its process was ended", did_harm=True)
        name = f"a hook of {delivery.task}.{delivery.id}"
        match last:
            case {"told": error}:
                return Called(None if error is None else str(error))
            case {"refused": reason}:
                child.is_good = False
                self.children.complain(name, reason)
                raise NoChild(reason)
        if last is not None:
            log.error("the process that called %s ends: %s", name, last.get("complaint"))
        fate = await child.fate()
        if self.children.is_stopped:
            raise NoChild("the worker ends")
        return Called(f"WorkerLost: its process ended {ended(fate)} while the hook was called", did_harm=True)
