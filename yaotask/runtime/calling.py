"""Calling hooks in this process, on its loop or in threads, and knowing which of them run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio

from yaotask import invoke
from yaotask.clock import Clock
from yaotask.events import Delivery, EventKind
from yaotask.jobs import Failure
from yaotask.resolve import Resolver
from yaotask.runtime.failures import brief
from yaotask.settings import Limits


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A hook that runs, on the loop or in a thread, and since when."""

    seq: int
    is_async: bool
    since: float


class UnderWay:
    """Which hooks run, and which of them for longer than `timeout` seconds. From any thread."""

    def __init__(self, clock: Clock, timeout: float) -> None:
        self._clock = clock
        self._timeout = timeout
        self._calls: set[Call] = set()

    @contextmanager
    def calling(self, seq: int = 0, *, is_async: bool = False) -> Iterator[None]:
        """While the block lasts one runs: the hook of an event, by its number, or one of progress."""
        call = Call(seq, is_async, self._clock.monotonic())
        self._calls.add(call)
        try:
            yield
        finally:
            self._calls.discard(call)

    def late(self) -> list[Call]:
        """Those that run although their time is up."""
        longest = self._clock.monotonic() - self._timeout
        return [call for call in self._calls.copy() if call.since < longest]


class NotCalled(Exception):
    """The system has no thread for it now, which is no fault of the hook's."""


class Caller:
    """Calls the hooks of a worker, of so many `at_once` the sync ones too: none waits for a thread.

    One that takes longer than `timeout` seconds is given up; it may go on.
    """

    def __init__(self, resolver: Resolver, clock: Clock, timeout: float, limits: Limits, at_once: int) -> None:
        self._at_once = at_once
        # Made on the loop.
        self._threads: anyio.CapacityLimiter | None = None
        self._resolver = resolver
        self._timeout = timeout
        self._limits = limits
        self._under_way = UnderWay(clock, timeout)
        self.late = self._under_way.late

    async def call(self, path: str, delivery: Delivery) -> str | None:
        """Call a hook; what went wrong, or None. Raises NotCalled."""
        is_async = False
        try:
            with anyio.move_on_after(self._timeout) as scope:
                hook = self._resolver.resolve(path)
                is_async = invoke.is_async(hook)
                if is_async:
                    await self._call_on_loop(hook, delivery)
                else:
                    await self._call_apart(hook, delivery)
        except NotCalled:
            raise
        except BaseException as error:
            # No thread hears of Ctrl-C.
            if (is_async and invoke.is_interrupt(error)) or invoke.ends_us(error):
                raise
            return brief(error, self._limits)
        return f"the hook took longer than {self._timeout:g} s" if scope.cancelled_caught else None

    async def _call_on_loop(self, hook: Callable[..., Any], delivery: Delivery) -> None:
        with self._under_way.calling(delivery.seq, is_async=True):
            await invoke.acall(hook, delivery.id, *arguments(delivery))

    async def _call_apart(self, hook: Callable[..., Any], delivery: Delivery) -> None:
        if self._threads is None:
            self._threads = anyio.CapacityLimiter(self._at_once)
        begun = threading.Event()
        try:
            await invoke.in_thread(partial(self._call_in_thread, hook, delivery, begun), self._threads)
        except RuntimeError as error:
            if begun.is_set():
                raise
            raise NotCalled(str(error)) from error

    def _call_in_thread(self, hook: Callable[..., Any], delivery: Delivery, begun: threading.Event) -> None:
        """Perhaps for longer than anybody waits."""
        begun.set()
        with self._under_way.calling(delivery.seq):
            invoke.call(hook, delivery.id, *arguments(delivery))


def call_here(resolver: Resolver, path: str, delivery: Delivery, start: Context, limits: Limits) -> str | None:
    """Call a hook in this thread, in the context `start`; what went wrong, or None."""
    try:
        start.run(invoke.call, resolver.resolve(path), delivery.id, *arguments(delivery))
    except BaseException as error:  # noqa: BLE001 - SystemExit too is a failed call
        return brief(error, limits)
    return None


def arguments(delivery: Delivery) -> list[Any]:
    """What the hook is called with after the id (contract of each event)."""
    data = delivery.data
    if delivery.kind in (EventKind.ERROR, EventKind.RETRY):
        return [Failure(**data[0]), *data[1:]]
    return list(data)
