"""Lines to a server that are slow, or are reset in the middle of a message: no job is lost, and each runs once."""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from fleet_folders import all_succeed, folder
from node_support import lines_with
from odd_lines import reached_by_way_of
from run_support import notes, running
from server_fixtures import Database

from yaotask import App
from yaotask.errors import StorageError

pytest_plugins = ["run_fixtures"]
pytestmark = [
    pytest.mark.only_on("postgresql", "mariadb"),
    pytest.mark.timeout(120),
    # PyMySQL leaves a socket to the garbage collector where the other end has gone.
    pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

JOBS = 20
# A node waits a while after each, and longer after several in a row.
RESETS_OF_ADDERS, RESETS_OF_NODES = 20, 8
TASKS = {"quick": "name: Q\nprocess: scripts.quick.Quick\nsize: 9999\nworker_nums: 4\n"}
SCRIPTS = {
    "quick": """
    from scripts.witness import note

    def Quick(task_id, text):
        note("quick", task_id)
"""
}
# In several bytes each.
TEXT = "任务" * 50


def project(tmp_path: Path, name: str, database: Database) -> Path:
    return folder(tmp_path, name, database, tasks=TASKS, scripts=SCRIPTS, settings="poll: 200ms\n")


def insist(app: App, key: str) -> int:
    """Add a job under a key again and again until that is answered, as whoever needs it stored would."""
    while True:
        try:
            return app.tasks["quick"].options(key=key).add(TEXT)
        except StorageError:
            time.sleep(0.02)


def test_on_a_line_that_passes_one_byte_at_a_time_all_is_as_on_any_other_but_slower(
    tmp_path: Path, database: Database
) -> None:
    with reached_by_way_of(database) as (line, here):
        line.is_slow = True
        a, c = project(tmp_path, "a", here), project(tmp_path, "c", here)
        with App(c) as app, running(a) as node:
            ids = [app.tasks["quick"].add(TEXT) for _ in range(JOBS // 2)]
            ids += app.tasks["quick"].add_many([[TEXT]] * (JOBS // 2))
            all_succeed(app, JOBS)
            attempts = [one for id in ids for one in app.attempts(f"quick.{id}")]
            node.signal(signal.SIGTERM)
            status = node.status()

    assert Counter(map(int, notes(a, "quick"))) == dict.fromkeys(ids, 1)
    assert (status, attempts, lines_with(node, " ERROR ")) == (0, [], [])


def test_on_lines_that_are_reset_in_the_middle_of_messages_each_job_runs_once(
    tmp_path: Path, database: Database
) -> None:
    with reached_by_way_of(database) as (adders, here), reached_by_way_of(database) as (nodes, there):
        a, c = project(tmp_path, "a", there), project(tmp_path, "c", here)
        with App(c) as app, running(a) as node:
            ids = [insist(app, "first")]
            adders.resets_left, nodes.resets_left = RESETS_OF_ADDERS, RESETS_OF_NODES
            while adders.resets_left or nodes.resets_left:
                ids.append(insist(app, str(len(ids))))
                time.sleep(0.01)
            again = [insist(app, str(number)) for number in range(1, len(ids))]
            all_succeed(app, len(ids))
            node.signal(signal.SIGTERM)
            status = node.status()

    assert again == ids[1:]
    assert Counter(map(int, notes(a, "quick"))) == dict.fromkeys(ids, 1)
    assert "died" not in node.errors
    assert status == 0
