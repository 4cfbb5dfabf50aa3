"""What the tests of cancelling share: jobs that run, their cancel, and handlers that wait for it."""

from __future__ import annotations

import threading
import time
from typing import Any

import anyio.to_thread
from runtime_support import PATIENCE, ended, reaches

from yaotask import App
from yaotask.context import Job


async def add(app: App) -> int:
    id: int = await app.acall("tasks.mail.add")
    return id


async def running(app: App) -> int:
    """A job whose handler runs, and is known to."""
    id = await add(app)
    await reaches(app, id, "RUNNING")
    return id


async def cancel(app: App) -> tuple[str, dict[str, Any]]:
    """Cancel a new job while it runs: the answer, and the job after its end."""
    id = await running(app)
    answer = await app.acancel(f"mail.{id}")
    return answer, await ended(app, id)


async def seen(event: threading.Event) -> bool:
    return await anyio.to_thread.run_sync(event.wait, PATIENCE)


def wait_for_the_flag(job: Job) -> None:
    """As a handler in a thread does, between its steps."""
    deadline = time.monotonic() + PATIENCE
    while not job.cancelled:
        assert time.monotonic() < deadline
        time.sleep(0.001)
