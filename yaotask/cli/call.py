"""`yaotask call`: any process call, from a shell."""

from __future__ import annotations

from typing import Any

import click

from yaotask.app import App
from yaotask.cli import exits, words
from yaotask.cli.base import Command, Session
from yaotask.cli.follow import wait
from yaotask.cli.text import json_text
from yaotask.errors import YaotaskError
from yaotask.observers.logs import escape

ADDS = ("add", "submit")


@click.command("call", cls=Command)
@click.argument("name")
@click.argument("args", nargs=-1)
@click.option("-s", "--silent", is_flag=True, help="Print the bare result and nothing else.")
@click.option("--wait", "waits", is_flag=True, help="Wait for the job that it added; exit status 1 if it failed.")
@click.pass_obj
def call(session: Session, /, name: str, args: tuple[str, ...], silent: bool, waits: bool) -> int:
    """Call the process NAME with ARGS and print what it returns.

    A word is text, '::{"a": 1}' is JSON, '\\::x' is the text ::x.

    \b
    yaotask call scripts.mail.Send ::12 Hello
    yaotask call tasks.mail.get ::12
    """
    if waits and not _adds(name):
        raise click.UsageError("--wait is for calls that add a job, as in tasks.mail.add")
    with App(session.root) as app:
        result = _call(app, name, words.arguments(args))
        _show(name, result, silent)
        if _adds(name) and result == 0:
            return exits.FAILED  # nothing was stored; the reason is in the log
        return wait(app, _job(name, result)) if waits else exits.DONE


def _call(app: App, name: str, args: list[Any]) -> Any:
    try:
        return app.call(name, *args)
    except (YaotaskError, click.ClickException):
        raise
    except (Exception, SystemExit) as error:
        if _is_about_tasks(name) and isinstance(error, TypeError):
            raise click.UsageError(str(error)) from error
        # The user's own function: its failure is an answer, not a fault of yaotask.
        raise exits.CallFailed(f"{name} raised {exits.describe(error)}") from error


def _show(name: str, result: Any, silent: bool) -> None:
    if silent and isinstance(result, str):
        click.echo(result)
        return
    try:
        text = json_text(result, one_line=silent)
    except (TypeError, ValueError, RecursionError) as error:
        raise exits.CallFailed(f"{name} returned what JSON cannot hold: {error}") from error
    if not silent:
        click.echo(f"{escape(name)} returned:", err=True)
    click.echo(text)


def _job(name: str, result: Any) -> str:
    """The job that a call has added: its answer is the id, or the job."""
    task = name.partition(".")[2].rpartition(".")[0]
    return f"{task}.{result['id'] if isinstance(result, dict) else result}"


def _adds(name: str) -> bool:
    return _is_about_tasks(name) and name.rpartition(".")[2].lower() in ADDS


def _is_about_tasks(name: str) -> bool:
    return name.partition(".")[0].lower() == "tasks"


COMMANDS = {"call": call}
