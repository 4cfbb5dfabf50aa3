"""Servers that speak PostgreSQL's language without LISTEN, NOTIFY and advisory locks: everything works by polling."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fleet_folders import all_succeed, folder, noted, shown
from limited_server import LACKING, Line, limited
from moving_support import filled
from node_support import lines_with
from run_support import command, notes, running, until
from server_fixtures import Database
from servers import Servers
from sqlalchemy.engine import Connection

from yaotask import App
from yaotask.chance import SystemChance
from yaotask.clock import SystemClock
from yaotask.store import migrations
from yaotask.store.opening import open_store, place

pytestmark = [pytest.mark.only_on("postgresql"), pytest.mark.timeout(180)]

JOBS = 200
TASKS = {
    "mail": """
        name: Mail
        process: scripts.mail.Send
        worker_nums: 4
        attempts: 2
        attempt_after: 0
        event: {success: scripts.mail.OnSuccess}
    """
}
SCRIPTS = {
    "mail": """
        import time
        from pathlib import Path

        from scripts.witness import note
        from yaotask import current_job

        def Send(task_id):
            note("start", task_id)
            while task_id <= 8 and not Path("gate").exists():
                time.sleep(0.02)
            if task_id % 4 == 0 and current_job().attempt == 1:
                raise ConnectionError("once more")

        def OnSuccess(id, response):
            note("sent", id)
    """
}


@pytest.fixture(autouse=True)
def no_other_transition() -> None:
    """What is carried is stored in the state that it has."""


@pytest.fixture(params=list(LACKING))
def server(request: pytest.FixtureRequest, database: Database, servers: Servers) -> Iterator[tuple[Database, Line]]:
    with limited(database, servers.folder, request.param) as server:
        yield server


def project(tmp_path: Path, name: str, database: Database) -> Path:
    return folder(tmp_path, name, database, tasks=TASKS, scripts=SCRIPTS, settings="poll: 200ms\n")


def test_two_nodes_share_the_jobs_by_polling(tmp_path: Path, server: tuple[Database, Line]) -> None:
    database, line = server
    a, b, c = (project(tmp_path, name, database) for name in "abc")
    with running(a) as one, running(b) as two, App(c) as app:
        app.tasks["mail"].add_many([[]] * 8)
        until(lambda: len(notes(a, "start")) == len(notes(b, "start")) == 4)
        before = line.connections
        for root in (a, b):
            (root / "gate").touch()
        for _ in range(JOBS - 8):
            app.tasks["mail"].add()
        all_succeed(app, JOBS)
        until(lambda: len(noted("sent", a, b)) == JOBS)
        more = line.connections - before
        upgraded, verified = command(a, "db", "upgrade"), command(a, "db", "verify", "--json")
        for node in (one, two):
            node.signal(signal.SIGTERM)
        ended = [one.status(), two.status()]

    assert sorted(map(int, noted("sent", a, b))) == list(range(1, JOBS + 1))
    assert (ended, [lines_with(node, "died") for node in (one, two)]) == ([0, 0], [[], []])
    assert upgraded.returncode == 0, upgraded.stderr
    assert (verified.returncode, shown(a, verified.stdout)) == (0, []), verified.stderr
    # Each process finds out once, and asks no more.
    assert set(line.refused) == {"LISTEN", "pg_notify", "pg_advisory_"}
    assert line.refused["LISTEN"] == 2
    assert line.refused["pg_notify"] <= 5
    assert more < 20


def test_two_that_make_the_store_at_once_make_one(
    tmp_path: Path, server: tuple[Database, Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    database, line = server
    both, plain = threading.Barrier(2), migrations.create

    def create(connection: Connection, store_id: str, furnish: Callable[[Connection], None]) -> None:
        both.wait(20)  # both have seen that there is nothing yet
        plain(connection, store_id, furnish)

    def found(name: str) -> str | None:
        store = open_store(place(project(tmp_path, name, database), database.url), SystemClock(), SystemChance())
        with store.reading() as connection:
            id = migrations.store_id(connection)
        store.close()
        return id

    monkeypatch.setattr(migrations, "create", create)
    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(found, "ab", timeout=30)

    assert one == other is not None
    assert line.refused["pg_advisory_"] == 2


def test_a_store_is_moved_there_and_away(tmp_path: Path, server: tuple[Database, Line]) -> None:
    database, _ = server
    root = project(tmp_path, "a", database)
    filled(place(root, "sqlite:///old.db"), 500)
    ways = (("sqlite:///old.db", database.url), (database.url, "sqlite:///new.db"))
    moves = [command(root, "db", "move", *way, "--json") for way in ways]

    assert [moved.returncode for moved in moves] == [0, 0], moves
    assert len({json.loads(moved.stdout)["checksum"] for moved in moves}) == 1
