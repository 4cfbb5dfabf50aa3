"""Tells hooks what happened to jobs: takes events from the outbox, calls, and says how it went."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio

from yaotask import invoke
from yaotask.bell import Bell
from yaotask.clock import SECOND, Clock
from yaotask.definitions.model import Definition
from yaotask.events import Delivery, EventKind
from yaotask.jobs import Failure
from yaotask.resolve import Resolver
from yaotask.runtime.children import NoChild
from yaotask.runtime.failures import brief
from yaotask.runtime.quarantine import Quarantine
from yaotask.runtime.spawner import Spawner
from yaotask.settings import Limits
from yaotask.store.ledger import Ledger

log = logging.getLogger(__name__)

# Events that are called at the same time, and events that are taken from the outbox for that.
MESSENGERS = 16
MOST_TAKEN = 256

FailedDelivery = tuple[Delivery, str, int | None]


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A hook that runs, on the loop or in a thread, and since when."""

    seq: int
    is_async: bool
    since: float


class Courier:
    """Delivers the events of these tasks, at least once, in order for each job.

    A hook that raises or hangs is called again 1, 2, 4, 8 s later; after `attempts` calls its event is
    kept as failed, for people to see. One that may have ended a worker is called in a process of its own.
    """

    def __init__(
        self,
        definitions: Mapping[str, Definition],
        resolver: Resolver,
        ledger: Ledger,
        clock: Clock,
        *,
        quarantine: Quarantine,
        timeout: float,
        attempts: int,
        limits: Limits,
    ) -> None:
        self.tasks = tuple(sorted(definitions))
        self._definitions = definitions
        self._resolver = resolver
        self._ledger = ledger
        self._clock = clock
        self._quarantine = quarantine
        self._timeout = timeout
        self._attempts = attempts
        self._limits = limits
        self._bell: Bell | None = None
        self._spawner: Spawner | None = None
        self._waiting: deque[Delivery] = deque()
        self._suspected: deque[Delivery] = deque()
        self._delivered: deque[Delivery] = deque()
        self._failed: deque[FailedDelivery] = deque()
        self._taken = 0
        self._settled = 0
        # Those that are left to whoever comes after this worker.
        self._left = 0
        self._messengers = 0
        self._calls: set[Call] = set()
        self._stopping = False

    def open(self, spawner: Spawner) -> None:
        """Begin to deliver on the running loop."""
        self._spawner, self._bell = spawner, Bell.of_this_loop()

    # --- the ledger's side --------------------------------------------------------------------------

    def demand(self) -> int:
        """How many more events can be taken now."""
        return 0 if self._stopping else MOST_TAKEN - (self._taken - self._settled - self._left)

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Tell hooks of these; called on the ledger's thread."""
        self._taken += len(deliveries)
        for delivery in deliveries:
            (self._suspected if delivery.suspected else self._waiting).append(delivery)
        if self._bell is not None:
            self._bell.call(self._send)

    def settled(self) -> tuple[list[Delivery], list[FailedDelivery]]:
        """What was delivered and what failed since this was last asked."""
        delivered = [self._delivered.popleft() for _ in range(len(self._delivered))]
        failed = [self._failed.popleft() for _ in range(len(self._failed))]
        self._settled += len(delivered) + len(failed)
        return delivered, failed

    # --- the loop's side -----------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether every event that was taken has been told and recorded, or is left to others."""
        return self._taken == self._settled + self._left

    @property
    def is_calling_apart(self) -> bool:
        """Whether a hook is being called in a child process."""
        return self._quarantine.is_calling

    def stop(self) -> None:
        """Take no more events."""
        self._stopping = True

    def _send(self) -> None:
        while self._suspected and self._spawner is not None:
            # They wait for a child, and keep no other hook waiting.
            self._spawner.start(partial(self._tell, self._suspected.popleft()))
        while self._waiting and self._messengers < MESSENGERS and self._spawner is not None:
            self._messengers += 1
            self._spawner.start(partial(self._work, self._waiting.popleft()))

    async def _work(self, delivery: Delivery) -> None:
        try:
            await self._tell(delivery)
            while self._waiting:
                await self._tell(self._waiting.popleft())
        finally:
            self._messengers -= 1

    async def _tell(self, delivery: Delivery) -> None:
        try:
            error = await self._call(delivery)
        except NoChild:
            self._left += 1
            return
        if error is None:
            self._delivered.append(delivery)
        else:
            self._failed.append((delivery, error, self._next_try(delivery, error)))
        self._ledger.poke()

    async def _call(self, delivery: Delivery) -> str | None:
        """Call the hook; what went wrong, or None. Raises NoChild where it was not called, for the worker stops."""
        path = self._path(delivery)
        if path is None:
            return None
        if delivery.suspected:
            return await self._quarantine.call(path, delivery)
        try:
            with anyio.move_on_after(self._timeout) as scope:
                await self._call_here(self._resolver.resolve(path), delivery)
        except BaseException as error:
            if invoke.is_interrupt(error) or invoke.ends_us(error):
                raise
            return brief(error, self._limits)
        return f"the hook took longer than {self._timeout:g} s" if scope.cancelled_caught else None

    async def _call_here(self, hook: Callable[..., Any], delivery: Delivery) -> None:
        is_async, args = invoke.is_async(hook), (delivery.id, *arguments(delivery))

        async def acall() -> None:
            with self._running(delivery.seq, is_async):
                await hook(*args)

        def call() -> None:
            with self._running(delivery.seq, is_async):
                invoke.call(hook, *args)

        await invoke.acall(acall if is_async else call)

    @contextmanager
    def _running(self, seq: int, is_async: bool) -> Iterator[None]:
        """While this lasts a hook runs, in its thread perhaps longer than it is waited for."""
        call = Call(seq, is_async, self._clock.monotonic())
        self._calls.add(call)
        try:
            yield
        finally:
            self._calls.discard(call)

    @property
    def calling(self) -> list[int]:
        """The events whose hooks run here."""
        return [call.seq for call in self._calls.copy()]

    def stuck(self, grace: float) -> str | None:
        """Why another process should deliver, as what hooks do here does not end: from any thread."""
        longest = self._clock.monotonic() - self._timeout - grace
        late = [call for call in self._calls.copy() if call.since < longest]
        if any(call.is_async for call in late):
            return "one goes on although it was cancelled"
        return "those that do not end hold too many threads" if len(late) >= MESSENGERS else None

    def _path(self, delivery: Delivery) -> str | None:
        """The function to call; None where the definition does not ask for it any more."""
        definition = self._definitions.get(delivery.task)
        if definition is None:
            return None
        path: str | None = getattr(definition.event, EventKind(delivery.kind).hook)
        return path

    def _next_try(self, delivery: Delivery, error: str) -> int | None:
        name, hook = f"{delivery.task}.{delivery.id}", EventKind(delivery.kind).hook
        if delivery.tries + 1 >= self._attempts:
            log.error("the %s hook of %s failed for the last time; the event is kept: %s", hook, name, error)
            return None
        wait: int = 2**delivery.tries
        log.warning("the %s hook of %s failed, next try in %d s: %s", hook, name, wait, error)
        return self._clock.now() + wait * SECOND


def arguments(delivery: Delivery) -> list[Any]:
    """What the hook is called with after the id (contract of each event)."""
    data = delivery.data
    if delivery.kind in (EventKind.ERROR, EventKind.RETRY):
        return [Failure(**data[0]), *data[1:]]
    return list(data)


def call_here(resolver: Resolver, path: str, delivery: Delivery, start: Context, limits: Limits) -> str | None:
    """Call a hook in this thread, in the context `start`; what went wrong, or None."""
    try:
        start.run(invoke.call, resolver.resolve(path), delivery.id, *arguments(delivery))
    except BaseException as error:  # noqa: BLE001 - SystemExit too is a failed call
        return brief(error, limits)
    return None
