"""`yaotask init`: a small project that works, for somebody to change."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import click

from yaotask.cli.base import Command, Session
from yaotask.definitions.schema import write_schema

# Where each file of the templates goes. The names of two differ, so that no tool takes ours for its own.
FILES = {
    "yaotask.yml": "yaotask.yml",
    "tasks/hello.yml": "tasks/hello.yml",
    "scripts/hello.py": "scripts/hello.py",
    ".gitignore": "gitignore",
    # SchemaStore takes every tasks/*.yml for one of Ansible's; an editor that asks it must hear ours first.
    ".vscode/settings.json": "settings.json",
}


@click.command("init", cls=Command)
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.pass_obj
def init(session: Session, directory: Path | None) -> None:
    """Write a small working project into DIR, else where YAOTASK_ROOT says, else here.

    Files that exist are left as they are.
    """
    if directory and session.root:
        raise click.UsageError(f"say where once: {directory}, or -a {session.root}")
    wanted = os.environ.get("YAOTASK_ROOT")
    root = directory or session.root or Path(wanted or "")
    for name, template in FILES.items():
        _write(root / name, (resources.files("yaotask") / "templates" / template).read_text("utf-8"))
    write_schema(root)
    click.echo("\n".join(["", "Next:", *(f"    {step}" for step in _next_steps(root, wanted))]))


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all: a piece of one would be left as it is by the next try."""
    if os.path.lexists(path):
        click.echo(f"exists   {path} (left as it is)")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.yaotask-new")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    click.echo(f"wrote    {path}")


def _next_steps(root: Path, wanted: str | None) -> Iterator[str]:
    """What to type, in a shell where YAOTASK_ROOT is `wanted`."""
    is_found = wanted and os.path.realpath(wanted) == os.path.realpath(root)
    if wanted and not is_found:
        yield "unset YAOTASK_ROOT"
    if root != Path() and not is_found:
        yield f"cd {shlex.quote(_no_option(str(root)))}"
    yield from ("yaotask check", "yaotask add hello you", "yaotask run --drain", "yaotask list")


def _no_option(folder: str) -> str:
    return f"./{folder}" if folder.startswith("-") else folder


COMMANDS = {"init": init}
