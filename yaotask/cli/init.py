"""`yaotask init`: a small project that works, for somebody to change."""

from __future__ import annotations

import shlex
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
    """Write a small working project into DIR, or here.

    Files that exist are left as they are.
    """
    root = directory or session.root or Path()
    for name, template in FILES.items():
        _write(root / name, (resources.files("yaotask") / "templates" / template).read_text("utf-8"))
    write_schema(root)
    click.echo(_next_steps(root))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        click.echo(f"exists   {path} (left as it is)")
    else:
        click.echo(f"wrote    {path}")


def _next_steps(root: Path) -> str:
    steps = [] if root == Path() else [f"cd {shlex.quote(str(root))}"]
    steps += ["yaotask check", "yaotask add hello you", "yaotask run --drain", "yaotask list"]
    return "\n".join(["", "Next:", *(f"    {step}" for step in steps)])


COMMANDS = {"init": init}
