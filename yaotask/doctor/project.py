"""The project's files, and the programs that read them."""

from __future__ import annotations

import importlib.metadata
import platform
import sqlite3
from collections.abc import Mapping, Sequence

from yaotask.app import App
from yaotask.doctor.finding import Findings, fault, ok, warn
from yaotask.phrases import counted
from yaotask.problems import Problem
from yaotask.store.dialects.sqlite_database import OLDEST_SQLITE

LIBRARIES = {"sqlalchemy": "SQLAlchemy", "anyio": "AnyIO"}


def settings(app: App) -> Findings:
    """What `yaotask.yml` and the variables say."""
    problems = [problem for problem in app.problems if problem not in app.catalog.problems]
    if problems:
        yield fault("settings", _first_of(problems), "mend that: nothing is run or stored until then")
    else:
        yield ok("settings", "no problems")


def definitions(app: App) -> Findings:
    """What the files of tasks say."""
    if problems := app.catalog.problems:
        yield fault("definitions", _first_of(problems), "mend that; `yaotask check` shows all of it, with its place")
    elif not app.catalog.tasks:
        yield warn("definitions", "there is no task", "write one, as in tasks/mail.yml")
    else:
        yield ok("definitions", counted(len(app.catalog.tasks), "task"))


def handlers(broken: Mapping[str, Sequence[Problem]]) -> Findings:
    """Whether the functions that tasks name are there."""
    for task, problems in sorted(broken.items()):
        reason = problems[0].message.partition("\n")[0]
        yield fault("handlers", f"{task} is broken, its jobs wait: {reason}", "mend it, then start `yaotask run` again")
    if not broken:
        yield ok("handlers", "all can be imported")


def versions() -> Findings:
    """What this command runs on."""
    names = {"yaotask": "yaotask", **LIBRARIES}
    found = [f"{shown} {importlib.metadata.version(name)}" for name, shown in names.items()]
    known = ", ".join([*found, f"Python {platform.python_version()}", f"SQLite {sqlite3.sqlite_version}"])
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        yield fault("versions", known, f"use a Python whose SQLite is {oldest} or newer")
    else:
        yield ok("versions", known)


def _first_of(problems: Sequence[Problem]) -> str:
    if len(problems) == 1:
        return str(problems[0])
    return f"{counted(len(problems), 'problem')}, the first: {problems[0]}"
