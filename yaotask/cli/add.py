"""`yaotask add`: put a job into its task's queue."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import click

from yaotask.app import App
from yaotask.cli import exits, words
from yaotask.cli.base import Command, Session
from yaotask.cli.follow import wait


@click.command("add", cls=Command)
@click.argument("task")
@click.argument("args", nargs=-1)
@click.option("--payload", metavar="JSON", help="An object whose members go to the handler by name.")
@click.option("--priority", metavar="N", help="Larger runs first: an integer, or low, normal, high.")
@click.option("--delay", metavar="D", help="Run it after this long: seconds, or 500ms, 10m, 1h30m.")
@click.option("--run-at", metavar="TIME", help="Run it at this time: 2026-11-22T08:00:00Z.")
@click.option("--key", metavar="K", help="Adding with a key that was used answers the first job.")
@click.option("--attempts", type=click.IntRange(min=0), metavar="N", help="Retries, instead of the definition's.")
@click.option("--timeout", metavar="D", help="Seconds one try may take, or 5m; instead of the definition's.")
@click.option("--created-by", metavar="NAME", help="Who wanted it.")
@click.option("--wait", "waits", is_flag=True, help="Wait for its end; exit status 1 if it failed.")
@click.pass_obj
def add(session: Session, /, task: str, args: tuple[str, ...], payload: str | None, waits: bool, **options: Any) -> int:
    r"""Add a job to TASK and print its name, as in mail.12.

    ARGS go to the handler in order. A word is text, '::{"a": 1}' is JSON, '\::x' is the text ::x.
    """
    given, named = words.arguments(args), words.payload(payload)
    with App(session.root) as app:
        chosen = app.tasks[task]
        with words.options():
            chosen = chosen.options(**options)
        _import_handler(app, task)
        name = f"{task}.{chosen.add(*given, **named)}"
        click.echo(name)
        return wait(app, name) if waits else exits.DONE


def _import_handler(app: App, task: str) -> None:
    """Let what the handler cannot be called with be refused now; where it cannot be imported, its job waits."""
    # What scripts print as they are imported is not our output.
    with contextlib.redirect_stdout(sys.stderr):
        app.import_handler(task)


COMMANDS = {"add": add}
