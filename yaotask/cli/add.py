"""`yaotask add`: put a job into its task's queue."""

from __future__ import annotations

from typing import Any

import click

from yaotask.app import App
from yaotask.cli import words
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
    given = {name: value for name, value in options.items() if value is not None}
    with App(session.root) as app:
        id = app.tasks[task].options(**given).add(*words.arguments(args), **words.payload(payload))
        name = f"{task}.{id}"
        click.echo(name)
        return wait(app, name) if waits else 0


COMMANDS = {"add": add}
