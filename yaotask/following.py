"""Watching a job until its end: as an iterator, or by a callback."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar, copy_context
from copy import deepcopy
from datetime import timedelta

import anyio.to_thread

from yaotask import context, durations, invoke
from yaotask.client import must_not_block
from yaotask.clock import Clock
from yaotask.errors import StorageBusy, StorageError, StorageUnavailable, YaotaskError
from yaotask.jobs import TERMINAL
from yaotask.jobview import View
from yaotask.store.ledger_thread import CLOSED

log = logging.getLogger(__name__)

ENDED = frozenset({"PARTIAL", *(state.name for state in TERMINAL)})

# How long to wait between two looks: short after a change, then longer and longer.
SHORTEST_WAIT, LONGEST_WAIT = 0.02, 0.25

# Whether a callback runs: for others it does not wait, which may be waiting for it.
_calls_back: ContextVar[bool] = ContextVar("yaotask_calls_back", default=False)

Look = Callable[[], View]
Callback = Callable[[View], object]


class Watch:
    """Tells changes of a job from one look to the next, and how long to wait before the next one."""

    def __init__(self, clock: Clock, timeout: float | None = None) -> None:
        self.wait = SHORTEST_WAIT
        self._seen: View = {}
        self._clock = clock
        self._timeout = timeout
        self._deadline = None if timeout is None else clock.monotonic() + timeout

    def is_new(self, job: View) -> bool:
        """Whether anything has changed since the last look."""
        changed = job != self._seen
        if changed:
            # Whoever gets the job may change what it got.
            self._seen = deepcopy(job)
            self.wait = SHORTEST_WAIT
        else:
            self.slow_down()
        return changed

    def slow_down(self) -> None:
        """Wait longer before the next look: the last one brought nothing."""
        self.wait = min(self.wait * 1.5, LONGEST_WAIT)

    def is_over(self) -> bool:
        """Whether the job of the last look has ended; TimeoutError where it should have by now."""
        job = self._seen
        if job["status"] in ENDED:
            return True
        if self._deadline is not None and self._clock.monotonic() >= self._deadline:
            raise TimeoutError(f"{job['task_id']} is {job['status']} after {self._timeout:g} s; it goes on by itself")
        return False


def follow(look: Look, clock: Clock, timeout: float | str | timedelta | None) -> Iterator[View]:
    """The job now, after each change that is seen, and at its end. TimeoutError where that takes longer.

    ValueError for a `timeout` that is no length of time; what is left of somebody's may be less than nothing.
    """
    if isinstance(timeout, int | float) and not (isinstance(timeout, bool) or math.isnan(timeout)):
        # However long.
        return _follow(look, clock, max(timeout, 0))
    return _follow(look, clock, None if timeout is None else max(durations.seconds("timeout", timeout), 0))


def _follow(look: Look, clock: Clock, timeout: float | None) -> Iterator[View]:
    must_not_block("follow")
    watch = Watch(clock, timeout)
    while True:
        job = look()
        if watch.is_new(job):
            yield job
        if watch.is_over():
            return
        clock.pause(watch.wait)


async def afollow(look: Look, clock: Clock) -> AsyncIterator[View]:
    """Like `follow`, on a loop."""
    watch = Watch(clock)
    while True:
        job = await anyio.to_thread.run_sync(look)
        if watch.is_new(job):
            yield job
        if watch.is_over():
            return
        await clock.sleep(watch.wait)


class Subscriptions:
    """Callbacks that are told of changes, each in a thread of its own until its job has ended."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._watchers: list[Watcher] = []
        self._is_closed = False

    def subscribe(self, name: str, look: Look, callback: Callback) -> None:
        """Call back with the job now, after each change that is seen, and at its end.

        A callback that was subscribed to the job before is called once. Raises StorageUnavailable after `close`.
        """
        self.unsubscribe(name, callback)
        watcher = Watcher(name, look, callback, self._clock, self._forget)
        self._watchers.append(watcher)
        # Only now: `close` in another thread either finds it or was before this.
        if self._is_closed:
            self._forget(watcher)
            raise StorageUnavailable(CLOSED)
        try:
            watcher.thread.start()
        except RuntimeError:
            # The system has no thread for it.
            self._forget(watcher)
            raise

    def unsubscribe(self, name: str, callback: Callback | None = None) -> None:
        """Call back no more; without a callback, nobody for this job.

        In a thread a call under way is waited for, but not from a callback: it may be waiting for that one.
        """
        for watcher in list(self._watchers):
            if watcher.name == name and callback in (None, watcher.callback):
                self._forget(watcher)
                watcher.stop()

    def close(self) -> None:
        """Call back nobody any more."""
        self._is_closed = True
        for watcher in list(self._watchers):
            self._forget(watcher)
            watcher.stop()

    def _forget(self, watcher: Watcher) -> None:
        # Both the end of its job and its caller may be first.
        with suppress(ValueError):
            self._watchers.remove(watcher)


class Watcher:
    """Tells one callback of one job."""

    def __init__(
        self, name: str, look: Look, callback: Callback, clock: Clock, ended: Callable[[Watcher], object]
    ) -> None:
        self.name = name
        self.callback = callback
        self.thread = threading.Thread(target=self._run, name=f"yaotask-{name}", daemon=True)
        self._look = look
        self._watch = Watch(clock)
        self._ended = ended
        self._stop = threading.Event()
        # Whether it was said that the store cannot be read.
        self._is_away = False
        # The callback belongs to whoever subscribed, but is no part of a job's transaction.
        self._context = copy_context()
        self._context.run(context.transaction.set, None)
        self._context.run(_calls_back.set, True)

    def stop(self) -> None:
        """Tell nothing more; a call under way is waited for, but not on a loop, nor by a callback."""
        self._stop.set()
        # One that is about to be started looks at nothing any more.
        if self.thread.is_alive() and not _calls_back.get() and not invoke.on_loop():
            self.thread.join()

    def _run(self) -> None:
        try:
            while not self._stop.is_set() and not self._tell():
                self._stop.wait(self._watch.wait)
        except YaotaskError as error:
            log.warning("watching %s ended: %s", self.name, error)
        finally:
            self._ended(self)

    def _tell(self) -> bool:
        """Look, and call back if anything is new; whether that was the end."""
        try:
            job = self._look()
        except StorageError as error:
            # It may come back: the end of the job is told then.
            self._watch.slow_down()
            if not self._is_away and not isinstance(error, StorageBusy):
                log.warning("%s cannot be watched for now: %s", self.name, error)
                self._is_away = True
            return False
        self._is_away = False
        if self._watch.is_new(job) and not self._stop.is_set():
            self._call(job)
        return self._watch.is_over()

    def _call(self, job: View) -> None:
        try:
            self._context.run(invoke.call, self.callback, job)
        except BaseException as error:  # noqa: BLE001 - a watcher cannot hurt what it watches, nor sys.exit itself
            log.warning("a callback for %s failed: %s: %s", self.name, type(error).__name__, error)
