"""`yaotask run`: a node in the foreground, from its first signal to its exit status."""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncIterator, Mapping

import anyio

from yaotask import requests
from yaotask.app import App
from yaotask.durations import show
from yaotask.plan import Place, Plan
from yaotask.processes import Spawned
from yaotask.runtime.failures import innermost
from yaotask.runtime.supervisor import Supervisor

log = logging.getLogger(__name__)

DONE, ENDED_AT_ONCE = 0, 1


def run(app: App, plan: Plan, started: Mapping[Place, Spawned], *, drain: bool = False) -> int:
    """Run jobs until SIGTERM or SIGINT, or with `drain` until nothing is left to do; the exit status.

    Some places of the plan may have their first processes `started`. The first signal lets running jobs go on
    for the setting `grace`, the second ends at once (status 1), unless it is a SIGHUP.
    Raises StorageError where the store cannot be used, CrashLoop where no process comes to work.
    """
    app.upgrade_store()
    node = Node(app, app.works.supervisor(plan))
    try:
        anyio.run(node.run, drain, started)
    except BaseExceptionGroup as group:
        raise innermost(group) from group
    return node.status


class Node:
    """A supervisor, and the signals that end it."""

    def __init__(self, app: App, supervisor: Supervisor) -> None:
        self.status = DONE
        self._grace = show(app.settings.grace)
        self._supervisor = supervisor

    async def run(self, drain: bool, started: Mapping[Place, Spawned]) -> None:
        """Until drained, or told to stop."""
        async with anyio.create_task_group() as group:
            # SIGHUP is kept for reloading, until which it ends the node too. SIGQUIT ends it at once.
            with anyio.open_signal_receiver(*requests.heard(), signal.SIGQUIT) as signals:
                group.start_soon(self._hear, signals)
                await self._supervisor.run(drain, started)
            group.cancel_scope.cancel()

    async def _hear(self, signals: AsyncIterator[signal.Signals]) -> None:
        async for number in signals:
            name = number.name
            if number != signal.SIGQUIT and not self._supervisor.is_stopping:
                log.info("%s: running jobs get %s, then the rest is handed back", name, self._grace)
                self._supervisor.stop()
            # Who closes a terminal says so once: its shell sends a SIGHUP, and the system another one.
            elif number != signal.SIGHUP:
                log.warning("%s: ending at once", name if number == signal.SIGQUIT else f"{name} again")
                self.status = ENDED_AT_ONCE
                self._supervisor.hurry()
