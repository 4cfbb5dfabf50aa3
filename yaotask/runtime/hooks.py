"""Tells hooks what happened to jobs: takes events from the outbox, has them called, and says how it went."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypeVar

from yaotask.bell import Bell
from yaotask.clock import SECOND, Clock
from yaotask.definitions.model import Definition
from yaotask.events import Delivery, EventKind
from yaotask.runtime.calling import Call, Caller, NotCalled
from yaotask.runtime.children import Children, NoChild
from yaotask.runtime.quarantine import Quarantine
from yaotask.runtime.spawner import Spawner
from yaotask.store.consumers import FailedDelivery
from yaotask.store.ledger import Ledger

log = logging.getLogger(__name__)

# Events that are called at the same time, and events that are taken from the outbox for that.
MESSENGERS = 16
MOST_TAKEN = 256
# For how many seconds an event is put off for which there is no place: the longer, the more there are.
PUT_OFF, PUT_OFF_A_SECOND = 0.3, 250

T = TypeVar("T")


class Courier:
    """Delivers the events of these tasks, at least once, in order for each job.

    A hook that raises or hangs is called again 1, 2, 4, 8 s later; after `attempts` calls its event is
    kept as failed, for people to see. One that may have ended a worker is called in a process of its own, and so is
    one that has ended such a process, until it does no harm there.
    """

    def __init__(
        self,
        definitions: Mapping[str, Definition],
        ledger: Ledger,
        clock: Clock,
        caller: Caller,
        quarantine: Quarantine,
        *,
        attempts: int,
    ) -> None:
        self._tasks = tuple(sorted(definitions))
        self._definitions = definitions
        self._ledger = ledger
        self._clock = clock
        self._caller = caller
        self._quarantine = quarantine
        self._attempts = attempts
        self._bell: Bell | None = None
        self._spawner: Spawner | None = None
        self._waiting: deque[Delivery] = deque()
        self._waiting_apart: deque[tuple[str, Delivery]] = deque()
        self._delivered: deque[Delivery] = deque()
        self._failed: deque[FailedDelivery] = deque()
        # What nobody had the time for, which is left to whoever comes after this worker.
        self._left: deque[Delivery] = deque()
        self._taken = 0
        self._settled = 0
        self._messengers = 0
        # Whether something was put off for want of a child.
        self._is_child_wanted = False
        # Why hooks had to wait, as far as that was said.
        self._told: set[str] = set()
        self._stopping = False

    def open(self, spawner: Spawner) -> None:
        """Begin to deliver on the running loop."""
        self._spawner, self._bell = spawner, Bell.of_this_loop()
        self.children.open(spawner)

    @property
    def children(self) -> Children:
        """The processes in which some hooks are called."""
        return self._quarantine.children

    # --- the ledger's side --------------------------------------------------------------------------

    @property
    def tasks(self) -> tuple[str, ...]:
        """Those whose events can be taken now."""
        full = self._quarantine.full
        return tuple(task for task in self._tasks if task not in full) if full else self._tasks

    def demand(self) -> int:
        """How many more events can be taken now."""
        # Those that are told apart keep no others waiting.
        return 0 if self._stopping else MOST_TAKEN - (self._taken - self._settled - self._quarantine.held)

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Tell hooks of these; called on the ledger's thread."""
        self._taken += len(deliveries)
        put_off: list[Delivery] = []
        for delivery in deliveries:
            path = self._path(delivery)
            if path is None or not self._quarantine.takes(path, delivery):
                self._waiting.append(delivery)
            elif self._quarantine.hold(path, delivery):
                self._waiting_apart.append((path, delivery))
            else:
                put_off.append(delivery)
        if put_off:
            self._is_child_wanted = not self._quarantine.is_ready
            self._put_off(put_off)
        if self._bell is not None:
            self._bell.call(self._send)

    def _put_off(self, deliveries: Sequence[Delivery]) -> None:
        """Others, or we later, have a place for them."""
        later = self._clock.now() + round((PUT_OFF + len(deliveries) / PUT_OFF_A_SECOND) * SECOND)
        self._failed.extend((delivery, None, later) for delivery in deliveries)
        self._ledger.poke()

    def settled(self) -> tuple[list[Delivery], list[FailedDelivery]]:
        """What was delivered and what failed since this was last asked."""
        delivered, failed, left = _taken_from(self._delivered), _taken_from(self._failed), _taken_from(self._left)
        self._settled += len(delivered) + len(failed) + len(left)
        self._quarantine.release([*delivered, *(delivery for delivery, _, _ in failed), *left])
        return delivered, failed

    # --- the loop's side -----------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether every event that was taken has been told and recorded, or is left to others."""
        return self._taken == self._settled

    def late(self) -> list[Call]:
        """The hooks that run here although their time is up; from any thread."""
        return self._caller.late()

    def stop(self) -> None:
        """Take no more events."""
        self._stopping = True

    def _send(self) -> None:
        if self._is_child_wanted and self._spawner is not None:
            self._is_child_wanted = False
            self._spawner.start(self._quarantine.prepare)
        while self._waiting_apart and self._spawner is not None:
            self._spawner.start(partial(self._tell_apart, *self._waiting_apart.popleft()))
        while self._waiting and self._messengers < MESSENGERS and self._spawner is not None:
            self._messengers += 1
            self._spawner.start(partial(self._work, self._waiting.popleft()))

    async def _work(self, delivery: Delivery) -> None:
        refused: list[Delivery] = []
        try:
            while True:
                try:
                    await self._tell(delivery)
                except NotCalled as reason:
                    self._complain(str(reason))
                    if self._messengers > 1:
                        # Fewer of them will do with the threads that there are.
                        self._waiting.appendleft(delivery)
                        return
                    refused.append(delivery)
                if not self._waiting:
                    return
                delivery = self._waiting.popleft()
        finally:
            if refused:
                self._put_off(refused)
            self._messengers -= 1

    async def _tell(self, delivery: Delivery) -> None:
        path = self._path(delivery)
        self._settle(delivery, None if path is None else await self._caller.call(path, delivery))

    def _complain(self, reason: str) -> None:
        if reason not in self._told:
            self._told.add(reason)
            log.error("hooks have to wait: %s; raise the limit of threads (ulimit -u), or end some", reason)

    async def _tell_apart(self, path: str, delivery: Delivery) -> None:
        try:
            error, did_harm = await self._quarantine.call(path, delivery)
        except NoChild:
            self._left.append(delivery)
            self._ledger.poke()
            return
        self._settle(delivery._replace(deaths=max(delivery.deaths, 1) if did_harm else 0), error)

    def _settle(self, delivery: Delivery, error: str | None) -> None:
        if error is None:
            self._delivered.append(delivery)
        else:
            self._failed.append((delivery, error, self._next_try(delivery, error)))
        self._ledger.poke()

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


def _taken_from(queue: deque[T]) -> list[T]:
    """All that was in it; others may go on to append."""
    return [queue.popleft() for _ in range(len(queue))]
