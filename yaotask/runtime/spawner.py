"""Starts tasks for callers that are not tasks themselves, such as what a bell calls."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup

Work = Callable[[], Coroutine[Any, Any, Any]]


class Spawner:
    """Starts what it is given in one task group, each in a copy of one context. Belongs to the loop."""

    def __init__(self) -> None:
        self._wanted: deque[Work] = deque()
        self._called: anyio.Event | None = None

    def start(self, work: Work) -> None:
        """Start this as a task, soon."""
        self._wanted.append(work)
        if self._called is not None:
            self._called.set()

    async def run(self, group: TaskGroup, context: Context) -> None:
        """Start what is wanted, until cancelled."""
        while True:
            self._called = anyio.Event()
            while self._wanted:
                context.copy().run(partial(group.start_soon, self._wanted.popleft()))
            await self._called.wait()
