"""`yaotask check`: every problem of the project's files, without a store."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from yaotask.cli import exits, tasks
from yaotask.cli.base import Command, Session
from yaotask.cli.text import echo_json, show_table
from yaotask.definitions.catalog import Catalog
from yaotask.definitions.check import check as check_code
from yaotask.definitions.loader import load
from yaotask.observers.logs import escape
from yaotask.problems import Problem, sort
from yaotask.resolve import Resolver
from yaotask.root import find_root
from yaotask.settings import load_settings


@click.command("check", cls=Command)
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    help="For people, for programs, or as annotations of GitHub Actions.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--strict", is_flag=True, help="Also report keys that were left to their default.")
@click.pass_obj
def check(session: Session, style: str, as_json: bool, strict: bool) -> int:
    """Load every definition, import every handler, and print all problems at once.

    Exit status 3 if there is one. No store is needed.
    """
    root = find_root(session.root, os.environ)
    settings, faults = load_settings(root, os.environ)
    catalog = load(root, settings, os.environ)
    problems = sort([*faults, *catalog.problems, *_of_code(root, catalog, strict)])
    match "json" if as_json else style:
        case "json":
            echo_json([_as_json(problem) for problem in problems])
        case "github":
            for problem in problems:
                click.echo(_annotation(problem))
        case _:
            _show(catalog, problems)
    return exits.DEFINITIONS if problems else exits.DONE


def _of_code(root: Path, catalog: Catalog, strict: bool) -> list[Problem]:
    """What importing the project's functions tells. What they print as they are imported is not our output."""
    with contextlib.redirect_stdout(sys.stderr), contextlib.closing(Resolver(root)) as resolver:
        return check_code(catalog, resolver, strict=strict)


def _show(catalog: Catalog, problems: Sequence[Problem]) -> None:
    for problem in problems:
        for line in problem.render().splitlines():
            click.echo(escape(line))
    if catalog.tasks and not problems:
        show_table(tasks.HEADER, [tasks.row(catalog.tasks[id]) for id in sorted(catalog.tasks)])
    found = exits.counted(len(problems), "problem") if problems else "no problems"
    click.echo(f"{exits.counted(len(catalog.tasks), 'task')}, {found}")


def _as_json(problem: Problem) -> dict[str, str | int | None]:
    return {
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "key": problem.key,
        "message": problem.message,
        "detail": problem.detail,
    }


def _annotation(problem: Problem) -> str:
    """A workflow command: `::error file=tasks/mail.yml,line=4,col=14,title=...::message`."""
    places = {"file": problem.file, "line": problem.line, "col": problem.column, "title": problem.key}
    given = ",".join(f"{name}={_escaped(str(value), ':,')}" for name, value in places.items() if value)
    text = "\n".join(filter(None, (problem.message, problem.detail)))
    return f"::error {given}::{_escaped(text)}"


def _escaped(text: str, more: str = "") -> str:
    for character in "%\r\n" + more:
        text = text.replace(character, f"%{ord(character):02X}")
    return text


COMMANDS = {"check": check}
