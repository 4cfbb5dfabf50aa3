"""Several nodes on one server, each a folder and processes of its own: what they share, and what they do not."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from fleet_folders import all_succeed, folder, noted, open_gate, processes, statuses
from node_support import lines_with, send
from node_support import processes as processes_in
from run_support import command, notes, running, started, until
from server_fixtures import Database
from store_support import connected

from yaotask import App
from yaotask.store.direct import ask
from yaotask.store.opening import Place, place

pytest_plugins = ["store_fixtures"]
pytestmark = [pytest.mark.only_on("postgresql", "mariadb"), pytest.mark.timeout(120)]

# Ten thousand take their time.
counts = pytest.mark.parametrize(
    "jobs", [1_000, pytest.param(10_000, marks=[pytest.mark.scale, pytest.mark.timeout(240)])]
)
PATIENCE = 200

# A program that adds jobs while the nodes run them, some at a time.
ADDER = """
import sys
from yaotask import App
with App() as app:
    for _ in range(int(sys.argv[1]) // 50):
        app.tasks["hold"].add_many([[]] * 50)
"""


@pytest.fixture
def held_to_the_table(tmp_path: Path, database: Database) -> None:
    """A store that refuses each change of a job that is not in the table of transitions: it is made here, not by a
    node.
    """
    with App(folder(tmp_path, "first", database)) as app:
        app.store_status()


def claimed_by(pids: Sequence[int], there: Place) -> set[int]:
    """All jobs that these processes have claimed, of which `workers` names only some."""
    claims = """
        SELECT jobs.id FROM yaotask_jobs AS jobs JOIN yaotask_workers AS workers ON workers.key = jobs.worker
        WHERE jobs.state = 1 AND workers.pid = :pid
    """
    with connected(there) as connection:
        return {row.id for pid in pids for row in ask(connection, claims, {"pid": pid})}


def four_gated(a: Path, b: Path) -> None:
    """Four jobs that wait for their gate, two on each node."""
    with App(a) as app:
        app.tasks["hold"].add_many([[]] * 4)
    until(lambda: len(notes(a, "start")) == len(notes(b, "start")) == 2)


@counts
@pytest.mark.usefixtures("held_to_the_table")
def test_two_nodes_run_each_job_once_while_a_third_process_adds_them(
    tmp_path: Path, database: Database, jobs: int
) -> None:
    a, b, c = (folder(tmp_path, name, database) for name in "abc")
    with running(a, "--processes", "2") as one, running(b, "--processes", "2") as two, App(c) as app:
        four_gated(a, b)
        with started(c, ["-c", ADDER, str(jobs)]) as adder:
            open_gate(a, b)
            assert adder.status(PATIENCE) == 0, adder.errors
            all_succeed(app, jobs + 4, PATIENCE)
        for node in (one, two):
            node.signal(signal.SIGTERM)
        ended = [one.status(), two.status()]

    assert ended == [0, 0]
    assert Counter(map(int, noted("start", a, b))) == dict.fromkeys(range(1, jobs + 5), 1)


@counts
@pytest.mark.usefixtures("held_to_the_table")
def test_a_node_that_is_killed_loses_nothing_and_only_what_ran_there_runs_again(
    tmp_path: Path, database: Database, jobs: int
) -> None:
    a, b, c = (folder(tmp_path, name, database) for name in "abc")
    with running(a, "--processes", "2"), running(b, "--processes", "2"), App(c) as app:
        four_gated(a, b)
        with started(c, ["-c", ADDER, str(jobs)]) as adder:
            # The other node's pools are full until its gate is opened: so this one has some.
            open_gate(b)
            until(lambda: len(notes(b, "end")) > 20)
            open_gate(a)
            theirs = list(processes_in(b))
            # Stood still, so that what is seen now is what it has when it dies.
            send(signal.SIGSTOP, *theirs)
            there = claimed_by(theirs, place(c, database.url))
            send(signal.SIGKILL, *theirs)
            assert adder.status(PATIENCE) == 0, adder.errors
        all_succeed(app, jobs + 4, PATIENCE)
    runs = Counter(map(int, noted("start", a, b)))
    repeated = {id for id, count in runs.items() if count > 1}

    assert runs.keys() == set(range(1, jobs + 5))
    assert repeated <= there


# --- nodes that are not alike -------------------------------------------------------------------------

DIFFERING = {
    "a": {"flaky": "attempts: 0\n", "slow": "timeout: 100ms\n"},
    "b": {"flaky": "attempts: 3\nattempt_after: 10\n", "slow": "timeout: 60\n"},
}
UNLIKE = """
    import asyncio
    from pathlib import Path

    from yaotask import current_job
    from scripts.witness import note

    async def Flaky(task_id):
        note("flaky", task_id, current_job().attempt)
        while not Path("flaky").exists():
            await asyncio.sleep(0.02)
        raise ValueError("always")

    async def Slow(task_id):
        note("slow", task_id)
        while not Path("slow").exists():
            await asyncio.sleep(0.02)
"""


def unlike(tmp_path: Path, name: str, database: Database) -> Path:
    process = "name: X\nprocess: scripts.unlike.{}\nworker_nums: 2\n"
    tasks = {task: process.format(task.title()) + more for task, more in DIFFERING[name].items()}
    return folder(tmp_path, name, database, tasks=tasks, scripts={"unlike": UNLIKE}, settings="heartbeat: 200ms\n")


def ids_of(app: App, task: str) -> list[int]:
    """All there are, from the newest down."""
    newest = app.list(task, page_size=1)["items"][0]["id"]
    return list(range(1, int(newest) + 1))


@pytest.mark.usefixtures("held_to_the_table")
def test_nodes_with_different_definitions_of_a_task_each_go_by_their_own(tmp_path: Path, database: Database) -> None:
    a, b = unlike(tmp_path, "a", database), unlike(tmp_path, "b", database)
    with running(a) as one, running(b) as two, App(a) as app:
        for task in ("slow", "flaky"):
            until(lambda task=task: app.tasks[task].add() and notes(a, task) and notes(b, task))  # type: ignore[misc]
        until(lambda: all(process["differs"] for process in processes(app, "supervisor")))
        told, checked = command(a, "workers"), command(a, "doctor", "--json")
        # On the first node the slow ones are ended by their timeout.
        for gate in (b / "slow", a / "flaky", b / "flaky"):
            gate.touch()
        until(lambda: statuses(app).keys() <= {"SUCCESS", "FAILURE"})
        slow = app.status("slow", ids_of(app, "slow"))
        flaky = {str(id): app.get(f"flaky.{id}")["attempt"] for id in ids_of(app, "flaky")}
        faults = [line for node in (one, two) for line in lines_with(node, "cannot be written")]
    ended_on_a = {id for id, attempt in map(str.split, notes(a, "flaky")) if int(attempt) == flaky[id]}

    assert "flaky, slow differ between node" in told.stderr
    assert "flaky, slow differ between node" in checked.stdout
    assert {id for id, status in slow.items() if status == "FAILURE"} == set(map(int, notes(a, "slow")))
    assert {id for id, status in slow.items() if status == "SUCCESS"} == set(map(int, notes(b, "slow")))
    # Where it was tried on the first node, that was its end; else it had four tries.
    assert {id for id, attempt in map(str.split, notes(a, "flaky"))} == ended_on_a
    assert all(attempt == 4 for id, attempt in flaky.items() if id not in ended_on_a)
    assert faults == []


@pytest.mark.only_on("postgresql")
def test_a_node_leaves_jobs_that_it_cannot_run_to_one_that_can(tmp_path: Path, database: Database) -> None:
    brisk = "heartbeat: 200ms\n"
    broken = folder(tmp_path, "a", database, scripts={"hold": "import nothing_of_that_name\n"}, settings=brisk)
    whole = folder(tmp_path, "b", database, settings=brisk)
    open_gate(whole)
    with running(broken) as node, App(whole) as app:
        app.tasks["hold"].add()
        until(lambda: processes(app, "supervisor")[0]["broken"] == ["hold"])
        before = json.loads(command(whole, "doctor", "--json").stdout)
        shown = command(whole, "workers").stdout
        with running(whole):
            all_succeed(app, 1)
            until(lambda: all(process["tasks"] for process in processes(app, "supervisor")))
            after = json.loads(command(whole, "doctor", "--json").stdout)

    key = shown.split()[1]
    assert lines_with(node, "hold is broken, its jobs wait")
    assert "cannot run hold: broken there" in shown
    (finding,) = [one for one in before if one["about"] == "jobs" and one["level"] == "warn"]
    assert finding["what"].startswith(
        f"1 waiting job of hold, which no node that is up can run: its handler is broken on node {key}"
    )
    assert [one for one in after if one["about"] == "jobs" and one["level"] != "ok"] == []
    assert notes(whole, "end") == ["1"]
