"""A server that goes away and comes back, and lines to it that break: no job is lost, and none is stored twice."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio.to_thread import run_sync
from broken_lines import Fate, Line
from fleet_folders import all_succeed, folder
from own_server import OwnServer
from run_support import notes, running, until
from server_fixtures import Database
from servers import SERVERS

from yaotask import App
from yaotask.errors import StorageError, StorageUnavailable
from yaotask.store import direct

pytest_plugins = ["own_server_fixtures"]
pytestmark = pytest.mark.timeout(120)

TASKS = {"quick": "name: Q\nprocess: scripts.quick.Quick\nsize: 9999\nworker_nums: 4\n"}
SCRIPTS = {
    "quick": """
    from scripts.witness import note

    async def Quick(task_id):
        note("quick", task_id)
"""
}


def project(tmp_path: Path, name: str, database: Database) -> Path:
    return folder(tmp_path, name, database, tasks=TASKS, scripts=SCRIPTS, settings="poll: 200ms\n")


def insist(app: App, key: str) -> int:
    """Add a job under a key again and again until that is answered, as whoever needs it stored would."""
    while True:
        try:
            return app.tasks["quick"].options(key=key).add()
        except StorageError:
            time.sleep(0.02)


def can_be_read(app: App) -> bool:
    try:
        return bool(app.store_status())
    except StorageUnavailable:
        return False


# --- the server ---------------------------------------------------------------------------------------


# PyMySQL leaves a socket to the garbage collector where nobody listens at the other end.
@pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize("server", list(SERVERS), indirect=True)
def test_a_server_that_crashes_under_load_loses_no_job(tmp_path: Path, server: OwnServer) -> None:
    database, count = server.database(), 300
    a, c = project(tmp_path, "a", database), project(tmp_path, "c", database)
    with running(a, "--processes", "2") as node, App(c) as app:
        ids: list[int] = []
        adder = threading.Thread(target=lambda: ids.extend(insist(app, str(number)) for number in range(count)))
        adder.start()
        for most in (50, 150):
            until(lambda most=most: len(notes(a, "quick")) > most)  # type: ignore[misc]
            server.crash()
            server.start()
        adder.join(60)
        until(lambda: can_be_read(app))
        all_succeed(app, count)
        died = node.errors if "died" in node.errors else ""
        node.signal(signal.SIGTERM)
        status = node.status()

    assert sorted(ids) == sorted(set(ids))
    assert set(map(int, notes(a, "quick"))) == set(ids)
    assert died == ""
    assert (status, len(ids)) == (0, count)


# --- the line -----------------------------------------------------------------------------------------


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    line = Line()
    monkeypatch.setattr(direct, "run", line.say)
    return line


@pytest.fixture
def app(tmp_path: Path, database: Database) -> Iterator[App]:
    with App(project(tmp_path, "c", database)) as app:
        # From here on there are ids that need no transaction of their own.
        for _ in range(4):
            app.tasks["quick"].add()
        yield app


servers_only = pytest.mark.only_on("postgresql", "mariadb")


@servers_only
def test_who_adds_is_answered_though_the_answer_to_the_commit_was_lost(app: App, line: Line) -> None:
    line.fates = [Fate.AFTER_COMMIT]
    id = app.tasks["quick"].add()

    assert line.broken.total() == 1
    assert app.get(f"quick.{id}")["status"] == "WAITING"
    assert app.store_status()["jobs"]["WAITING"] == 5


@servers_only
@pytest.mark.parametrize("fate", Fate)
def test_ids_are_asked_for_again_where_the_line_breaks(app: App, line: Line, fate: Fate) -> None:
    line.fates = [fate]
    ids = app.tasks["quick"].add_many([[]] * 50)

    assert line.broken.total() == 1
    assert len(set(ids)) == 50
    assert app.store_status()["jobs"]["WAITING"] == 54


@servers_only
def test_where_ids_cannot_be_had_nothing_was_stored_and_that_is_said(app: App, line: Line) -> None:
    line.fates = [Fate.AFTER_COMMIT, Fate.AFTER_COMMIT]
    with pytest.raises(StorageUnavailable, match="nothing was stored"):
        app.tasks["quick"].add_many([[]] * 50)

    assert app.store_status()["jobs"]["WAITING"] == 4


@servers_only
@pytest.mark.parametrize("key", [None, "k"])
def test_where_the_commit_never_arrived_the_job_is_stored_all_the_same(app: App, line: Line, key: str | None) -> None:
    line.fates = [Fate.BEFORE_COMMIT]
    id = app.tasks["quick"].options(key=key).add()

    assert line.broken.total() == 1
    assert app.get(f"quick.{id}")["status"] == "WAITING"
    assert app.store_status()["jobs"]["WAITING"] == 5


@servers_only
def test_with_a_key_who_asks_again_stores_no_second_job(app: App, line: Line) -> None:
    line.fates = [Fate.AFTER_COMMIT]
    first = app.tasks["quick"].options(key="k").add()
    again = app.tasks["quick"].options(key="k").add()

    assert (line.broken.total(), again) == (1, first)
    assert app.store_status()["jobs"]["WAITING"] == 5


@servers_only
async def test_on_a_line_that_breaks_again_and_again_each_job_runs_once(
    tmp_path: Path, database: Database, app: App, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project(tmp_path, "a", database)
    monkeypatch.chdir(root)
    breaks = (Fate.AFTER_COMMIT, Fate.BEFORE_COMMIT) * 4
    line.fates = [fate for last in breaks for fate in (None, None, None, last)]
    async with App(root) as embedded, embedded.running():
        ids = await run_sync(lambda: [insist(app, str(number)) for number in range(40)])
        deadline = time.monotonic() + 60
        while len(notes(root, "quick")) < 44 or line.fates:
            assert time.monotonic() < deadline
            await app.clock.sleep(0.02)
            await run_sync(lambda: insist(app, "0"))
        await run_sync(lambda: all_succeed(app, 44))

    assert Counter(map(int, notes(root, "quick"))) == dict.fromkeys({1, 2, 3, 4, *ids}, 1)
    assert line.broken.total() == 8
