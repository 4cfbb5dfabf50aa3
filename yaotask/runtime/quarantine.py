"""Calling hooks in child processes: those that may have ended a worker, or have ended a child."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

import anyio

from yaotask.channel import Message
from yaotask.clock import Clock
from yaotask.events import Delivery
from yaotask.runtime.childprocess import ChildProcess
from yaotask.runtime.children import Children, NoChild
from yaotask.runtime.upbringing import ended

log = logging.getLogger(__name__)

# So many at the same time, and one of those that have ended a child: any may be too much for the machine.
MOST_AT_ONCE = 2
# Events of one task with hooks that have ended a child before no more of that task are taken.
MOST_HELD = 100
# Of events that may have ended a worker, no more are held than can be called in about so many seconds: if this worker
# dies too, none shall be charged with it that only waited here.
SOON, MOST_SUSPECTS = 1.0, 256
# How much the last call counts for how long the next will take.
NEWS = 0.5


class Called(NamedTuple):
    """What went wrong, or None; and whether the process had to end for it."""

    error: str | None
    did_harm: bool = False


class Quarantine:
    """There a hook that ends its process, or blocks it, harms nothing else, and keeps few others waiting.

    Its children are its own, and are lent as long as hooks are called: to the last, when no job runs any more.
    """

    def __init__(self, children: Children, timeout: float, clock: Clock) -> None:
        self.children = children
        # Whether a child was there when it was last looked for one.
        self.is_ready = False
        self._is_preparing = False
        self._timeout = timeout
        self._clock = clock
        # About how many seconds a call takes, of hooks that do harm and of others.
        self._typical = {True: SOON, False: SOON}
        # The hooks, by their paths, that have ended a child and did harm when they were last called.
        self._deadly: set[str] = set()
        self._places = anyio.Semaphore(MOST_AT_ONCE)
        self._place_of_the_deadly = anyio.Semaphore(1)
        # Of all that is here its task and path, by its number, and what may have ended a worker. Belongs to the
        # ledger's thread.
        self._held: dict[int, tuple[str, str]] = {}
        self._suspects: set[int] = set()

    # --- the ledger's side --------------------------------------------------------------------------

    def takes(self, path: str, delivery: Delivery) -> bool:
        """Whether this is to be called here, and nowhere else."""
        return delivery.deaths > 0 or path in self._deadly

    def hold(self, path: str, delivery: Delivery) -> bool:
        """Take it in until it is released; False where others shall have it, or we later."""
        if delivery.deaths > 0:
            # Those of hooks that do harm wait for a place of their own, and keep none of the others out.
            is_deadly = path in self._deadly
            like = sum((self._held[seq][1] in self._deadly) == is_deadly for seq in self._suspects)
            if like >= self.room(is_deadly=is_deadly):
                return False
            self._suspects.add(delivery.seq)
        self._held[delivery.seq] = delivery.task, path
        return True

    def room(self, *, is_deadly: bool) -> int:
        """How many that may have ended a worker are held at the same time: none before there is a child for them."""
        if not self.is_ready:
            return 0
        places = 1 if is_deadly else MOST_AT_ONCE
        return min(max(places, int(places * SOON / max(self._typical[is_deadly], 0.001))), MOST_SUSPECTS)

    def release(self, deliveries: Collection[Delivery]) -> None:
        """These are settled, whether they were here or not."""
        if self._held:
            for delivery in deliveries:
                self._held.pop(delivery.seq, None)
                self._suspects.discard(delivery.seq)

    @property
    def held(self) -> int:
        """How many events are here."""
        return len(self._held)

    @property
    def full(self) -> Collection[str]:
        """The tasks of which too many wait here."""
        if not self._held:
            return ()
        deadly = Counter(task for task, path in self._held.values() if path in self._deadly)
        return [task for task, many in deadly.items() if many >= MOST_HELD]

    # --- the loop's side ----------------------------------------------------------------------------

    async def prepare(self) -> None:
        """See to a child before anything is held that it is for."""
        if self._is_preparing:
            return
        self._is_preparing = True
        try:
            while not (self.is_ready or self.children.is_stopped):
                try:
                    self.children.put(await self._take())
                except NoChild:
                    await self.children.pause()
        finally:
            self._is_preparing = False

    async def _take(self) -> ChildProcess:
        try:
            child = await self.children.take()
        except NoChild:
            self.is_ready = False
            raise
        self.is_ready = True
        return child

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
        child = await self._take()
        begun, is_deadly = self._clock.monotonic(), path in self._deadly
        try:
            called = await self._call_in(child, path, delivery)
            self._typical[is_deadly] += NEWS * (self._clock.monotonic() - begun - self._typical[is_deadly])
            return called
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
