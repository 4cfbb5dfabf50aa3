"""`yaotask run` once its first processes are on their way: everything that takes time to import."""

from __future__ import annotations

import importlib.metadata
import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

import click

from yaotask import node
from yaotask.app import App
from yaotask.cli import tasks
from yaotask.cli.exits import counted
from yaotask.cli.text import show_fields, show_table
from yaotask.definitions.model import Definition
from yaotask.errors import BadDefinitions
from yaotask.observers import logs
from yaotask.plan import Place, Plan
from yaotask.processes import Spawned
from yaotask.runtime.ward import CrashLoop
from yaotask.store import opening

logger = logging.getLogger(__name__)


def run(plan: Plan, started: Mapping[Place, Spawned], *, drain: bool) -> int:
    """Say what will run, and run it; the exit status."""
    with App(plan.root) as app:
        if app.problems:
            raise BadDefinitions(app.problems)
        logs.configure(app.settings.log)
        wanted = [app.catalog.get(task) for task in plan.only] or [
            task for _, task in sorted(app.catalog.tasks.items())
        ]
        # A full disk under the log keeps no node from its work; records of the log that cannot be written pass too.
        with suppress(OSError):
            _announce(app, wanted, plan.processes)
        try:
            return node.run(app, plan, started, drain=drain)
        except CrashLoop as error:
            raise click.ClickException(str(error)) from error


def _announce(app: App, wanted: Sequence[Definition], processes: int) -> None:
    """Say what will run."""
    version = importlib.metadata.version("yaotask")
    if app.settings.log == "json":
        about = {"root": str(app.root), "tasks": [task.id for task in wanted], "processes": processes}
        logger.info("yaotask %s started", version, extra=about)
    else:
        _show_banner(app, version, wanted, processes)
    sys.stderr.flush()


def _show_banner(app: App, version: str, wanted: Sequence[Definition], processes: int) -> None:
    show_fields(
        [
            ("yaotask", version),
            ("project", str(app.root)),
            ("store", opening.shown(opening.place(app.root, app.settings.store))),
        ],
        err=True,
    )
    if not wanted:
        show_fields([("tasks", "none that can run; each is a file such as tasks/mail.yml")], err=True)
        return
    if not processes:
        show_fields([("workers", "none: this node runs services only")], err=True)
        return
    # How many jobs they run at once is said when they have told which tasks are broken.
    show_fields([("workers", counted(processes, "process", "processes"))], err=True)
    show_table(tasks.HEADER, map(tasks.row, wanted), err=True)
