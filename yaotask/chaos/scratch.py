"""The project that is broken on purpose: a folder for each node and each caller, that share one store."""

from __future__ import annotations

import json
import os
import shutil
from datetime import timedelta
from importlib import resources
from pathlib import Path

from yaotask.app import App
from yaotask.chaos.facts import Bounds, Terms
from yaotask.events import EventKind
from yaotask.store.reaping import MOST_DEATHS

# Hooks whose events are kept until they were told.
DURABLE = tuple(kind.hook for kind in EventKind)
# Microseconds in which a node that judges others must have come to it, after their leases are over.
REAP = 5_000_000

# Short, so that a minute holds many recoveries.
SETTINGS = """
store: {store}
lease: 2s
heartbeat: 600ms
poll: 200ms
grace: 2s
cancel_grace: 1s
"""


def furnish(folder: Path, store: str) -> None:
    """Write the project into a new folder."""
    with resources.as_file(resources.files("yaotask") / "chaos" / "project") as project:
        shutil.copytree(project, folder, ignore=shutil.ignore_patterns("__pycache__"))
    # The address may have a password.
    handle = os.open(folder / "yaotask.yml", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(handle, "w", encoding="utf-8") as file:
        file.write(SETTINGS.format(store=json.dumps(store)))


def terms_of(app: App) -> dict[str, Terms]:
    """What the tasks of the project promise."""
    return {
        id: Terms(
            attempts=task.attempts,
            worker_nums=task.worker_nums,
            size=task.size,
            timeout=_microseconds(task.timeout),
            hooks=frozenset(hook for hook in DURABLE if getattr(task.event, hook)),
            is_ledgered=id == "ledger",
        )
        for id, task in app.catalog.tasks.items()
    }


def bounds_of(app: App) -> Bounds:
    """The times of the project's settings."""
    settings = app.settings
    return Bounds(
        lease=_microseconds(settings.lease),
        reap=REAP,
        poll=_microseconds(settings.poll),
        grace=_microseconds(settings.cancel_grace),
        losses=settings.losses,
        deaths=MOST_DEATHS,
    )


def _microseconds(time: timedelta) -> int:
    return time // timedelta(microseconds=1)
