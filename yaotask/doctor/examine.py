"""All that `yaotask doctor` looks at, in order."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from yaotask.app import App
from yaotask.doctor import contents, place, project, work
from yaotask.doctor.finding import Finding, Findings, fault, ok
from yaotask.errors import StorageError
from yaotask.store import checkup, migrations, opening

if TYPE_CHECKING:
    from sqlalchemy import Connection


def examine(app: App, *, whole: bool = False) -> Iterable[Finding]:
    """Everything that was found, good or bad. Imports the scripts; changes nothing.

    `whole` reads all of the database to see whether it is sound, which takes its time where it is large.
    """
    broken = app.broken()
    yield from project.settings(app)
    yield from project.definitions(app)
    yield from project.handlers(broken)
    yield from project.versions()
    # Where the settings are at fault, what they say of the store may not be what is meant.
    if len(app.problems) == len(app.catalog.problems):
        yield from _store(app, broken, whole)


def _store(app: App, broken: Collection[str], whole: bool) -> Findings:
    try:
        where = opening.place(app.root, app.settings.store)
        yield from place.folder(where)
        yield from place.disk(where)
        yield from place.log(where)
        with checkup.looking(where) as connection:
            if connection is None:
                yield from place.empty(where)
            else:
                yield from _inside(app, where, connection, broken, whole)
    except StorageError as error:
        yield fault("store", "it cannot be used", str(error))


def _inside(app: App, where: opening.Place, connection: Connection, broken: Collection[str], whole: bool) -> Findings:
    if unsound := checkup.fault(where, connection, whole=whole):
        yield fault("store", unsound.what, unsound.advice)
        return
    looked = "a whole" if whole else "far as was looked"
    yield ok("store", f"{opening.shown(where)}, schema {migrations.version(connection)}, sound as {looked}")
    yield from place.server(where, connection)
    found = contents.read(connection, app.settings, where.dialect().now(connection, app.clock))
    yield from work.clock(found)
    yield from work.workers(found, importlib.metadata.version("yaotask"))
    yield from work.claims(found)
    yield from work.definitions(found)
    yield from work.waiting(found, app.catalog, broken)
    yield from work.events(found)
