"""`yaotask workers`: the nodes, their processes, and what each of them runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import click

from yaotask import nodeview
from yaotask.app import App
from yaotask.cli.base import Command, Session
from yaotask.cli.exits import counted
from yaotask.cli.text import cut, echo_json, show_table
from yaotask.cli.views import took
from yaotask.observers.logs import escape
from yaotask.phrases import listed

Process = dict[str, Any]

HEADER = ("KEY", "PROCESS", "PID", "INCARNATION", "STATE", "AGE", "BEAT", "MEMORY", "RUNS")
COLOURS = {
    "working": "green",
    "draining": "yellow",
    "silent": "red",
    "dead": "red",
}
# So many jobs of a process, and so many characters of its incarnation, are shown to people.
SHOWN_JOBS = 3
SHOWN_NAME = 8
MEGABYTE = 1_000_000
NOBODY = "no worker is up: jobs wait until one is started with: yaotask run"


@click.command("workers", cls=Command)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def workers(session: Session, as_json: bool) -> None:
    """Show every node, its processes, and what each of them runs."""
    with App(session.root) as app:
        processes = app.workers()
    if as_json:
        echo_json(processes)
        return
    for node, members in _nodes(processes):
        click.echo(escape(node))
        show_table(HEADER, map(_row, members), colours=COLOURS)
        for line in _held_up(members[0]):
            click.echo(escape(line))
        click.echo()
    for what in nodeview.disagreements(processes):
        click.echo(escape(f"{what}: a job goes by the node that runs it"), err=True)
    if not any(map(nodeview.can_work, processes)):
        click.echo(NOBODY, err=True)


def _nodes(processes: Iterable[Process]) -> Iterator[tuple[str, list[Process]]]:
    """Each node as one line and its processes."""
    for _, group in groupby(processes, lambda process: process["node"] or process["key"]):
        members = list(group)
        yield _heading(members[0]), members


def _heading(first: Process) -> str:
    """`node 5 on build-1, yaotask 0.1.0; lease renewed 4.2 s ago, 25.8 s left`."""
    if first["node"] is not None:
        return f"node {first['node']} on {first['host']}, whose supervisor is gone"
    version = f", yaotask {first['version']}" if first["version"] else ""
    return f"{nodeview.name(first)}{version}{_lease(first)}"


def _lease(process: Process) -> str:
    left = process["lease_left"]
    if left is None:
        return ""
    if left < 0:
        return f"; its lease ran out {_span(-left)} ago"
    return f"; lease renewed {_span(process['lease_age'])} ago, {_span(left)} left"


def _held_up(first: Process) -> Iterator[str]:
    """What a node does not do although it should."""
    if first["alive"] and first["broken"]:
        yield f"cannot run {listed(first['broken'])}: broken there, as its log says; their jobs are left to other nodes"


def _row(process: Process) -> tuple[str, ...]:
    number = "" if process["number"] is None else f" {process['number']}"
    return (
        str(process["key"]),
        f"{process['kind']}{number}",
        str(process["pid"]),
        process["incarnation"][:SHOWN_NAME],
        process["state"],
        _span(process["age"]),
        _span(process["beat"]),
        "" if process["memory"] is None else f"{process['memory'] / MEGABYTE:,.0f} MB",
        ", ".join(_runs(process)),
    )


def _runs(process: Process) -> Iterator[str]:
    """`mail.12 3.2 s`, the oldest ones; how many more; what is in the way."""
    shown = process["jobs"][:SHOWN_JOBS]
    for job in shown:
        yield f"{job['task_id']} {_span(job['seconds'])}{'' if job['started'] else ' (not started)'}"
    more = process["running"] + process["claimed"] - len(shown)
    if more > 0:
        yield f"{more:,} more"
    for task, number in sorted(process["zombies"].items()):
        yield f"{counted(number, 'zombie')} of {cut(task, 30)}"


def _span(seconds: float | None) -> str:
    return "" if seconds is None else took(max(0, seconds * 1_000))


COMMANDS = {"workers": workers}
