"""`yaotask run`: the worker of this project, until it is told to stop."""

from __future__ import annotations

import importlib.metadata
import io
import logging
import sys
from collections.abc import Sequence

import click

from yaotask import worker
from yaotask.app import App
from yaotask.cli import tasks
from yaotask.cli.base import Command, Session
from yaotask.cli.exits import counted
from yaotask.cli.text import show_fields, show_table
from yaotask.definitions.model import Definition
from yaotask.errors import BadDefinitions
from yaotask.observers import logs

logger = logging.getLogger(__name__)


@click.command("run", cls=Command)
@click.option("--drain", is_flag=True, help="Stop when nothing is ready, running or retrying.")
@click.option("--no-http", is_flag=True, help="Serve no HTTP.")
@click.pass_obj
def run(session: Session, /, drain: bool, no_http: bool) -> int:
    """Run the project's tasks until SIGTERM or Ctrl-C.

    The first of them lets running jobs finish for a while (the setting `grace`); a second one ends at
    once. Jobs that did not finish are handed back and run again.
    """
    # What handlers print is seen when it is printed, in a log file too.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    with App(session.root) as app:
        if app.problems:
            raise BadDefinitions(app.problems)
        logs.configure(app.settings.log)
        _announce(app)
        return worker.run(app, drain=drain)


def _announce(app: App) -> None:
    """Say what will run, and what will not and why."""
    version = importlib.metadata.version("yaotask")
    broken = app.broken()
    good = [definition for id, definition in sorted(app.catalog.tasks.items()) if id not in broken]
    if app.settings.log == "json":
        logger.info("yaotask %s started", version, extra={"root": str(app.root), "tasks": [task.id for task in good]})
    else:
        _show_banner(app, version, good)
    for id, problems in sorted(broken.items()):
        reason = tasks.reason(problems)
        logger.warning("%s is broken, its jobs wait: %s (mend it and start again)", id, reason, extra={"task": id})
    sys.stderr.flush()


def _show_banner(app: App, version: str, good: Sequence[Definition]) -> None:
    show_fields([("yaotask", version), ("project", str(app.root)), ("store", app.settings.store)], err=True)
    if not good:
        show_fields([("tasks", "none that can run; each is a file such as tasks/mail.yml")], err=True)
        return
    at_once = sum(definition.worker_nums for definition in good)
    show_fields([("workers", f"1 process, at most {counted(at_once, 'job')} at once")], err=True)
    show_table(tasks.HEADER, map(tasks.row, good), err=True)


COMMANDS = {"run": run}
