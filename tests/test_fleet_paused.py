"""A node that stands still past its lease: whatever its handlers do when it goes on, the jobs are somebody else's."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from fleet_folders import BRISK, all_succeed, folder, open_gate
from node_support import has_ended, nothing_left, processes, replaced, send, stop
from run_support import notes, running, until
from server_fixtures import Database
from store_support import behind, change

from yaotask import App
from yaotask.store.opening import Place, place

pytest_plugins = ["store_fixtures"]
pytestmark = pytest.mark.timeout(180)

# Each handler says which node it is of, waits for the gate there, and goes on as its task is called.
WAYS = """
    import time
    from pathlib import Path

    from sqlalchemy import text

    from scripts.witness import note
    from yaotask import current_job

    NODE = Path.cwd().parent.name

    def Finish(task_id):
        begin()
        return NODE

    def Fail(task_id):
        begin()
        if NODE == "first":
            raise ValueError(NODE)
        return NODE

    def Report(task_id):
        begin()
        current_job().progress(99, 100, NODE)
        return NODE

    def Pay(task_id):
        begin()
        with current_job().transaction() as connection:
            row = {"task": current_job().task, "node": NODE}
            connection.execute(text("INSERT INTO effects VALUES (:task, :node)"), row)
        return NODE

    def begin():
        job = current_job()
        job.progress(10 if NODE == "first" else 20, 100, NODE)
        note("start", job.task)
        while not Path("gate").exists():
            time.sleep(0.02)
        note("goes-on", job.task)

    def on_progress(task_id, current, total, message):
        note("progress", current, message)

    def on_success(task_id, response):
        note("success", response)

    def on_error(task_id, error):
        note("error", error)
