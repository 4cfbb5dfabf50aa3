"""One worker of a node, from its birth by the supervisor to its end."""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NoReturn

import anyio
import anyio.to_thread

from yaotask import invoke, mainloop, processes, requests
from yaotask.app import App
from yaotask.channel import Channel, Message
from yaotask.context import job_name
from yaotask.errors import StorageError, YaotaskError
from yaotask.jobs import OUTCOME_WORDS
from yaotask.observers import logs
from yaotask.problems import Problem
from yaotask.runtime.failures import innermost
from yaotask.runtime.pulse import Pulse
from yaotask.runtime.runner import Runner
from yaotask.runtime.shares import Share

log = logging.getLogger(__name__)

DONE, LOOP_ENDED, FAULTY, NO_STORE = 0, 1, 3, 4
SWITCH_INTERVAL = 0.000_5
# So many new objects make CPython look for cycles among them. With the 700 of its older versions it looks through each
# batch of jobs again and again while they run; with far more, too much stays of what failed handlers have held.
YOUNG_OBJECTS = 2_000
# Seconds that are left to what is still in the process once its jobs are given back.
LAST_WORDS = 2.0
# About how many seconds pass between two tries to open the store, drawn each time.
PAUSE = 1.0


def main(arguments: list[str]) -> int:
    """Live as a worker; the exit status."""
    channel, hello = processes.adopted(arguments)
    # The ledger has to win the interpreter from busy handlers several times a cycle; 5 ms each time is too long.
    sys.setswitchinterval(SWITCH_INTERVAL)
    try:
        with App(hello["root"]) as app:
            logs.configure(app.settings.log)
            logs.take_in_users(job_name)
            return Worker(app, channel, hello).live()
    except YaotaskError as error:
        channel.send({"complaint": str(error)})
        return NO_STORE if isinstance(error, StorageError) else FAULTY


