"""`yaotask db`: the store itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from yaotask.app import App
from yaotask.cli import exits
from yaotask.cli.base import Command, Session, common_options
from yaotask.cli.move import move
from yaotask.cli.text import compact, echo_json, is_terminal, show_fields
from yaotask.observers.logs import escape
from yaotask.store import scripting, verifying
from yaotask.store.verifying import Fault


@click.group("db")
def db() -> None:
    """Show, upgrade, verify or move the store."""


db.params += common_options()
db.add_command(move)


@db.command("status", cls=Command)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def status(session: Session, as_json: bool) -> None:
    """Show the store: its place, schema, size, and jobs by status."""
    with App(session.root) as app:
        _show(app.store_status(), as_json)


@db.command("upgrade", cls=Command)
@click.option("--sql", is_flag=True, help="Change nothing: print the statements, for somebody who may run them.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def upgrade(session: Session, sql: bool, as_json: bool) -> None:
    """Bring the store to this version's schema; `run` does it too.

    With --sql an empty database gets a script that makes a store.
    """
    if sql and as_json:
        raise click.UsageError("--sql prints statements, not JSON: leave one of the two out")
    with App(session.root) as app:
        if sql:
            click.echo(scripting.script(app.works.place(), app.chance), nl=False)
        else:
            _show(app.upgrade_store(), as_json)


@db.command("verify", cls=Command)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def verify(session: Session, as_json: bool) -> int:
    """Read the whole store, and look for rows that do not fit together.

    Nothing is changed, and nodes may run meanwhile. Exit status 1 if anything is wrong.
    """
    with App(session.root) as app:
        generated = {task for task, definition in app.catalog.tasks.items() if definition.event.next is None}
        faults = verifying.verify(app.works.place(), generated)
    if as_json:
        echo_json([fault._asdict() for fault in faults or []])
    elif faults is None:
        click.echo("there is no store yet; it is made at the first use")
    else:
        _show_faults(faults)
    return exits.FAILED if faults else exits.DONE


def _show_faults(faults: Sequence[Fault]) -> None:
    coloured = is_terminal(sys.stdout) and not os.environ.get("NO_COLOR")
    word = click.style("fault", fg="red") if coloured else "fault"
    for fault in faults:
        click.echo(f"{word}  {escape(f'{fault.about}: {fault.what}')}")
        click.echo(f"       -> {escape(fault.advice)}")
    click.echo(exits.counted(len(faults), "fault"))


def _show(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        echo_json(facts)
    else:
        show_fields((key.replace("_", " "), text(value)) for key, value in facts.items())


def text(value: Any) -> str:
    """A fact as it is shown."""
    match value:
        case dict():
            return "\n".join(f"{key}: {text(inner)}" for key, inner in value.items()) or "none"
        case bool() | list() | None:
            return compact(value)
        case int():
            return f"{value:,}"
        case _:
            return str(value)


COMMANDS = {"db": db}
