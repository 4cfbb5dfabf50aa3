"""`yaotask get`, `list`, `cancel`, `retry`: jobs that were added."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import IO, Any

import click

from yaotask.app import App
from yaotask.cli import exits, views, words
from yaotask.cli.base import Command, Session
from yaotask.cli.follow import follow, status_of, warn_if_nobody_works
from yaotask.cli.text import echo_json, show_fields, show_table
from yaotask.errors import YaotaskError

# What came of it, by the status after it.
CANCELLED = {"CANCELLED": "cancelled", "RUNNING": "is running: it has been asked to stop"}

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command("get", cls=Command)
@click.argument("job")
@click.option("--follow", "follows", is_flag=True, help="Wait for its end; exit status 1 if it failed.")
@JSON
@click.pass_obj
def get(session: Session, /, job: str, follows: bool, as_json: bool) -> int:
    """Show JOB, as in mail.12.

    With --follow a bar moves until the job has ended; into a pipe goes a line for each change (with
    --json a JSON object).
    """
    with App(session.root) as app:
        if not follows:
            _show(app.get(job), as_json)
            return exits.DONE
        if as_json:
            found: views.Job = {}
            warn_if_nobody_works(app, job)
            for found in app.follow(job):
                echo_json(found, one_line=True)
        else:
            found = follow(app, job, lambda change: click.echo(views.change(change)))
            _show(found, as_json)
        return status_of(found)


@click.command("list", cls=Command)
@click.argument("task", required=False)
@click.option(
    "--status",
    "statuses",
    metavar="S",
    multiple=True,
    help="Only those in this status: WAITING, RUNNING, SUCCESS, FAILURE, ... May be given again.",
)
@click.option("--since", metavar="TIME", help="Added at or after this time: 2026-11-22T08:00:00Z.")
@click.option("--until", metavar="TIME", help="Added before this time.")
@click.option("--text", metavar="TEXT", help="With this text in its arguments, message or error.")
@click.option("--page", type=click.IntRange(min=1), metavar="N", help="This page, and count them all.")
@click.option("--page-size", type=click.IntRange(min=1, max=200), metavar="N", help="Jobs on a page, at most 200.")
@click.option("--cursor", metavar="C", help="Go on where the page before ended.")
@JSON
@click.pass_obj
def list_(session: Session, /, task: str | None, statuses: tuple[str, ...], as_json: bool, **filters: Any) -> None:
    """List jobs, of TASK or of all tasks, the newest first."""
    with App(session.root) as app, words.options():
        page = app.list(task, status=statuses or None, **filters)
    if as_json:
        echo_json(page)
        return
    show_table(views.HEADER, map(views.row, page["items"]), colours=views.COLOURS)
    click.echo(_footer(page), err=True)


@click.command("cancel", cls=Command)
@click.argument("jobs", nargs=-1, required=True)
@click.pass_obj
def cancel(session: Session, /, jobs: tuple[str, ...]) -> int:
    """Cancel JOBS, and give up failed ones. One that runs is asked to stop."""
    with App(session.root) as app:
        return _each(jobs, lambda job: CANCELLED[app.cancel(job)])


@click.command("retry", cls=Command)
@click.argument("jobs", nargs=-1, required=True)
@click.pass_obj
def retry(session: Session, /, jobs: tuple[str, ...]) -> int:
    """Run JOBS that failed or were cancelled once more, with all their tries."""
    with App(session.root) as app:

        def again(job: str) -> str:
            app.retry(job)
            return "waits to run again"

        return _each(jobs, again)


def _show(job: views.Job, as_json: bool) -> None:
    if as_json:
        echo_json(job)
    else:
        show_fields(views.fields(job))


def _footer(page: dict[str, Any]) -> str:
    shown = exits.counted(len(page["items"]), "job")
    if page["total"] is not None:
        shown += f" of {page['total']:,}"
    return f"{shown}; more with --cursor {page['next_cursor']}" if page["next_cursor"] else shown


def _each(jobs: tuple[str, ...], change: Callable[[str], str]) -> int:
    """Change every job that can be changed, and say what came of it; the others make the status 1."""
    status = exits.DONE
    for job in jobs:
        try:
            done = change(job)
        except YaotaskError as error:
            status = max(status, exits.status_of(error))
            _say(sys.stderr, partial(exits.report, error, debug=False))
        else:
            _say(sys.stdout, partial(click.echo, f"{job} {done}"))
    return status


def _say(stream: IO[str], say: Callable[[], object]) -> None:
    """What came of a job. The next one has its turn also where the reader has left, as in `... | head`."""
    try:
        say()
    except BrokenPipeError:
        exits.let_go(stream)


COMMANDS = {"get": get, "list": list_, "cancel": cancel, "retry": retry}
