"""Calling hooks in child processes: those whose last process has died while it had their event, whatever it died of."""

from __future__ import annotations

import anyio

from yaotask.events import LOST, Delivery
from yaotask.runtime.childprocess import ChildProcess
from yaotask.runtime.children import Children, NoChild
from yaotask.runtime.upbringing import ended

# So many at the same time: any of them may be too much for its process.
MOST_AT_ONCE = 4


class Quarantine:
    """There a hook that ends its process, or blocks it, harms nothing else. Belongs to the loop."""

    def __init__(self, children: Children, timeout: float) -> None:
        self._children = children
        self._timeout = timeout
        self._places = anyio.Semaphore(MOST_AT_ONCE)
        self._calls = 0

    @property
    def is_calling(self) -> bool:
        """Whether a hook is being called."""
        return self._calls > 0

    async def call(self, path: str, delivery: Delivery) -> str | None:
        """What went wrong, or None. Raises NoChild where the worker stops before the hook has returned."""
        async with self._places:
            while True:
                try:
                    return await self._call_once(path, delivery)
                except NoChild:
                    if self._children.is_stopped:
                        raise
                await self._children.pause()

    async def _call_once(self, path: str, delivery: Delivery) -> str | None:
        child = await self._children.take()
        self._calls += 1
        try:
            return await self._call_in(child, path, delivery)
        finally:
            self._calls -= 1
            self._children.put(child)

    async def _call_in(self, child: ChildProcess, path: str, delivery: Delivery) -> str | None:
        last = None
        try:
            with anyio.move_on_after(self._timeout) as scope:
                last = await child.tell(path, delivery)
        except BaseException:
            child.kill()
            raise
        if scope.cancelled_caught:
            child.kill()
            return f"{LOST}the hook took longer than {self._timeout:g} s, and its process was ended"
        match last:
            case {"told": error}:
                return None if error is None else str(error)
            case {"refused": reason}:
                child.is_good = False
                name = f"a hook of {delivery.task}.{delivery.id}"
                self._children.complain(name, reason)
                raise NoChild(reason)
        fate = await child.fate()
        if self._children.is_stopped:
            raise NoChild("the worker stops")
        return f"{LOST}its process ended {ended(fate)} while the hook was called"
