"""Calls the progress hook of a task: in order, before the end of its job, and never to the harm of it."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio

from yaotask import context, invoke
from yaotask.bell import Bell
from yaotask.clock import Clock
from yaotask.context import Job
from yaotask.jobs import Outcome
from yaotask.runtime.attempt import Attempt
from yaotask.runtime.calling import UnderWay
from yaotask.runtime.failures import brief
from yaotask.runtime.spawner import Spawner
from yaotask.settings import Limits

log = logging.getLogger(__name__)

Report = tuple[int, int | None, str | None]


@dataclass(slots=True)
class Calls:
    """Calls of the progress hook that one job still waits for."""

    waiting: deque[Report]
    done: anyio.Event


class Herald:
    """Tells one hook of all progress of one task; a call that takes longer than `timeout` seconds is given up."""

    def __init__(self, hook: Callable[..., Any], timeout: float, limits: Limits, clock: Clock) -> None:
        self._timeout = timeout
        self._under_way = UnderWay(clock, timeout)
        # Those that hold a thread for longer than they may.
        self.late = self._under_way.late
        self._hook = hook if invoke.is_async(hook) else self._noted(hook)
        self._limits = limits
        self._spawner: Spawner | None = None
        self._bell: Bell | None = None
        # Where no loop of a worker is, hooks start in this context: that of a job may know the loop of its handler.
        self._start: Context | None = None
        self._calls: dict[Job, Calls] = {}

    def _noted(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            with self._under_way.calling():
                return hook(*given)

        return call

    def open(self, spawner: Spawner) -> None:
        """Begin to work on the running loop."""
        self._spawner, self._bell = spawner, Bell.of_this_loop()

    def open_apart(self, start: Context) -> None:
        """Begin to work in a process that has no loop but those of its handlers."""
        self._start = start

    def announce(self, job: Job, progress: Report) -> None:
        """Call the progress hook: at once in a handler's thread, on the worker's loop soon and in order."""
        if not invoke.on_loop():
            # In the handler's context, for the sake of its transaction.
            self._call_now(job, progress, copy_context())
        elif self._start is not None:
            self._call_now(job, progress, self._start.copy())
        elif Bell.of_this_loop() is not self._bell:
            self._call_over_there(job, progress)
        else:
            self._call_soon(job, progress)

    def _call_now(self, job: Job, progress: Report, inside: Context) -> None:
        # A hook has no current job.
        inside.run(context.current.set, None)
        call = partial(inside.run, self._call_here, job, progress)
        # In a thread of its own, so that a hook that hangs cannot keep its handler.
        thread = threading.Thread(target=call, name="yaotask-progress", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            # The system has no thread for it.
            self._complain(job, error)
            return
        thread.join(self._timeout)
        if thread.is_alive():
            self._complain(job, TimeoutError(f"it takes longer than {self._timeout:g} s"))

    def _call_here(self, job: Job, progress: Report) -> None:
        try:
            invoke.call(self._hook, job.id, *progress)
        except BaseException as error:  # noqa: BLE001 - a hook can do nothing to its job, not even by sys.exit
            self._complain(job, error)

    def _call_over_there(self, job: Job, progress: Report) -> None:
        """From the loop of an `async def` in a thread, which has nobody else to keep waiting."""
        told = threading.Event()

        async def call() -> None:
            try:
                await self._call(job, progress)
            finally:
                told.set()

        if self._bell is not None and self._spawner is not None:
            self._bell.call(partial(self._spawner.start, call))
            told.wait(self._timeout)

    def _call_soon(self, job: Job, progress: Report) -> None:
        calls = self._calls.get(job)
        if calls is not None:
            calls.waiting.append(progress)
        elif self._spawner is not None:
            self._calls[job] = calls = Calls(deque([progress]), anyio.Event())
            self._spawner.start(partial(self._call_in_order, job, calls))

    async def _call_in_order(self, job: Job, calls: Calls) -> None:
        try:
            while calls.waiting:
                await self._call(job, calls.waiting.popleft())
        finally:
            del self._calls[job]
            calls.done.set()

    async def _call(self, job: Job, progress: Report) -> None:
        try:
            with anyio.fail_after(self._timeout):
                await invoke.acall(self._hook, job.id, *progress)
        except BaseException as error:
            if invoke.is_interrupt(error) or invoke.ends_us(error):
                raise
            self._complain(job, error)

    async def announced(self, attempt: Attempt, outcome: Outcome) -> None:
        """Wait until the progress hook was called for all that the job has said, at most the timeout.

        Later calls are dropped, so that none follows the end. A cancellation ends the wait, and nothing else.
        """
        calls = self._calls.get(attempt.job)
        if calls is None:
            return
        attempt.returned(outcome)
        with suppress(anyio.get_cancelled_exc_class()), anyio.move_on_after(self._timeout):
            await calls.done.wait()
        calls.waiting.clear()

    def _complain(self, job: Job, error: BaseException) -> None:
        log.warning("the progress hook of %s failed: %s", job.name, brief(error, self._limits, job.hide))
