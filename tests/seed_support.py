"""What the tests of the promised behaviours share: projects that run in this process, and the wait for their jobs.

The fixture is in seed_fixtures.py. Scripts answer for what they saw: a test asks them by
process calls, as any program would.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import anyio

from yaotask import App
from yaotask.clock import SECOND, SystemClock

T = TypeVar("T")

PATIENCE = 10
# Polling alone would come too late for every test: what has to happen must happen by itself.
SETTINGS = "poll: 1h\n"

# A script that keeps what its handler was called with.
ECHO = """
    calls, told = [], []

    def Send(task_id, *args):
        calls.append([task_id, *args])
        return {"message": "ok"}

    def Calls():
        return calls

    def Told():
        return told
"""

OpenApp = Callable[..., App]


class ShiftedClock(SystemClock):
    """The machine's clock, set forward by as many seconds as a test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0.0
        self.monotonic = lambda: SystemClock.monotonic() + self.ahead

    def now(self) -> int:
        return super().now() + round(self.ahead * SECOND)


def definition(process: str = "scripts.mail.Send", event: str = "", **keys: object) -> str:
    """A task file; `event` names hooks, as in "add error": each is scripts.mail.OnAdd and the like."""
    lines = ["name: Mail", f"process: {process}", *(f"{key}: {value}" for key, value in keys.items())]
    hooks = [f"  {hook}: scripts.mail.{'NextID' if hook == 'next' else 'On' + hook.title()}" for hook in event.split()]
    return "\n".join([*lines, *(["event:", *hooks] if hooks else [])]) + "\n"


async def reaches(app: App, id: int, status: str) -> dict[str, Any]:
    """The job once it has this status."""
    return await _soon(partial(app.aget, f"mail.{id}"), lambda job: bool(job["status"] == status))


async def told(app: App, count: int) -> list[Any]:
    """What the hooks of the project wrote down, once it is so much: `Told` of its script gives the list."""
    calls: list[Any] = await _soon(partial(app.acall, "scripts.mail.Told"), lambda calls: bool(len(calls) >= count))
    return calls


async def _soon(look: Callable[[], Awaitable[T]], is_so: Callable[[T], bool]) -> T:
    with anyio.fail_after(PATIENCE):
        while True:
            if is_so(seen := await look()):
                return seen
            await anyio.sleep(0.005)
