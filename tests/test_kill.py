"""Processes that are killed with no warning, and what is still true after that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from run_support import WITNESS, drained, notes, running, started, until

from yaotask import App

pytestmark = pytest.mark.timeout(90)

# Each job notes its start; one that waits ends when the file `gate` is there.
HOLD = """
    from pathlib import Path

    import anyio
    from scripts.witness import note

    async def Hold(task_id, waits):
        note("start", task_id)
        while waits and not Path("gate").exists():
            await anyio.sleep(0.05)

    def OnSuccess(id, response):
        note("success", id)
"""

TASK = """
    name: Hold
    process: scripts.hold.Hold
    worker_nums: 200
    size: 10000
    event: {success: scripts.hold.OnSuccess}
"""

Project = Callable[..., Path]


def states(app: App, ids: list[int]) -> Counter[str]:
    return Counter(app.status("hold", ids).values())


def until_noted(root: Path, enough: int) -> None:
    until(lambda: len(notes(root, "start")) >= enough)


def test_a_kill_of_everything_loses_no_job_and_repeats_none_that_had_ended(project: Project) -> None:
    root = project(tasks={"hold": TASK}, scripts={"hold": HOLD, "witness": WITNESS})
    with App(root) as app:
        with running(root) as first:
            quick = app.tasks["hold"].add_many([[False]] * 100)
            until(lambda: states(app, quick)["SUCCESS"] == 100)
            held = app.tasks["hold"].add_many([[True]] * 1200)
            until(lambda: states(app, held) == {"RUNNING": 200, "WAITING": 1000})
            first.kill()
        before = Counter(map(int, notes(root, "start")))
        (root / "gate").touch()
        drained(root)
        after, told = Counter(map(int, notes(root, "start"))), set(map(int, notes(root, "success")))
        lost = [[one["outcome"] for one in app.attempts(f"hold.{id}")] for id in held if before[id]]

        assert len(quick + held) == 1300
        assert states(app, quick + held) == {"SUCCESS": 1300}
        assert len(lost) == 200
        assert after == {id: 2 if id in held and before[id] else 1 for id in quick + held}
        assert lost == [["lost"]] * 200
        assert told == set(quick + held)


def test_kills_in_the_middle_of_short_jobs_repeat_none_that_had_ended(project: Project) -> None:
    root = project(tasks={"hold": TASK}, scripts={"hold": HOLD, "witness": WITNESS})
    ended: dict[int, int] = {}
    with App(root) as app:
        ids = app.tasks["hold"].add_many([[False]] * 3000)
        for enough in (300, 900, 1500):
            with running(root) as run:
                until_noted(root, enough)
                run.kill()
            starts = Counter(map(int, notes(root, "start")))
            ended |= {id: starts[id] for id, status in app.status("hold", ids).items() if status == "SUCCESS"}
        drained(root)
        starts = Counter(map(int, notes(root, "start")))

        assert states(app, ids) == {"SUCCESS": 3000}
        assert len(ended) > 100
        assert {id: starts[id] for id in ended} == ended


SLOW_HOOK = """
    import time
    from pathlib import Path

    from scripts.witness import note

    def Hold(task_id):
        note("start", task_id)

    def OnSuccess(id, response):
        note("success", id)
        while not Path("gate").exists():
            time.sleep(0.05)
"""


def test_a_hook_that_was_killed_is_called_again_and_its_job_is_not(project: Project) -> None:
    root = project(tasks={"hold": TASK}, scripts={"hold": SLOW_HOOK, "witness": WITNESS})
    with App(root) as app:
        with running(root) as first:
            id = app.tasks["hold"].add()
            until(lambda: notes(root, "success"))
            first.kill()
        (root / "gate").touch()
        drained(root)

        assert app.get(f"hold.{id}")["status"] == "SUCCESS"
        assert notes(root, "start") == [str(id)]
        assert notes(root, "success") == [str(id)] * 2


def test_the_third_death_of_its_worker_ends_a_job(project: Project) -> None:
    script = "import os, signal\n\ndef Hold(task_id): os.kill(os.getpid(), signal.SIGKILL)\n"
    root = project(tasks={"hold": "name: Hold\nprocess: scripts.hold.Hold\n"}, scripts={"hold": script})
    with App(root) as app:
        app.tasks["hold"].add()
        run = drained(root)
        job = app.get("hold.1")

    assert (job["status"], job["error_type"]) == ("FAILURE", "PoisonedJob")
    assert "worker 1 (process" in run.errors
    assert "died: SIGKILL" in run.errors


ADDER = """
import os
from yaotask import process

while True:
    id = process("tasks.hold.add", False)
    os.write(1, f"{id}\\n".encode())
"""


def test_each_id_that_an_adder_printed_before_it_was_killed_is_there(project: Project) -> None:
    root = project(tasks={"hold": TASK}, scripts={"hold": HOLD, "witness": WITNESS})
    with started(root, ["-c", ADDER]) as adder:
        until(lambda: adder.output.count("\n") >= 100)
        adder.kill()
    printed = [int(line) for line in adder.output.splitlines()]
    with App(root) as app:
        stored = app.list("hold", page=1)["total"]

        assert len(set(printed)) == len(printed)
        assert states(app, printed) == {"WAITING": len(printed)}
        # One more may have been stored before its id could be printed.
        assert len(printed) <= stored <= len(printed) + 1
