"""What the nodes of a server hear from each other; and that everything works where they hear nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fleet_folders import Administrator, all_succeed, folder, statuses
from run_support import Program, notes, running, until
from server_fixtures import Database

from yaotask import App
from yaotask.errors import StorageError
from yaotask.store import hints
from yaotask.store.sql import SqlStore

pytestmark = [pytest.mark.only_on("postgresql", "mariadb"), pytest.mark.timeout(120)]

# Waits until it is cancelled.
FOR_EVER = """
    import asyncio

    from scripts.witness import note

    async def Hold(task_id):
        note("start", task_id)
        await asyncio.sleep(3600)

    async def Quick(task_id):
        note("quick", task_id)
"""
TASKS = {"hold": "name: H\nprocess: scripts.hold.Hold\n", "quick": "name: Q\nprocess: scripts.hold.Quick\nsize: 9999\n"}
NEVER = "poll: 1h\n"
LISTENING = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND query = 'LISTEN yaotask'"
)


@contextmanager
def node_and_adder(tmp_path: Path, database: Database, settings: str) -> Iterator[tuple[Path, App, Program]]:
    """A node, and a program of another machine that adds jobs; what both have is the server."""
    a, c = (
        folder(tmp_path, name, database, tasks=TASKS, scripts={"hold": FOR_EVER}, settings=settings) for name in "ac"
    )
    with running(a) as node, App(c) as app:
        yield a, app, node


def all_is_done(app: App, root: Path) -> None:
    """A job that is added, one that comes due, and one that is cancelled while it runs."""
    app.tasks["quick"].add()
    app.tasks["quick"].options(delay=0.3).add()
    app.tasks["hold"].add()
    until(lambda: notes(root, "start") == ["1"])
    app.cancel("hold.1")
    until(lambda: statuses(app) == {"SUCCESS": 2, "CANCELLED": 1})

    assert sorted(notes(root, "quick")) == ["1", "2"]


@pytest.mark.only_on("postgresql")
def test_a_node_hears_of_what_another_machine_does_though_it_never_looks(tmp_path: Path, database: Database) -> None:
    with node_and_adder(tmp_path, database, NEVER) as (root, app, _):
        # A first job may be found by the look with which a worker begins.
        app.tasks["quick"].add()
        all_succeed(app, 1)
        app.tasks["quick"].add()
        all_succeed(app, 2)
        app.tasks["hold"].add()
        until(lambda: notes(root, "start") == ["1"])
        app.cancel("hold.1")
        until(lambda: statuses(app) == {"SUCCESS": 2, "CANCELLED": 1})


def test_where_hints_are_off_looking_is_enough(tmp_path: Path, database: Database) -> None:
    with node_and_adder(tmp_path, database, "hints: off\npoll: 200ms\n") as (root, app, _):
        all_is_done(app, root)


async def test_where_every_hint_is_lost_looking_is_enough(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[object] = []
    monkeypatch.setattr(SqlStore, "announce", lambda store, tasks: lost.append(store))
    monkeypatch.setattr(hints, "hint", lambda folder, tasks: lost.append(folder))
    a, c = (
        folder(tmp_path, name, database, tasks=TASKS, scripts={"hold": FOR_EVER}, settings="poll: 200ms\n")
        for name in "ac"
    )
    with App(c) as app:
        async with App(a) as embedded, embedded.running():
            monkeypatch.chdir(a)
            await app.tasks["quick"].aadd()
            await app.tasks["quick"].options(delay=0.3).aadd()
            await app.tasks["hold"].aadd()
            await seen(lambda: notes(a, "start") == ["1"], embedded)
            await app.acancel("hold.1")
            await seen(lambda: sorted(notes(a, "quick")) == ["1", "2"], embedded)
            job = await app.aget("hold.1")
            while job["status"] != "CANCELLED":
                await embedded.clock.sleep(0.02)
                job = await app.aget("hold.1")

    assert lost


async def seen(look: object, app: App) -> None:
    """Like `until`, without keeping the loop from its jobs."""
    deadline = time.monotonic() + 30
    while not look():  # type: ignore[operator]
        assert time.monotonic() < deadline
        await app.clock.sleep(0.02)


# --- connections that end -----------------------------------------------------------------------------


@pytest.mark.only_on("postgresql")
def test_a_node_listens_again_once_its_connections_were_ended(tmp_path: Path, database: Database) -> None:
    administrator, ended = Administrator(database), list[int]()
    with node_and_adder(tmp_path, database, NEVER) as (_, app, _):
        for round_ in range(1, 4):
            (ear,) = until(lambda: administrator.ask(LISTENING))
            # All of the node's, and those of who adds, which are idle.
            administrator.end_all()
            ended.append(ear)
            until(lambda: set(administrator.ask(LISTENING)) - set(ended))
            app.tasks["quick"].add()
            all_succeed(app, round_)


def test_nothing_is_lost_while_connections_are_ended(tmp_path: Path, database: Database) -> None:
    administrator, ids, refused = Administrator(database), list[int](), list[StorageError]()
    with node_and_adder(tmp_path, database, "poll: 200ms\n") as (root, app, _):
        for _ in range(8):
            for _ in range(20):
                try:
                    ids.append(app.tasks["quick"].add())
                except StorageError as error:
                    refused.append(error)
            administrator.end_all()
        all_succeed(app, 160)
        runs = list(map(int, notes(root, "quick")))

    # Whoever was idle when its connection was ended is told nothing of it.
    assert refused == []
    assert set(runs) == set(ids)
