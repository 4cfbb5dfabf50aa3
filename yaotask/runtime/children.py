"""The child processes of a worker: started when they are needed, kept warm, and gone when it ends."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import anyio

from yaotask.channel import Message
from yaotask.clock import Clock
from yaotask.processes import spawn, why
from yaotask.runtime.childprocess import GLANCE, PATIENCE, ChildProcess
from yaotask.runtime.spawner import Spawner
from yaotask.runtime.upbringing import Upbringing

log = logging.getLogger(__name__)

MODULE = "yaotask.child"
# Between two looks at all of them.
LOOK = 0.5
# How long one may take to import the project.
LONGEST_START = 60.0
# After children that could not be started.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
# Children that could not be started for want of descriptors, one after the other, before the worker is given up.
MOST_SHORTAGES = 3
# How long a job with one loss keeps its core from others that have lost a process.
PROBATION = 1.0
# Children that were not needed for so long end.
WINDOW = 60.0


class NoChild(Exception):
    """No child process could be had."""


class Children:
    """Any of them runs jobs of any task, one at a time. Belongs to the loop."""

    def __init__(self, upbringing: Upbringing, clock: Clock) -> None:
        self.upbringing = upbringing
        self._clock = clock
        # Told of each birth and burial, so that a supervisor can end what they leave when we die; must not raise.
        self.tell: Callable[[Message], object] = lambda message: None
        self._spawner: Spawner | None = None
        self._all: set[ChildProcess] = set()
        self._idle: list[ChildProcess] = []
        # For jobs whose process has died before: each of them may be too much for the machine.
        self._cores = anyio.Semaphore(os.cpu_count() or 1)
        # Who has one, and of which time that it was lent.
        self._at_core: dict[ChildProcess, object] = {}
        self._waits: set[anyio.CancelScope] = set()
        # Whether nothing is lent any more.
        self.is_stopped = False
        self._pause = 0.0
        # How many times in a row a process could not be started for want of descriptors.
        self._shortages = 0
        # Why none could be started beside others, as far as that was said.
        self._told: set[str] = set()
        self._most_busy = 0
        self._window_ends = 0.0

    def open(self, spawner: Spawner) -> None:
        """Begin to work on the running loop."""
        self._spawner = spawner

    @property
    def is_helpless(self) -> bool:
        """Whether users' code has used up what this process may have open: only another one can help."""
        return self._shortages >= MOST_SHORTAGES

    # --- lending -----------------------------------------------------------------------------------------

    async def take(self, losses: int = 0) -> ChildProcess:
        """A child, which `put` takes back. Raises NoChild where none starts, or the worker stops.

        For a job with so many losses it has to wait until a core is free of the like.
        """
        if self.is_stopped:
            raise NoChild("the worker stops")
        if losses or (child := self._warm()) is None:
            child = await self._wait_for_one(losses)
        child.is_busy = True
        self._most_busy = max(self._most_busy, len(self._all) - len(self._idle))
        return child

    async def _wait_for_one(self, losses: int) -> ChildProcess:
        with self._unless_stopped():
            if not losses:
                return self._warm() or await self._start()
            await self._cores.acquire()
            try:
                child = self._warm() or await self._start()
            except BaseException:
                self._cores.release()
                raise
            self._at_core[child] = mark = object()
            if losses == 1 and self._spawner is not None:
                self._spawner.start(partial(self._trust, child, mark))
            return child
        raise NoChild("the worker stops")

    async def _trust(self, child: ChildProcess, mark: object) -> None:
        """Most jobs with one loss were but in a worker that died: what has run for a while gives way to the next."""
        await self._clock.sleep(PROBATION)
        if self._at_core.get(child) is mark:
            self._leave_core(child)

    def _leave_core(self, child: ChildProcess) -> None:
        if self._at_core.pop(child, None) is not None:
            self._cores.release()

    def put(self, child: ChildProcess) -> None:
        """Take back what was lent."""
        self._leave_core(child)
        child.is_busy = False
        if child.is_good and child.jobs == 1:
            # Only now a new one has shown that those of today are fit to work.
            self._pause = 0.0
        if self.is_stopped or not child.is_good or child.jobs >= self.upbringing.most_jobs:
            child.leave()
        else:
            self._idle.append(child)

    def complain(self, name: str, reason: str) -> None:
        """Say that a child would not run a job, or call a hook."""
        self._lengthen_pause()
        log.error("a child process could not run %s, which has to wait: %s", name, reason)

    @contextmanager
    def _unless_stopped(self) -> Iterator[None]:
        with anyio.CancelScope() as scope:
            self._waits.add(scope)
            if self.is_stopped:
                scope.cancel()
            try:
                yield
            finally:
                self._waits.discard(scope)

    def _warm(self) -> ChildProcess | None:
        while self._idle:
            child = self._idle.pop()
            if not child.is_dead():
                return child
            child.leave()
        return None

    async def _start(self) -> ChildProcess:
        try:
            spawned = spawn(MODULE, f"child of {self.upbringing.root}", self.upbringing.hello)
        except OSError as error:
            if error.errno == errno.EMFILE:
                # Where there are others, it is they who have the descriptors, and they do the work.
                self._shortages += not self._all
            raise self._no_child(why(error)) from error
        self._shortages = 0
        child = ChildProcess(spawned, self._clock)
        self._keep(child)
        reason: str | None = f"it took longer than {LONGEST_START:g} s to get ready"
        try:
            with anyio.move_on_after(LONGEST_START):
                reason = await child.ready()
        except BaseException:
            self._drop(child)
            raise
        if reason is not None:
            self._drop(child)
            raise self._no_child(reason)
        return child

    def _no_child(self, reason: str) -> NoChild:
        self._lengthen_pause()
        if reason not in self._told:
            log.error("no child process could be started, so what it was for has to wait: %s", reason)
        if self._all:
            # Others work on, and it would be said for each job that finds all of them busy.
            self._told.add(reason)
        return NoChild(reason)

    def _lengthen_pause(self) -> None:
        self._pause = min(max(FIRST_PAUSE, 2 * self._pause), LONGEST_PAUSE)

    async def pause(self) -> None:
        """Give the machine some time after a child that could not be started, or would not do what it was for."""
        with self._unless_stopped():
            await self._clock.sleep(self._pause)

    # --- keeping -----------------------------------------------------------------------------------------

    def _keep(self, child: ChildProcess) -> None:
        if not self._window_ends and self._spawner is not None:
            self._window_ends = self._clock.monotonic() + WINDOW
            self._spawner.start(self._look_after)
        self._all.add(child)
        self.tell({"born": child.pid})

    def _forget(self, child: ChildProcess) -> None:
        self._all.discard(child)
        self.tell({"buried": child.pid})

    def _drop(self, child: ChildProcess) -> None:
        child.kill()
        child.leave()

    async def _look_after(self) -> None:
        suspects: set[ChildProcess] = set()
        while True:
            await self._clock.sleep(LOOK)
            # All that the dead have said is read by now, unless others hold their channels open.
            for child in suspects:
                child.give_up()
            suspects = {child for child in self._all if child.is_busy and child.is_dead()}
            self._bury()
            if self._clock.monotonic() > self._window_ends:
                self._let_go()

    def _bury(self) -> None:
        """Wait for those that were told to end, or did by themselves, and help those that do not."""
        for child in [child for child in self._idle if child.is_dead()]:
            self._idle.remove(child)
            child.leave()
        for child in [child for child in self._all if not (child.is_good or child.is_busy)]:
            if child.ended():
                self._forget(child)
            elif self._clock.monotonic() > child.patience_ends:
                child.kill()

    def _let_go(self) -> None:
        """Let those end that were not needed lately."""
        needed, busy = self._most_busy, sum(child.is_busy for child in self._all)
        while self._idle and busy + len(self._idle) > needed:
            self._idle.pop(0).leave()
        self._most_busy, self._window_ends = busy, self._clock.monotonic() + WINDOW

    # --- the end -----------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Lend nothing more; who waits for a child gets NoChild."""
        self.is_stopped = True
        for scope in self._waits:
            scope.cancel()

    async def close(self) -> None:
        """End them all, and wait for it; jobs that still run there are cut off."""
        self.stop()
        while self._idle:
            self._idle.pop().leave()
        deadline = self._clock.monotonic() + 3 * PATIENCE
        while self._all and self._clock.monotonic() < deadline:
            # One may have been lent at the last moment.
            for child in [child for child in self._all if child.is_busy and child.is_good]:
                child.kill()
            self._bury()
            await self._clock.sleep(GLANCE)
        if self._all:
            log.error("child processes do not end: %s", ", ".join(str(child.pid) for child in self._all))
