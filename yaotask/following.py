"""Watching a job until its end: as an iterator, or by a callback."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import anyio.to_thread

from yaotask.clock import Clock
from yaotask.jobs import TERMINAL
from yaotask.jobview import View

log = logging.getLogger(__name__)

ENDED = frozenset({"PARTIAL", *(state.name for state in TERMINAL)})

# How long to wait between two looks: short after a change, then longer and longer.
SHORTEST_WAIT, LONGEST_WAIT = 0.02, 0.25

Look = Callable[[], View]
Callback = Callable[[View], object]


class Watch:
    """Tells changes of a job from one look to the next, and how long to wait before the next one."""

    def __init__(self) -> None:
        self._seen: View | None = None
        self.wait = SHORTEST_WAIT

    def is_new(self, job: View) -> bool:
        """Whether anything has changed since the last look."""
        changed = job != self._seen
        self._seen = job
        self.wait = SHORTEST_WAIT if changed else min(self.wait * 1.5, LONGEST_WAIT)
        return changed


def follow(look: Look, clock: Clock, timeout: float | None) -> Iterator[View]:
    """The job now, after each change that is seen, and at its end. TimeoutError after so many seconds without one."""
    watch, deadline = Watch(), None if timeout is None else clock.monotonic() + timeout
    while True:
        job = look()
        if watch.is_new(job):
            yield job
        if job["status"] in ENDED:
            return
        if deadline is not None and clock.monotonic() >= deadline:
            raise TimeoutError(f"{job['task_id']} is {job['status']} after {timeout:g} s; it goes on by itself")
        clock.pause(watch.wait)


async def afollow(look: Look, clock: Clock) -> AsyncIterator[View]:
    """Like `follow`, on a loop."""
    watch = Watch()
    while True:
        job = await anyio.to_thread.run_sync(look)
        if watch.is_new(job):
            yield job
        if job["status"] in ENDED:
            return
        await clock.sleep(watch.wait)


class Subscriptions:
    """Callbacks that are told of changes, each in a thread of its own until its job has ended."""

    def __init__(self) -> None:
        self._ends: dict[tuple[str, Callback], threading.Event] = {}
        self._threads: dict[tuple[str, Callback], threading.Thread] = {}

    def subscribe(self, name: str, look: Look, callback: Callback) -> None:
        """Call back with the job now, after each change that is seen, and at its end."""
        key, end = (name, callback), threading.Event()
        self.unsubscribe(name, callback)
        thread = threading.Thread(target=_tell, args=(name, look, callback, end), name=f"yaotask-{name}", daemon=True)
        self._ends[key], self._threads[key] = end, thread
        thread.start()

    def unsubscribe(self, name: str, callback: Callback | None = None) -> None:
        """Call back no more; without a callback, none for this job. A call under way is waited for."""
        for key in [key for key in self._ends if key[0] == name and callback in (None, key[1])]:
            self._ends.pop(key).set()
            thread = self._threads.pop(key)
            if thread is not threading.current_thread():
                thread.join()

    def close(self) -> None:
        """Call back nobody any more."""
        for name, _ in list(self._ends):
            self.unsubscribe(name)


def _tell(name: str, look: Look, callback: Callback, end: threading.Event) -> None:
    watch = Watch()
    while not end.is_set():
        try:
            job = look()
            if watch.is_new(job):
                callback(job)
        except Exception as error:  # noqa: BLE001 - a watcher cannot hurt what it watches
            log.warning("watching %s ended: %s: %s", name, type(error).__name__, error)
            return
        if job["status"] in ENDED:
            return
        end.wait(watch.wait)
