"""A node that runs short of open files, or of connections to its server: it says so in a line, and loses no job."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from exhausted_support import all_connections_taken, running_with_files, take_few
from fleet_folders import all_succeed, folder, open_gate, statuses
from node_support import lines_with, nothing_left
from own_server import OwnServer
from run_support import WITNESS, add, notes, running, until
from servers import SERVERS

from yaotask import App

pytest_plugins = ["own_server_fixtures"]
pytestmark = pytest.mark.timeout(120)

JOBS = 8


# --- open files ---------------------------------------------------------------------------------------

FILES = 64
TASKS = {
    "quick": "name: Quick\nprocess: scripts.some.Quick\nworker_nums: 4\n",
    "apart": "name: Apart\nprocess: scripts.some.Quick\nworker_nums: 6\nexecutor: process\n",
    "hoard": "name: Hoard\nprocess: scripts.some.Hoard\n",
}
SCRIPTS = {
    "witness": WITNESS,
    "some": """
        import time
        from pathlib import Path

        from scripts.witness import note

        LEFT = 12

        def Quick(task_id):
            time.sleep(0.02)

        def Hoard(task_id):
            held = []
            try:
                while True:
                    held.append(open("/dev/null"))
            except OSError:
                for file in held[-LEFT:]:
                    file.close()
            note("hoarded", len(held))
            while not Path("gate").exists():
                time.sleep(0.02)
            for file in held:
                file.close()
    """,
}


def test_a_node_of_64_files_runs_jobs_in_threads_and_in_children(project: Callable[..., Path]) -> None:
    root = project(tasks=TASKS, scripts=SCRIPTS)
    with App(root) as app, running_with_files(root, FILES) as run:
        for task in ("quick", "apart"):
            app.tasks[task].add_many([[]] * 30)
        all_succeed(app, 60)
        run.signal(signal.SIGTERM)

        assert run.status() == 0
    assert lines_with(run, " ERROR ") == []
    nothing_left(root)


def test_children_that_find_no_files_are_missed_in_one_line_and_the_others_run_their_jobs(
    project: Callable[..., Path],
) -> None:
    root = project(tasks=TASKS, scripts=SCRIPTS)
    with App(root) as app, running_with_files(root, FILES) as run:
        app.tasks["hoard"].add()
        until(lambda: notes(root, "hoarded"))
        app.tasks["apart"].add_many([[]] * 40)
        run.says("no child process could be started")
        until(lambda: statuses(app).get("SUCCESS") == 40)
        attempts = {app.get(f"apart.{id}")["attempt"] for id in range(1, 41)}
        open_gate(root)
        all_succeed(app, 41)
        run.signal(signal.SIGTERM)
        status = run.status()
    (said,) = lines_with(run, "no child process could be started")

    assert said.endswith("what it was for has to wait: Too many open files: raise their limit (ulimit -n)")
    assert "is replaced" not in run.errors
    assert (status, attempts) == (0, {1})


# --- connections --------------------------------------------------------------------------------------


@pytest.fixture
def few_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    take_few(monkeypatch)


# PyMySQL leaves a socket to the garbage collector where it is refused.
@pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.usefixtures("few_connections")
@pytest.mark.parametrize("server", list(SERVERS), indirect=True)
def test_a_node_without_a_connection_says_what_to_do_and_goes_on_when_it_has_one(
    tmp_path: Path, server: OwnServer
) -> None:
    database = server.database()
    root = folder(tmp_path, "a", database)
    add(root, JOBS)
    with running(root) as run:
        until(lambda: len(notes(root, "start")) == 2)
        with all_connections_taken(database):
            open_gate(root)
            # It may have met the end of one first.
            until(lambda: told(lines_with(run, "the store cannot be written")))
        with App(root) as app:
            all_succeed(app, JOBS)
        run.says("the store can be written again")
        run.signal(signal.SIGTERM)
        status = run.status()
    said = told(lines_with(run, "the store cannot be written"))

    assert len(said) <= len(lines_with(run, "the store can be written again"))
    assert all("raise" in line and "max_connections" in line for line in said), said
    assert sorted(map(int, notes(root, "start"))) == list(range(1, JOBS + 1))
    assert not any(word in run.errors for word in ("Traceback", "died"))
    assert status == 0


def told(lines: list[str]) -> list[str]:
    """Those that name what is short."""
    return [line for line in lines if "has no connection left" in line]
