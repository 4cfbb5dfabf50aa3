"""Tells hooks what happened to jobs: takes events from the outbox, calls, and says how it went."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

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
# Events of one task that wait for a child process before no more of that task are taken.
MOST_APART = 16

T = TypeVar("T")

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
    kept as failed, for people to see. One that may have ended a worker is called in a process of its own, and so is
    one that has ended such a process, until it does no harm there.
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
        self.children = quarantine.children
        self._tasks = tuple(sorted(definitions))
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
        self._delivered: deque[Delivery] = deque()
        self._failed: deque[FailedDelivery] = deque()
        self._taken = 0
        self._settled = 0
        self._messengers = 0
        self._calls: set[Call] = set()
        self._stopping = False
        # The hooks, by their paths, that have ended a child and were not called well since.
        self._deadly: set[str] = set()
        # What is told in child processes: what waits for that, the tasks of all that is not settled by their numbers,
        # and what nobody had the time for, which is left to whoever comes after this worker.
        self._waiting_apart: deque[Delivery] = deque()
        self._apart: dict[int, str] = {}
        self._left: deque[Delivery] = deque()

    def open(self, spawner: Spawner) -> None:
        """Begin to deliver on the running loop."""
        self._spawner, self._bell = spawner, Bell.of_this_loop()
        self.children.open(spawner)

    # --- the ledger's side --------------------------------------------------------------------------

    @property
    def tasks(self) -> tuple[str, ...]:
        """Those whose events can be taken now; not where many of them wait for a child process already."""
        if not self._apart:
            return self._tasks
        apart = Counter(self._apart.values())
        return tuple(task for task in self._tasks if apart[task] < MOST_APART)

    def demand(self) -> int:
        """How many more events can be taken now."""
        # Those that are told apart keep no others waiting.
        return 0 if self._stopping else MOST_TAKEN - (self._taken - self._settled - len(self._apart))

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Tell hooks of these; called on the ledger's thread."""
        self._taken += len(deliveries)
        for delivery in deliveries:
            if delivery.deaths or (self._deadly and self._path(delivery) in self._deadly):
                self._apart[delivery.seq] = delivery.task
                self._waiting_apart.append(delivery)
            else:
                self._waiting.append(delivery)
        if self._bell is not None:
            self._bell.call(self._send)

    def settled(self) -> tuple[list[Delivery], list[FailedDelivery]]:
        """What was delivered and what failed since this was last asked."""
        delivered, failed, left = _taken_from(self._delivered), _taken_from(self._failed), _taken_from(self._left)
        self._settled += len(delivered) + len(failed) + len(left)
        if self._apart:
            for delivery in (*delivered, *(delivery for delivery, _, _ in failed), *left):
                self._apart.pop(delivery.seq, None)
        return delivered, failed

    # --- the loop's side -----------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether every event that was taken has been told and recorded, or is left to others."""
        return self._taken == self._settled

    def stop(self) -> None:
        """Take no more events."""
        self._stopping = True

    @property
    def calling(self) -> list[int]:
        """The events whose hooks run in this process."""
        return [call.seq for call in self._calls.copy()]

    def late(self) -> list[Call]:
        """The hooks that run although their time is up; from any thread."""
        longest = self._clock.monotonic() - self._timeout
        return [call for call in self._calls.copy() if call.since < longest]

    def _send(self) -> None:
        while self._waiting_apart and self._spawner is not None:
            self._spawner.start(partial(self._tell_apart, self._waiting_apart.popleft()))
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
        path = self._path(delivery)
        self._settle(delivery, None if path is None else await self._call(path, delivery))

    async def _tell_apart(self, delivery: Delivery) -> None:
        path = self._path(delivery)
        if path is None:
            self._settle(delivery, None)
            return
        try:
            error, did_harm = await self._quarantine.call(path, delivery)
        except NoChild:
            self._left.append(delivery)
            self._ledger.poke()
            return
        (self._deadly.add if did_harm else self._deadly.discard)(path)
        self._settle(delivery._replace(deaths=max(delivery.deaths, 1) if did_harm else 0), error)

    def _settle(self, delivery: Delivery, error: str | None) -> None:
        if error is None:
            self._delivered.append(delivery)
        else:
            self._failed.append((delivery, error, self._next_try(delivery, error)))
        self._ledger.poke()

    # --- calling -------------------------------------------------------------------------------------

    async def _call(self, path: str, delivery: Delivery) -> str | None:
        """Call a hook in this process; what went wrong, or None."""
        is_async = False
        try:
            with anyio.move_on_after(self._timeout) as scope:
                hook = self._resolver.resolve(path)
                is_async = invoke.is_async(hook)
                if is_async:
                    await self._call_on_loop(hook, delivery)
                else:
                    await invoke.in_thread(partial(self._call_in_thread, hook, delivery))
        except BaseException as error:
            # No thread hears of Ctrl-C.
            if (is_async and invoke.is_interrupt(error)) or invoke.ends_us(error):
                raise
            return brief(error, self._limits)
        return f"the hook took longer than {self._timeout:g} s" if scope.cancelled_caught else None

    async def _call_on_loop(self, hook: Callable[..., Any], delivery: Delivery) -> None:
        call = Call(delivery.seq, True, self._clock.monotonic())
        self._calls.add(call)
        try:
            await invoke.acall(hook, delivery.id, *arguments(delivery))
        finally:
            self._calls.discard(call)

    def _call_in_thread(self, hook: Callable[..., Any], delivery: Delivery) -> None:
        """Perhaps for longer than anybody waits."""
        call = Call(delivery.seq, False, self._clock.monotonic())
        self._calls.add(call)
        try:
            invoke.call(hook, delivery.id, *arguments(delivery))
        finally:
            self._calls.discard(call)

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
