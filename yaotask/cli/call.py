"""`yaotask call`: any process call, from a shell."""

from __future__ import annotations

from typing import Any

import click

from yaotask.app import App
from yaotask.cli import exits, words
from yaotask.cli.base import Command, Session
from yaotask.cli.follow import wait
from yaotask.cli.text import echo_json
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
    r"""Call the process NAME with ARGS and print what it returns.

    A word is text, '::{"a": 1}' is JSON, '\::x' is the text ::x.

    \b
    yaotask call scripts.mail.Hello world
    yaotask call tasks.mail.get ::12
    """
    with App(session.root) as app:
        result = _call(app, name, words.arguments(args))
        _show(name, result, silent)
        return _wait(app, name, result) if waits else _status(name, result)


def _call(app: App, name: str, args: list[Any]) -> Any:
    try:
        return app.call(name, *args)
    except (YaotaskError, click.ClickException):
        raise
    except Exception as error:
        # The user's own function: its failure is an answer, not a fault of yaotask.
        raise exits.CallFailed(name, error) from error


def _show(name: str, result: Any, silent: bool) -> None:
    if silent and isinstance(result, str):
        click.echo(result)
    elif silent:
        echo_json(result, one_line=True)
    else:
        click.echo(f"{escape(name)} returned:", err=True)
        echo_json(result)


def _status(name: str, result: Any) -> int:
    """`add` answers 0 where it stored nothing; the reason is in the log."""
    return exits.FAILED if _adds(name) and result == 0 else exits.DONE


def _wait(app: App, name: str, result: Any) -> int:
    if not _adds(name):
        raise click.UsageError("--wait is for calls that add a job, as in tasks.mail.add")
    if result == 0:
        return exits.FAILED
    task = name.split(".", 1)[1].rsplit(".", 1)[0]
    id = result["id"] if isinstance(result, dict) else result
    return wait(app, f"{task}.{id}")


def _adds(name: str) -> bool:
    group, _, rest = name.partition(".")
    return group.lower() == "tasks" and rest.rpartition(".")[2].lower() in ADDS


COMMANDS = {"call": call}
