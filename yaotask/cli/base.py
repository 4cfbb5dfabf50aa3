"""What all commands share: `-a/--app`, `--debug`, and groups that import a command when it is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from yaotask import launch
from yaotask.suggest import did_you_mean


@dataclass(slots=True)
class Session:
    """What the options common to all commands said; one per call of `main`."""

    root: Path | None = None
    debug: bool = False


def _remember(context: click.Context, option: click.Parameter, value: Any) -> None:
    # Given before or after the command's name; the later one wins, an absent one says nothing.
    if value:
        setattr(context.ensure_object(Session), str(option.name), value)


def common_options() -> list[click.Parameter]:
    """`-a/--app DIR` and `--debug`, which every command takes."""
    return [
        click.Option(
            ["-a", "--app", "root"],
            metavar="DIR",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            expose_value=False,
            callback=_remember,
            help="The project; else YAOTASK_ROOT, else the nearest folder upward with yaotask.yml or tasks/.",
        ),
        click.Option(
            ["--debug"],
            is_flag=True,
            expose_value=False,
            callback=_remember,
            help="Show the traceback of an error (or set YAOTASK_DEBUG=1).",
        ),
    ]


class Command(click.Command):
    """A command that takes the common options after its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += common_options()


class LazyGroup(click.Group):
    """A group whose commands are named by module and described by one line each.

    `sections` maps a heading to commands; a command is its name and `(module, help)`, and the module
    has a click command of that name. Help is written from the lines alone.
    """

    command_class = Command

    def __init__(
        self, *args: Any, sections: Mapping[str, Mapping[str, tuple[str, str]]] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.sections = sections or {}
        self.lazy = {name: place for section in self.sections.values() for name, place in section.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            return None
        module, _ = self.lazy[cmd_name]
        command: click.Command = launch.load(module).COMMANDS[cmd_name]
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        # A shell that completes a line wants no advice.
        if args and args[0] not in self.lazy and not args[0].startswith("-") and not ctx.resilient_parsing:
            advice = did_you_mean(args[0], self.lazy) or f"; there are {', '.join(self.lazy)}"
            ctx.fail(f'there is no command "{args[0]}"{advice}')
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        wide = max(map(len, self.lazy))
        for heading, commands in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(wide), line) for name, (_, line) in commands.items()])