class Worker:
    """Runs its share of the project's jobs until its supervisor, or a signal, ends it."""

    def __init__(self, app: App, channel: Channel, hello: Message) -> None:
        self._app = app
        self._channel = channel
        self._hello = hello
        self._grace = app.settings.grace.total_seconds()
        # There once the store was reached.
        self._runner: Runner | None = None

    def live(self) -> int:
        """Get ready, wait for the word to begin, work."""
        app = self._app
        if app.problems:
            self._channel.send({"complaint": "the definitions or settings are at fault: " + str(app.problems[0])})
            return FAULTY
        broken = app.broken()
        logs.revive()
        _look_seldom_for_garbage()
        self._channel.send({"ready": True, "broken": {id: _reason(problems) for id, problems in broken.items()}})
        begin = self._channel.receive()
        if begin is None or "begin" not in begin:
            return DONE
        status = DONE
        try:
            mainloop.run(partial(self._work, broken, begin), self._loop_ended)
        except* StorageError as group:
            # Now: closing the app tries for seconds to write what is left.
            self._channel.send({"complaint": str(innermost(group))})
            status = NO_STORE
        return status

    def _loop_ended(self, error: BaseException) -> NoReturn:
        """Die with the loop: nobody knows whose task has ended it, so all that runs here will run alone next time."""
        log.error("a task that a job or a hook has started ends the event loop:", exc_info=error)
        self._channel.send({"complaint": f"its event loop was ended by {type(error).__name__}"})
        os._exit(LOOP_ENDED)

    async def _work(self, broken: Collection[str], begin: Message) -> None:
        stopping = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(self._hear_supervisor, stopping)
            group.start_soon(self._hear_signals, stopping)
            if await self._reach_store(stopping):
                hello = self._hello
                share = Share(hello["number"], hello["of"])
                self._runner = self._app.works.runner(broken, share, hello["only"])
                await self._run_jobs(self._runner, begin, stopping)
            else:
                self._channel.send({"left": {}})
            group.cancel_scope.cancel()

    async def _reach_store(self, stopping: anyio.Event) -> bool:
        """Open the store, which may be away now as at any other time; False where the end came first."""
        told = False
        async with self._beating(Pulse(self._channel, self._app.clock)):
            while not stopping.is_set():
                try:
                    await anyio.to_thread.run_sync(self._app.works.reach)
                    if told:
                        log.info("the store can be opened again")
                    return True
                except StorageError as error:
                    if not told:
                        log.error("the store cannot be opened, will go on trying: %s", error)
                    told = True
                with anyio.move_on_after(PAUSE * self._app.chance.uniform(0.5, 1.5)):
                    await stopping.wait()
        return False

    async def _run_jobs(self, runner: Runner, begin: Message, stopping: anyio.Event) -> None:
        runner.children.tell = runner.courier.children.tell = self._channel.send
        leave = partial(self._leave, runner)
        async with (
            self._beating(self._pulse(runner)),
            runner.working(begin["begin"], lambda: self._grace, _ear(begin), leave),
        ):
            await stopping.wait()

    @staticmethod
    @asynccontextmanager
    async def _beating(pulse: Pulse) -> AsyncIterator[None]:
        """Show the supervisor that this process lives, and its loop turns, while the block lasts."""
        async with anyio.create_task_group() as group:
            group.start_soon(pulse.turn)
            with pulse.beating():
                yield
            group.cancel_scope.cancel()

    def _leave(self, runner: Runner) -> None:
        """All is given back: what swallows its cancellation, and so keeps the loop, shall not keep the process."""
        self._channel.send({"left": dict(_told(runner))})
        threading.Thread(target=self._end_soon, name="yaotask-end", daemon=True).start()

    def _end_soon(self) -> None:
        self._app.clock.pause(LAST_WORDS)
        log.warning("this worker has left, but something in it goes on: it ends all the same")
        os._exit(DONE)

    def _pulse(self, runner: Runner) -> Pulse:
        settings = self._app.settings
        return Pulse(
            self._channel,
            self._app.clock,
            runner.pools,
            ended=lambda: _told(runner),
            is_helpless=lambda: runner.children.is_helpless or runner.courier.children.is_helpless,
            late_hooks=runner.late_hooks,
            cancel_grace=settings.cancel_grace.total_seconds(),
            hook_timeout=settings.hook_timeout.total_seconds(),
        )

    async def _hear_supervisor(self, stopping: anyio.Event) -> None:
        while (message := await self._channel.areceive()) is not None:
            if "stop" in message:
                self._grace = message["stop"]
                stopping.set()
            elif "hurry" in message:
                if self._runner is not None:
                    self._runner.hurry()
                stopping.set()
        # Where the system does not end us with our supervisor, this does; its jobs are taken back by others.
        os._exit(1)

    async def _hear_signals(self, stopping: anyio.Event) -> None:
        """Somebody ends this one process: its running jobs get their grace, as when the node is stopped."""
        with anyio.open_signal_receiver(*requests.heard()) as signals:
            invoke.expect_no_interrupt()
            async for _ in signals:
                stopping.set()


def _ear(begin: Message) -> Path:
    """Where hints are heard; one that died here may have left its own."""
    path = Path(begin["ear"])
    path.unlink(missing_ok=True)
    return path


def _reason(problems: Sequence[Problem]) -> str:
    """Why a task is broken, in one line."""
    return problems[0].message.partition("\n")[0]


def _look_seldom_for_garbage() -> None:
    """What is here by now, the project's scripts too, stays for good, and is not looked through any more."""
    gc.freeze()
    # Those may have set another, or none.
    if 0 < gc.get_threshold()[0] < YOUNG_OBJECTS:
        gc.set_threshold(YOUNG_OBJECTS)


def _told(runner: Runner) -> Counter[str]:
    return Counter({OUTCOME_WORDS[kind]: count for kind, count in runner.ended.items()})
