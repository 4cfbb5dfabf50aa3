"""`yaotask run`: a node of this project, until it is told to stop.

Importing all that a node needs takes longer than everything else of its start. Its workers import it too;
so they are started first.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn

import click

from yaotask import launch
from yaotask.cli.base import Command, Session
from yaotask.plan import Place, Plan
from yaotask.processes import Spawned
from yaotask.root import find_root
from yaotask.settings import load_settings


@click.command("run", cls=Command)
@click.option("--drain", is_flag=True, help="Stop when nothing is ready, running or retrying.")
@click.option("--processes", type=click.IntRange(0, 1_000), metavar="N", help="Worker processes; 0 runs services only.")
@click.option("--only", multiple=True, metavar="TASK", help="Run this task alone; may be given again.")
@click.option("--no-http", is_flag=True, help="Serve no HTTP.")
@click.pass_obj
def run(session: Session, /, drain: bool, processes: int | None, only: tuple[str, ...], no_http: bool) -> int:
    """Run the project's tasks until SIGTERM or Ctrl-C.

    The first of them lets running jobs finish for a while (the setting `grace`); a second one ends at
    once. Jobs that did not finish are handed back and run again.
    """
    root = find_root(session.root, os.environ)
    settings, faults = load_settings(root, os.environ)
    plan = Plan(root, settings.processes if processes is None else processes, tuple(dict.fromkeys(only)))
    with _ending_early(), _started(plan if not faults else Plan(root, 0)) as started:
        status: int = launch.load("yaotask.cli.foreground").run(plan, started, drain=drain)
        return status


@contextmanager
def _ending_early() -> Iterator[None]:
    """Until the node hears signals itself, SIGTERM ends it at once: nothing runs yet that would need a grace.

    The first process of a container has to say so, or the system drops the signal.
    """
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(number: int, frame: object) -> NoReturn:
    raise SystemExit(0)


@contextmanager
def _started(plan: Plan) -> Iterator[Mapping[Place, Spawned]]:
    """The first processes of all workers; none is left where the node did not come to be."""
    started: dict[Place, Spawned] = {}
    try:
        for place in plan.workers:
            started[place] = place.start()
        yield started
    finally:
        for spawned in started.values():
            spawned.kill()
            spawned.process.wait()
            spawned.close()


COMMANDS = {"run": run}
