"""`yaotask db move`: the store, carried to another database."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import AbstractContextManager
from typing import Protocol

import click

from yaotask.app import App
from yaotask.cli.base import Command, Session
from yaotask.cli.text import cut, echo_json, has_rich, is_terminal, pad
from yaotask.clock import SystemClock
from yaotask.errors import StorageUnavailable
from yaotask.observers.logs import escape, escape_json
from yaotask.phrases import counted
from yaotask.store import opening
from yaotask.store.moving import move as moving
from yaotask.store.moving.move import Moved, Step
from yaotask.store.opening import Place, shown


class Display(Protocol):
    """Shows how far a move is."""

    def show(self, step: Step) -> None: ...


@click.command("move", cls=Command, short_help="Carry the store to another database.")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO", required=False)
@click.option("--undo", is_flag=True, help="Let FROM be used again, which was moved or is being moved.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def move(session: Session, source: str, target: str | None, undo: bool, as_json: bool) -> None:
    """Carry the store to another database: jobs in every state, and all that belongs to them.

    FROM and TO are addresses as in the setting `store`; TO is empty. Stop all nodes first. Ended in the middle, the
    same command goes on where it was.
    """
    with App(session.root) as app:
        app.works.place()  # settings at fault are refused here as everywhere
        here = _place(app, source, "FROM")
        if undo:
            moving.undo(here, app.clock, app.chance)
            _tell_undone(here, as_json)
            return
        if target is None:
            raise click.UsageError("Missing argument 'TO'.")
        there = _place(app, target, "TO")
        with display() as bar:
            moved = moving.move(here, there, SystemClock, app.chance, bar.show)
    setting = _setting(_written(there, target))
    if as_json:
        echo_json({"from": shown(here), "to": shown(there), **moved._asdict(), "setting": setting})
    else:
        _tell(here, there, moved, setting)


def _place(app: App, address: str, argument: str) -> Place:
    try:
        return opening.place(app.root, address)
    except StorageUnavailable as error:
        raise click.BadParameter(str(error).removeprefix("store: "), param_hint=argument) from error


def _written(there: Place, address: str) -> str:
    """An address as it was given, unless somebody may not see all of it."""
    is_open = there.file or shown(there) == there.url.render_as_string(hide_password=False)
    return address if is_open else shown(there)


def _setting(address: str) -> str:
    """The line of yaotask.yml that says it, in which `${` would begin a variable."""
    return f"store: {escape_json(json.dumps(address.replace('${', '$${'), ensure_ascii=False))}"


def _tell_undone(here: Place, as_json: bool) -> None:
    if as_json:
        echo_json({"store": shown(here)})
    else:
        click.echo(f"{escape(shown(here))} can be used again")


def _tell(here: Place, there: Place, moved: Moved, setting: str) -> None:
    states = ", ".join(f"{total:,} {state}" for state, total in moved.jobs.items())
    click.echo(f"moved {counted(sum(moved.jobs.values()), 'job')}{f' ({states})' if states else ''}")
    click.echo(escape(f"from {shown(here)} to {shown(there)}"))
    click.echo(f"{counted(sum(moved.rows.values()), 'row')} on both sides, checksum {moved.checksum}")
    click.echo(escape(f"now write into yaotask.yml: {setting}"))


# --- how far it is ------------------------------------------------------------------------------------


def display() -> AbstractContextManager[Display]:
    """The best that standard error can show."""
    if has_rich(sys.stderr):
        # rich takes longer to import than most commands to run.
        from yaotask.cli import pretty  # noqa: PLC0415

        return pretty.Meter()
    return _PlainMeter() if is_terminal(sys.stderr) else _Lines()


class _Lines:
    """A line at the beginning of each part, for logs and pipes."""

    _last = ""

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        """Each line stands for itself."""

    def show(self, step: Step) -> None:
        if step.what != self._last:
            self._last = step.what
            click.echo(f"{step.what} {counted(step.total, 'row')}", err=True)


class _PlainMeter:
    """One line that is written over and over, for terminals without rich."""

    FILL = 24

    def __enter__(self) -> _PlainMeter:
        return self

    def __exit__(self, *_: object) -> None:
        click.echo("\r" + " " * self._columns() + "\r", err=True, nl=False)

    def show(self, step: Step) -> None:
        done = self.FILL * step.done // max(1, step.total)
        line = f"{step.what} [{'#' * done}{'.' * (self.FILL - done)}] {step.done:,} of {counted(step.total, 'row')}"
        click.echo("\r" + pad(cut(line, self._columns()), self._columns()), err=True, nl=False)

    def _columns(self) -> int:
        # The last column is left free: some terminals wrap when it is written.
        return shutil.get_terminal_size().columns - 1
