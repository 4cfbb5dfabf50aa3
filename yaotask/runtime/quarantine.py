"""Calling hooks in child processes: those that may have ended a worker, or have ended a child."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

import anyio

from yaotask.channel import Message
from yaotask.events import Delivery
from yaotask.runtime.childprocess import ChildProcess
from yaotask.runtime.children import Children, NoChild
from yaotask.runtime.upbringing import ended

log = logging.getLogger(__name__)

# So many at the same time, and one of those that have ended a child: any may be too much for the machine.
MOST_AT_ONCE = 2
# Events of one task with hooks that have ended a child, and all events of one, before no more of that task are taken.
MOST_HELD, MOST_OF_ALL = 100, 1_000


class Called(NamedTuple):
    """What went wrong, or None; and whether the process had to end for it."""

    error: str | None
    did_harm: bool = False


class Quarantine:
    """There a hook that ends its process, or blocks it, harms nothing else, and keeps few others waiting.

    Its children are its own, and are lent as long as hooks are called: to the last, when no job runs any more.
    """

    def __init__(self, children: Children, timeout: float) -> None:
        self.children = children
        self._timeout = timeout
        # The hooks, by their paths, that have ended a child and did harm when they were last called.
        self._deadly: set[str] = set()
        self._places = anyio.Semaphore(MOST_AT_ONCE)
        self._place_of_the_deadly = anyio.Semaphore(1)
        # Of all that is here its task and path, by its number. Belongs to the ledger's thread.
        self._held: dict[int, tuple[str, str]] = {}

    # --- the ledger's side --------------------------------------------------------------------------

    def takes(self, path: str, delivery: Delivery) -> bool:
        """Whether this is to be called here; then it is held until it is released."""
        is_ours = delivery.deaths > 0 or path in self._deadly
        if is_ours:
            self._held[delivery.seq] = delivery.task, path
        return is_ours

    def release(self, deliveries: Collection[Delivery]) -> None:
        """These are settled, whether they were here or not."""
        if self._held:
            for delivery in deliveries:
                self._held.pop(delivery.seq, None)

    @property
    def held(self) -> int:
        """How many events are here."""
        return len(self._held)

    @property
    def full(self) -> Collection[str]:
        """The tasks of which too many wait here."""
        if not self._held:
            return ()
        held = Counter(task for task, _ in self._held.values())
        deadly = Counter(task for task, path in self._held.values() if path in self._deadly)
        return [task for task, many in held.items() if many >= MOST_OF_ALL or deadly[task] >= MOST_HELD]

    # --- the loop's side ----------------------------------------------------------------------------

    async def call(self, path: str, delivery: Delivery) -> Called:
        """Call a hook. Raises NoChild where the worker ends before it has returned."""
        while True:
            place = self._place_of(path)
            async with place:
                # What it is known for may have changed while it waited.
                if place is self._place_of(path):
                    return await self._call(path, delivery)

    def _place_of(self, path: str) -> anyio.Semaphore:
        return self._place_of_the_deadly if path in self._deadly else self._places

    async def _call(self, path: str, delivery: Delivery) -> Called:
        while True:
            try:
                called = await self._call_once(path, delivery)
            except NoChild:
                if self.children.is_stopped:
                    raise
                await self.children.pause()
                continue
            if called.did_harm:
                self._deadly.add(path)
            else:
                self._deadly.discard(path)
            return called

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
                last = await child.call_hook(path, delivery)
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
