"""`yaotask show` and `yaotask schema`: what a task is, and what one may be."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from yaotask import durations
from yaotask.backoff import Backoff
from yaotask.cli.base import Command, Session
from yaotask.cli.text import compact, echo_json, show_fields
from yaotask.definitions.files import SUFFIXES
from yaotask.definitions.loader import load
from yaotask.definitions.model import Definition, Hooks
from yaotask.definitions.schema import TASK, text, write_schema
from yaotask.errors import BadDefinitions, HandlerNotFound
from yaotask.invoke import Handler
from yaotask.resolve import Resolver
from yaotask.root import find_root
from yaotask.settings import load_settings
from yaotask.yamlsource import read_file

MASK = "***"


@click.command("show", cls=Command)
@click.argument("task")
@click.option("--effective", is_flag=True, help="Every key, with defaults and variables filled in.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def show(session: Session, task: str, effective: bool, as_json: bool) -> None:
    """Show the definition of TASK as its file has it.

    Values that --effective takes from the environment are masked.
    """
    root = find_root(session.root, os.environ)
    settings, _ = load_settings(root, os.environ)
    catalog = load(root, settings, os.environ)
    if faults := catalog.faults(task):
        raise BadDefinitions(faults)
    definition = catalog.get(task)
    keys = _effective(_filled(root, definition)) if effective else _written(root, definition)
    if as_json:
        echo_json(keys)
    else:
        show_fields((key, value if isinstance(value, str) else compact(value)) for key, value in keys.items())


@click.command("schema", cls=Command)
@click.option("--json", is_flag=True, expose_value=False, help="Print JSON, as it does anyway.")
@click.option("--write", is_flag=True, help="Write it to .yaotask/task.schema.json, where editors look.")
@click.pass_obj
def schema(session: Session, write: bool) -> None:
    """Print the JSON Schema of task files, for editors."""
    if write:
        click.echo(write_schema(find_root(session.root, os.environ)))
    else:
        click.echo(text(), nl=False)


def _written(root: Path, definition: Definition) -> dict[str, Any]:
    """The keys of the task's file, its references to variables as they stand there."""
    file = definition.source or Path()
    keys, _, _ = read_file(root / file, file.as_posix(), SUFFIXES[file.suffix.lower()])
    return dict(keys)


def _filled(root: Path, definition: Definition) -> Definition:
    """The definition with what its silence means: any payload, and an executor that suits the handler.

    Imports that; where it cannot be found `executor` stays None, and why is said on standard error.
    """
    payload, executor = definition.input or {}, definition.executor
    if executor is None:
        # What scripts print as they are imported is not our output.
        with contextlib.redirect_stdout(sys.stderr), contextlib.closing(Resolver(root)) as resolver:
            executor = _executor(resolver, definition.process)
    return replace(definition, input=payload, executor=executor)


def _executor(resolver: Resolver, path: str) -> str | None:
    try:
        return Handler.find(resolver, path).executor
    except HandlerNotFound as error:
        click.echo(f"executor: not known, since {error}; see: yaotask check", err=True)
        return None


def _effective(definition: Definition) -> dict[str, Any]:
    """Every key, as a file would say it."""
    values = ((key, getattr(definition, key)) for key in TASK["properties"] if key != "$schema")
    return {key: _masked(_plain(value), (key,), definition) for key, value in values}


def _plain(value: Any) -> Any:
    match value:
        case timedelta():
            return durations.show(value)
        case tuple():
            return list(value)
        case Hooks() | Backoff():
            members = ((field.name, getattr(value, field.name)) for field in fields(value))
            return {name: _plain(member) for name, member in members if member is not None}
        case _:
            return value


def _masked(value: Any, path: tuple[str | int, ...], definition: Definition) -> Any:
    """The value, without those parts that came from the environment."""
    if path in definition.secrets:
        return MASK
    match value:
        case dict():
            return {key: _masked(member, (*path, key), definition) for key, member in value.items()}
        case list():
            return [_masked(member, (*path, index), definition) for index, member in enumerate(value)]
        case _:
            return value


COMMANDS = {"show": show, "schema": schema}
