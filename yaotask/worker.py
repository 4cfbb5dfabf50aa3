"""`yaotask run`: the one worker process of a project, from its signals to its exit status."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from queue import Empty, SimpleQueue

import anyio
from anyio.abc import TaskGroup

from yaotask.app import App
from yaotask.bell import Bell
from yaotask.durations import show
from yaotask.errors import YaotaskError
from yaotask.jobs import Failed, Ignored, Interrupted, RetryAfter, Succeeded
from yaotask.runtime.runner import Runner

log = logging.getLogger(__name__)

DONE, ENDED_AT_ONCE = 0, 1
SIGNALS = (signal.SIGTERM, signal.SIGINT)
# A handler that holds on to its loop cannot hold up the end for longer: its job has been handed back by then.
PATIENCE = 5.0
SWITCH_INTERVAL = 0.000_5

WORDS = {
    Succeeded: "succeeded",
    Failed: "failed",
    Ignored: "ignored",
    RetryAfter: "retried",
    Interrupted: "handed back",
}


def run(app: App, *, drain: bool = False) -> int:
    """Run jobs until SIGTERM or SIGINT, or with `drain` until nothing is left to do; the exit status.

    The first signal lets running jobs go on for the setting `grace`, the second ends at once (status 1).
    Raises StorageError where the store is lost.
    """
    app.upgrade_store()
    # The ledger has to win the interpreter from busy handlers several times a cycle; 5 ms each time is too long.
    sys.setswitchinterval(SWITCH_INTERVAL)
    worker = Worker(app)
    before = set(threading.enumerate())
    try:
        anyio.run(worker.run, drain)
    except BaseExceptionGroup as group:
        raise _innermost(group) from group
    worker.join_threads(before)
    return worker.status


def _innermost(error: BaseException) -> BaseException:
    """The first error of nested groups: what went wrong, not where it passed."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class Worker:
    """One run: waits for its end, whatever brings it."""

    def __init__(self, app: App) -> None:
        self.status = DONE
        self._app = app
        self._grace = app.settings.grace.total_seconds()
        self._over = threading.Event()
        # Signals as they come; None when the run is over. Its `put` is safe in a signal's handler.
        self._heard: SimpleQueue[int | None] = SimpleQueue()

    async def run(self, drain: bool) -> None:
        """Until drained, or told to stop."""
        runner = self._app.runner()
        for watch in (self._see_to_the_end, self._hear_out):
            threading.Thread(target=watch, args=(runner,), name="yaotask-end", daemon=True).start()
        try:
            with self._listening(runner) as stopping:
                async with runner.running(self._grace):
                    log.info("running; SIGTERM or Ctrl-C ends it")
                    await self._wait(runner, stopping, drain)
            self._sum_up(runner)
        finally:
            runner.left.set()
            self._over.set()
            self._heard.put(None)

    async def _wait(self, runner: Runner, stopping: anyio.Event, drain: bool) -> None:
        async with anyio.create_task_group() as until:
            until.start_soon(_until_told, stopping, until)
            if drain:
                until.start_soon(_until_drained, runner, until)

    @contextmanager
    def _listening(self, runner: Runner) -> Iterator[anyio.Event]:
        """Take signals: the first sets the event, the next ones hurry."""
        stopping, bell = anyio.Event(), Bell.of_this_loop()

        def hear(number: int, frame: object) -> None:
            # Python calls this in the midst of whatever the main thread does, a handler that blocks it included.
            self._heard.put(number)
            bell.call(partial(self._answer, runner, stopping))

        before = {number: signal.signal(number, hear) for number in SIGNALS}
        try:
            yield stopping
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _answer(self, runner: Runner, stopping: anyio.Event) -> None:
        if stopping.is_set():
            self.status = ENDED_AT_ONCE
            runner.hurry()
        stopping.set()

    def _hear_out(self, runner: Runner) -> None:
        """Say what becomes of each signal; and end the process where a handler blocks its loop, which hears of none."""
        first = self._heard.get()
        if first is None:
            return
        grace = show(self._app.settings.grace)
        log.info("%s: running jobs get %s, then the rest is handed back", signal.Signals(first).name, grace)
        try:
            second = self._heard.get(timeout=self._grace + PATIENCE)
        except Empty:
            second = 0
        if second:
            log.warning("%s again: ending at once", signal.Signals(second).name)
            self.status = ENDED_AT_ONCE
        if second is not None and not runner.left.wait(PATIENCE if second else 0):
            self._end_without_the_loop(runner)

    def _end_without_the_loop(self, runner: Runner) -> None:
        log.error("a handler blocks its loop: its jobs are handed back, and the process ends without it")
        try:
            runner.abandon()
        except YaotaskError as error:
            log.error("nothing could be handed back: %s", error)
        self._end()

    def join_threads(self, before: Collection[threading.Thread]) -> None:
        """Wait a little for threads that Python would wait for without end: those of hooks that hang, for example."""
        deadline = self._app.clock.monotonic() + PATIENCE
        for thread in threading.enumerate():
            if not thread.daemon and thread not in before:
                thread.join(max(0.0, deadline - self._app.clock.monotonic()))
                if thread.is_alive():
                    log.error("a hook or handler did not let go of its thread; ending without it")
                    self._app.close()
                    self._end()

    def _see_to_the_end(self, runner: Runner) -> None:
        """End the process where a handler would hold it although all its jobs were handed back."""
        runner.left.wait()
        if not self._over.wait(PATIENCE):
            log.error("a handler did not let go of its loop; ending without it")
            self._end()

    def _end(self) -> None:
        logging.shutdown()
        os._exit(self.status)

    def _sum_up(self, runner: Runner) -> None:
        ended: Counter[type] = runner.ended
        parts = [f"{ended[kind]:,} {word}" for kind, word in WORDS.items() if ended[kind]]
        log.info("stopped; %s", ", ".join(parts) if parts else "there was nothing to do")


async def _until_told(stopping: anyio.Event, until: TaskGroup) -> None:
    await stopping.wait()
    until.cancel_scope.cancel()


async def _until_drained(runner: Runner, until: TaskGroup) -> None:
    await runner.drained()
    until.cancel_scope.cancel()
