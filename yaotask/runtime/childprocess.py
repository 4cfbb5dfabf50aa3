"""A child process of a worker, as its worker sees it: it does one thing at a time, and may die of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import anyio

from yaotask.channel import Message
from yaotask.clock import Clock
from yaotask.events import Delivery
from yaotask.jobs import Claim
from yaotask.processes import Spawned

Hear = Callable[[Mapping[str, Any]], None]

GLANCE = 0.005
# What has let go of its channel, or was told to end, gets so many seconds for it.
PATIENCE = 2.0
SILENCE = "its channel closed or written to by users' code"


class ChildProcess:
    """Belongs to the loop."""

    def __init__(self, spawned: Spawned, clock: Clock) -> None:
        self.jobs = 0
        # Whether it may be given another job.
        self.is_good = True
        self.is_busy = False
        # When it is killed if it has not ended by then.
        self.patience_ends = math.inf
        self._spawned = spawned
        self._clock = clock
        self._scope: anyio.CancelScope | None = None
        # The wait for what it says, which ends where it is to be told something.
        self._listening: anyio.CancelScope | None = None
        # Whether it is to be told that its job is cancelled.
        self._is_cancelled = False
        # Whether users' code has closed or used its channel, so that it had to be killed.
        self._is_silent = False

    @property
    def pid(self) -> int:
        return self._spawned.pid

    async def ready(self) -> str | None:
        """Wait until it can take jobs; None then, or why it cannot."""
        message = await self._receive()
        if message is None:
            return f"it ended with {await self.fate()} before it was ready"
        return message.get("complaint")

    async def run(self, claim: Claim, started: int, hear: Hear) -> Message | None:
        """Run a job there; its last word, or None where the process died before. `hear` takes its progress."""
        return await self._obey({"run": claim, "started": started}, hear)

    async def call_hook(self, path: str, delivery: Delivery) -> Message | None:
        """Call a hook there; its last word, or None where the process died before."""
        return await self._obey({"hook": delivery, "path": path}, _ignore)

    async def _obey(self, order: Message, hear: Hear) -> Message | None:
        self.jobs += 1
        self._is_cancelled = False
        with anyio.CancelScope() as self._scope:
            if not await self._spawned.channel.asend(order):
                return {"refused": f"it ended with {await self.fate()} before it could be given anything to do"}
            while (message := await self._hear()) is not None:
                if "progress" not in message:
                    return message
                hear(message["progress"])
        return None

    async def _hear(self) -> Message | None:
        """What it says next about its order; it may be told meanwhile that this is cancelled."""
        while True:
            if self._is_cancelled:
                self._is_cancelled = False
                await self._spawned.channel.asend({"cancel": True})
            with anyio.CancelScope() as self._listening:
                return await self._receive()

    async def _receive(self) -> Message | None:
        message = await self._spawned.channel.areceive()
        if self._spawned.channel.torn:
            self._is_silent = True
            self.kill()
        return message

    def cancel(self) -> None:
        """Have its handler told that the job is cancelled, as soon as it reads what it was sent before."""
        self._is_cancelled = True
        if self._listening is not None:
            self._listening.cancel()

    def kill(self) -> None:
        """End it, and whatever it started, now."""
        self.is_good = False
        self._spawned.kill()

    def leave(self) -> None:
        """Let it end by itself, soon. Not for one that runs a job."""
        self.is_good = False
        self._spawned.channel.close()
        self.patience_ends = self._clock.monotonic() + PATIENCE

    def is_dead(self) -> bool:
        """Whether it has ended; others may still hold its channel."""
        return self._spawned.is_dead()

    def ended(self) -> bool:
        """Whether it has ended, and nothing of it is left."""
        ended = self._spawned.ended()
        if ended:
            self._spawned.close()
        return ended

    def give_up(self) -> None:
        """Wait for what it does no longer: it is dead, whoever else has its channel."""
        if self._scope is not None:
            self._scope.cancel()

    async def fate(self) -> str:
        """Wait for the end of one that says nothing any more; how it ended, in words."""
        was_good, self.is_good = self.is_good, False
        deadline = self._clock.monotonic() + PATIENCE
        while not self.ended():
            await self._clock.sleep(GLANCE)
            if was_good and self._clock.monotonic() > deadline:
                self._is_silent = True
                self.kill()
        return SILENCE if self._is_silent else self._spawned.fate


def _ignore(progress: Mapping[str, Any]) -> None:
    """Hooks have none."""
