"""`yaotask db`: the store itself."""

from __future__ import annotations

from typing import Any

import click

from yaotask.app import App
from yaotask.cli.base import Command, Session, common_options
from yaotask.cli.text import compact, echo_json, show_fields


@click.group("db")
def db() -> None:
    """Show or upgrade the store."""


db.params += common_options()


@db.command("status", cls=Command)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def status(session: Session, as_json: bool) -> None:
    """Show the store: its place, schema, size, and jobs by status."""
    with App(session.root) as app:
        _show(app.store_status(), as_json)


@db.command("upgrade", cls=Command)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def upgrade(session: Session, as_json: bool) -> None:
    """Bring the store to this version's schema; `run` does it too."""
    with App(session.root) as app:
        _show(app.upgrade_store(), as_json)


def _show(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        echo_json(facts)
    else:
        show_fields((key.replace("_", " "), _text(value)) for key, value in facts.items())


def _text(value: Any) -> str:
    match value:
        case dict():
            return "\n".join(f"{key}: {_text(inner)}" for key, inner in value.items()) or "none"
        case bool() | list() | None:
            return compact(value)
        case int():
            return f"{value:,}"
        case _:
            return str(value)


COMMANDS = {"db": db}
