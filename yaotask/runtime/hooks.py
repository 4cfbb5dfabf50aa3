"""Tells hooks what happened to jobs: takes events from the outbox, calls, and says how it went."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import anyio

from yaotask import invoke
from yaotask.bell import Bell
from yaotask.clock import SECOND, Clock
from yaotask.definitions.model import Definition
from yaotask.events import DIED, Delivery, EventKind, pause_after
from yaotask.jobs import Failure
from yaotask.resolve import Resolver
from yaotask.runtime.failures import brief
from yaotask.runtime.spawner import Spawner
from yaotask.settings import Limits
from yaotask.store.ledger import Ledger

log = logging.getLogger(__name__)

# Events that are called at the same time, and events that are taken from the outbox for that.
MESSENGERS = 16
MOST_TAKEN = 256

FailedDelivery = tuple[Delivery, str, int | None]


class Courier:
    """Delivers the events of these tasks, at least once, in order for each job.

    A hook that raises or hangs is called again 1, 2, 4, 8 s later; after `attempts` calls its event is
    kept as failed, for people to see. So is one whose process dies each time: it is called alone for that,
    because the first time it may have been another that was called beside it.
    """

    def __init__(
        self,
        definitions: Mapping[str, Definition],
        resolver: Resolver,
        ledger: Ledger,
        clock: Clock,
        *,
        timeout: float,
        attempts: int,
        limits: Limits,
    ) -> None:
        self.tasks = tuple(sorted(definitions))
        self._definitions = definitions
        self._resolver = resolver
        self._ledger = ledger
        self._clock = clock
        self._timeout = timeout
        self._attempts = attempts
        self._limits = limits
        self._bell: Bell | None = None
        self._spawner: Spawner | None = None
        self._waiting: deque[Delivery] = deque()
        self._delivered: deque[Delivery] = deque()
        self._failed: deque[FailedDelivery] = deque()
        self._taken = 0
        self._settled = 0
        self._messengers = 0
        self._stopping = False
        # Whether nothing is taken before all that was taken is settled. Belongs to the ledger's thread.
        self._finishing = False

    def open(self, spawner: Spawner) -> None:
        """Begin to deliver on the running loop."""
        self._spawner, self._bell = spawner, Bell.of_this_loop()

    # --- the ledger's side --------------------------------------------------------------------------

    def demand(self) -> int:
        """How many more events can be taken now."""
        return 0 if self._stopping or self._finishing else MOST_TAKEN - (self._taken - self._settled)

    def finish_first(self) -> None:
        """Take no more until all that was taken is settled."""
        self._finishing = not self.is_idle

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Tell hooks of these; called on the ledger's thread."""
        self._taken += len(deliveries)
        if any(delivery.suspected for delivery in deliveries):
            self._finishing = True
        self._waiting.extend(deliveries)
        if self._bell is not None:
            self._bell.call(self._send)

    def settled(self) -> tuple[list[Delivery], list[FailedDelivery]]:
        """What was delivered and what failed since this was last asked."""
        delivered = [self._delivered.popleft() for _ in range(len(self._delivered))]
        failed = [self._failed.popleft() for _ in range(len(self._failed))]
        self._settled += len(delivered) + len(failed)
        if self.is_idle:
            self._finishing = False
        return delivered, failed

    # --- the loop's side -----------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether every event that was taken has been told and recorded."""
        return self._taken == self._settled

    def stop(self) -> None:
        """Take no more events."""
        self._stopping = True

    def _send(self) -> None:
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
        error = DIED if self._is_deadly(delivery) else await self._call(delivery)
        if error is None:
            self._delivered.append(delivery)
        else:
            self._failed.append((delivery, error, self._next_try(delivery, error)))
        self._ledger.poke()

    def _is_deadly(self, delivery: Delivery) -> bool:
        """Whether its process died of it as often as it may be called."""
        return delivery.suspected and delivery.tries >= self._attempts

    async def _call(self, delivery: Delivery) -> str | None:
        """Call the hook; what went wrong, or None."""
        try:
            with anyio.move_on_after(self._timeout) as scope:
                await self._call_hook(delivery)
        except BaseException as error:
            if invoke.is_interrupt(error) or invoke.ends_us(error):
                raise
            return brief(error, self._limits)
        return f"the hook took longer than {self._timeout:g} s" if scope.cancelled_caught else None

    async def _call_hook(self, delivery: Delivery) -> None:
        hook = self._hook(delivery)
        if hook is not None:
            await invoke.acall(hook, delivery.id, *_arguments(delivery))

    def _hook(self, delivery: Delivery) -> Callable[..., Any] | None:
        """The function to call; None where the definition does not ask for it any more."""
        definition = self._definitions.get(delivery.task)
        path = definition and getattr(definition.event, EventKind(delivery.kind).hook)
        return self._resolver.resolve(path) if path else None

    def _next_try(self, delivery: Delivery, error: str) -> int | None:
        name, hook = f"{delivery.task}.{delivery.id}", EventKind(delivery.kind).hook
        if delivery.tries + 1 >= self._attempts:
            log.error("the %s hook of %s failed for the last time; the event is kept: %s", hook, name, error)
            return None
        wait = pause_after(delivery.tries)
        log.warning("the %s hook of %s failed, next try in %d s: %s", hook, name, wait // SECOND, error)
        return self._clock.now() + wait


def _arguments(delivery: Delivery) -> list[Any]:
    """What the hook is called with after the id (contract of each event)."""
    data = delivery.data
    if delivery.kind in (EventKind.ERROR, EventKind.RETRY):
        return [Failure(**data[0]), *data[1:]]
    return list(data)
