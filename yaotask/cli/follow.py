"""Waiting for a job's end in front of a person, or of a pipe."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

import click

from yaotask.cli import exits, views
from yaotask.cli.text import cut, has_rich, is_terminal, pad
from yaotask.nodeview import can_work
from yaotask.observers.logs import escape

if TYPE_CHECKING:
    from yaotask.app import App

WENT_WELL = ("SUCCESS", "PARTIAL", "IGNORED")


class Display(Protocol):
    """Shows a job each time it has changed."""

    def show(self, job: views.Job) -> None: ...


def warn_if_nobody_works(app: App, name: str) -> None:
    """Say on standard error that a job waits for a worker which is not up."""
    if app.get(name)["finished_at"] is None and not any(map(can_work, app.workers())):
        click.echo(f"no worker is up, {name} waits: start one with: yaotask run", err=True)


def follow(app: App, name: str, tell: Callable[[views.Job], None]) -> views.Job:
    """Wait until the job has ended; a bar moves on a terminal, elsewhere `tell` gets each change."""
    job: views.Job = {}
    warn_if_nobody_works(app, name)
    try:
        with bar(name) if is_terminal(sys.stderr) else nullcontext(_Teller(tell)) as display:
            for job in app.follow(name):
                display.show(job)
    except KeyboardInterrupt:
        click.echo(f"{name} goes on by itself; watch it again with: yaotask get {name} --follow", err=True)
        raise
    return job


def wait(app: App, name: str) -> int:
    """Wait for a job that was just added, say on standard error how it ended, return the exit status."""
    job = follow(app, name, lambda job: None)
    click.echo(views.change(job), err=True)
    return status_of(job)


def status_of(job: views.Job) -> int:
    """The exit status of a command that waited for the job."""
    return exits.DONE if job["status"] in WENT_WELL else exits.FAILED


def bar(name: str) -> AbstractContextManager[Display]:
    """The best bar that this terminal can show."""
    if has_rich(sys.stderr):
        # rich takes longer to import than most commands to run.
        from yaotask.cli import pretty  # noqa: PLC0415

        return pretty.Bar(name)
    return PlainBar()


class PlainBar:
    """One line that is written over and over, for terminals without rich."""

    FILL = 24

    def __enter__(self) -> PlainBar:
        return self

    def __exit__(self, *_: object) -> None:
        click.echo("\r" + " " * self._columns() + "\r", err=True, nl=False)

    def show(self, job: views.Job) -> None:
        done = self.FILL * min(job["progress"] or 0, 100) // 100
        line = f"{job['task_id']} [{'#' * done}{'.' * (self.FILL - done)}] {job['status']} {views.progress_note(job)}"
        click.echo("\r" + pad(cut(escape(line), self._columns()), self._columns()), err=True, nl=False)

    def _columns(self) -> int:
        # The last column is left free: some terminals wrap when it is written.
        return shutil.get_terminal_size().columns - 1


class _Teller:
    def __init__(self, tell: Callable[[views.Job], None]) -> None:
        self.show = tell
