"""Projects whose handlers run in child processes, and a look at what is left of those."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
from runtime_support import PATIENCE, ended

from yaotask import App


async def run(app: App, *args: Any) -> dict[str, Any]:
    """A job of the task `mail`, once it has ended."""
    return await ended(app, await app.acall("tasks.mail.add", *args))


def children() -> list[int]:
    """The processes that this one has started and not waited for."""
    lists = Path("/proc/self/task").glob("*/children")
    return [int(pid) for one in lists for pid in one.read_text().split()]


def is_alive(pid: int) -> bool:
    """Whether a process lives; what has ended, and waits for whoever adopted it, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(look: Callable[[], bool]) -> None:
    """Wait until a look at what gives no signal is true."""
    with anyio.fail_after(PATIENCE):
        while not look():  # noqa: ASYNC110 - it happens in another process
            await anyio.sleep(0.01)


async def appears(file: Path) -> str:
    """The text of a file, once it is there."""
    await until(lambda: file.exists() and file.read_text().endswith("\n"))
    return await anyio.Path(file).read_text()


async def gone(*pids: int) -> bool:
    """Wait until none of them lives."""
    await until(lambda: not any(map(is_alive, pids)))
    return True


def losses(app: App, id: int) -> int:
    """How many deaths a job of `mail` has on its account."""
    with app._access.reading() as connection:
        found: int = connection.exec_driver_sql(
            "SELECT losses FROM yaotask_jobs WHERE id = ? AND task = 'mail'", (id,)
        ).scalar_one()
        return found