"""
HOOKS = ", ".join(f"{hook}: scripts.ways.on_{hook}" for hook in ("progress", "success", "error"))
IN_THREADS = {
    way: f"name: X\nprocess: scripts.ways.{way.title()}\nattempts: 0\nevent: {{{HOOKS}}}\n"
    for way in ("finish", "fail", "report", "pay")
}
IN_CHILDREN = {f"{way}_apart": IN_THREADS[way] + "executor: process\n" for way in ("report", "pay")}
TASKS = IN_THREADS | IN_CHILDREN

TAKEN_OVER = "SELECT count(*) FROM yaotask_jobs WHERE state = 1 AND losses = 1"
ATTEMPTS = "SELECT * FROM yaotask_attempts ORDER BY job, fence"
EVENTS = "SELECT * FROM yaotask_events ORDER BY seq"
EFFECTS = "SELECT * FROM effects ORDER BY task, node"
SAID = "SELECT task, attempt, losses, result, current, message FROM yaotask_jobs"
# All that could be changed by who has lost its claim; and what whoever has it now leaves as it is until the end.
ALL = ("SELECT * FROM yaotask_jobs ORDER BY task", ATTEMPTS, EVENTS, EFFECTS)
HELD = ("SELECT task, state, fence, worker, result FROM yaotask_jobs ORDER BY task", ATTEMPTS, EVENTS, EFFECTS)


def machine(tmp_path: Path, name: str, database: Database) -> Path:
    """The project as the node of this name has it."""
    store = "" if database.is_server else f"store: sqlite:///{tmp_path}/shared.db\n"
    return folder(tmp_path, name, database, tasks=TASKS, scripts={"ways": WAYS}, settings=store + BRISK)


def kinds(root: Path) -> dict[str, list[int]]:
    """The processes of a node by what they are: its supervisor, worker, services and children."""
    found: dict[str, list[int]] = {}
    for pid, words in processes(root).items():
        kind = words[-1].split()[0] if " of " in words[-1] else "supervisor"
        found.setdefault(kind, []).append(pid)
    return found


def freeze(root: Path, there: Place) -> dict[str, list[int]]:
    """Stop all of a node."""
    while True:
        frozen = kinds(root)
        # The supervisor first, which would notice.
        pids = [*frozen["supervisor"], *(pid for kind in frozen for pid in frozen[kind] if kind != "supervisor")]
        if stop(pids, there.file):
            return frozen


def reporters(there: Place) -> set[str]:
    """Whose progress the jobs show."""
    return {row[0] for row in behind(there, "SELECT message FROM yaotask_jobs")}


def contents(there: Place, tables: tuple[str, ...] = ALL) -> list[Any]:
    return [behind(there, table) for table in tables]


def test_a_node_that_stood_still_changes_nothing_however_its_handlers_go_on(tmp_path: Path, database: Database) -> None:
    a, b = (machine(tmp_path, name, database) for name in ("first", "second"))
    with App(a) as app:
        there = place(a, app.settings.store)
        app.store_status()
        change(there, "CREATE TABLE effects (task VARCHAR(20), node VARCHAR(10))")
        for task in TASKS:
            app.tasks[task].add()
        with running(a) as first:
            until(lambda: set(notes(a, "start")) == set(TASKS))
            until(lambda: reporters(there) == {"first"})
            frozen = freeze(a, there)
            with running(b) as second:
                until(lambda: behind(there, TAKEN_OVER) == [(len(TASKS),)])

                # From the leaves to the root: each goes on as long as it can, because nobody above it knows yet.
                # First while the other node still has the jobs,
                held = contents(there, HELD)
                open_gate(a)
                send(signal.SIGCONT, *frozen["child"])
                until(lambda: set(notes(a, "goes-on")) == set(IN_CHILDREN))
                first.says("pay_apart.1 was given to another worker: its transaction was rolled back")
                until(lambda: "99 first" in notes(a, "progress"))
                of_children = contents(there, HELD)

                # then when they have ended there.
                open_gate(b)
                all_succeed(app, len(TASKS))
                until(lambda: len(notes(b, "success")) >= len(TASKS) and not behind(there, EVENTS))
                ended = contents(there)
                send(signal.SIGCONT, *frozen["worker"])
                until(lambda: set(notes(a, "goes-on")) == set(TASKS))
                for job in ("finish.1", "fail.1", "pay.1"):
                    first.says(f"{job} was given to another worker")
                of_worker = contents(there)
                send(signal.SIGCONT, *frozen["services"], *frozen["supervisor"])
                replaced(first, "worker 1", frozen["worker"][0])
                first.signal()
                second.signal()
                assert (first.status(), second.status()) == (0, 0)

    assert of_children == held
    assert of_worker == ended
    assert contents(there) == ended
    said = {(task, 1, 1, '"second"', 99 if "report" in task else 20, "second") for task in TASKS}
    assert set(behind(there, SAID)) == said
    assert behind(there, EFFECTS) == [("pay", "second"), ("pay_apart", "second")]
    assert notes(a, "success") == notes(a, "error") == notes(b, "error") == []
    assert set(notes(b, "success")) == {"second"}
    nothing_left(a)


# Its transaction keeps others from the same row, until the gate is open.
KEPT = """
    import time
    from pathlib import Path

    from sqlalchemy import text

    from scripts.witness import note
    from yaotask import current_job

    NODE = Path.cwd().parent.name

    def Hold(task_id):
        with current_job().transaction() as connection:
            connection.execute(text("INSERT INTO effects VALUES (:id, :node)"), {"id": task_id, "node": NODE})
            note("start", task_id)
            while not Path("gate").exists():
                time.sleep(0.02)
        note("end", task_id)
        return NODE
"""


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_node_that_stands_still_in_a_transaction_keeps_its_rows_from_nobody_for_long(
    tmp_path: Path, database: Database
) -> None:
    tasks = {"hold": "name: X\nprocess: scripts.hold.Hold\nattempts: 9\nattempt_after: 1s\n"}
    a, b = (
        folder(tmp_path, name, database, tasks=tasks, scripts={"hold": KEPT}, settings=BRISK)
        for name in ("first", "second")
    )
    with App(a) as app:
        there = place(a, app.settings.store)
        app.store_status()
        change(there, "CREATE TABLE effects (task INTEGER PRIMARY KEY, node VARCHAR(10))")
        app.tasks["hold"].add()
        with running(a) as first:
            until(lambda: notes(a, "start"))
            frozen = freeze(a, there)
            open_gate(b)
            with running(b) as second:
                all_succeed(app, 1)
                before = contents(there)
                open_gate(a)
                send(signal.SIGCONT, *frozen["worker"])
                until(lambda: notes(a, "end") or all(map(has_ended, frozen["worker"])))
                send(signal.SIGCONT, *frozen["services"], *frozen["supervisor"])
                replaced(first, "worker 1", frozen["worker"][0])
                first.signal()
                second.signal()
                assert (first.status(), second.status()) == (0, 0)

    assert contents(there) == before
    assert behind(there, EFFECTS) == [(1, "second")]
