"""`yaotask show` and `yaotask schema`: what a task is, and what one may be."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click
from yaotask.definitions.loader import load

from yaotask.cli.base import Command, Session
from yaotask.cli.text import compact, echo_json, show_fields
from yaotask.definitions.schema import task_schema
from yaotask.errors import BadDefinitions
from yaotask.settings import find_root, load_settings

MASK = "***"
SCHEMA = Path(".yaotask", "task.schema.json")


@click.command("show", cls=Command)
@click.argument("task")
@click.option("--effective", is_flag=True, help="Every key, with defaults and variables filled in.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def show(session: Session, task: str, effective: bool, as_json: bool) -> None:
    """Show the definition of TASK as its file has it.

    Values that --effective takes from the environment are masked.
    """
    root = find_root(session.root, os.environ, Path.cwd())
    settings, problems = load_settings(root, os.environ)
    catalog = load(root, settings, os.environ)
    if task not in catalog.tasks and (problems or catalog.problems):
        raise BadDefinitions([*problems, *catalog.problems])
    definition = catalog.get(task)
    keys = _effective(root, settings, definition) if effective else _written(root, definition)
    if as_json:
        echo_json(keys)
    else:
        show_fields((key, value if isinstance(value, str) else compact(value)) for key, value in keys.items())


@click.command("schema", cls=Command)
@click.option("--write", is_flag=True, help="Write it to .yaotask/task.schema.json, where editors look.")
@click.pass_obj
def schema(session: Session, write: bool) -> None:
    """Print the JSON Schema of task files, for editors."""
    if write:
        click.echo(write_schema(find_root(session.root, os.environ, Path.cwd())))
    else:
        echo_json(task_schema())


def write_schema(root: Path) -> Path:
    """Put the schema where the first line of our task files tells editors to look; returns the file."""
    file = root / SCHEMA
    file.parent.mkdir(mode=0o700, exist_ok=True)
    file.write_text(json.dumps(task_schema(), indent=2) + "\n", encoding="utf-8")
    return file
