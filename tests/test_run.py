"""`yaotask run` as its users meet it: a process that starts, says what it does, and ends when it is told to."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from run_support import WITNESS, command, drained, notes, running, until

from yaotask import App

pytestmark = pytest.mark.timeout(60)

Project = Callable[..., Path]

TASK = "name: Hold\nprocess: scripts.hold.Hold\n"

# Handlers that note their start, wait for the file `gate`, and note their end.
IN_A_THREAD = """
    import time
    from pathlib import Path

    from scripts.witness import note

    def Hold(task_id):
        note("start", task_id)
        while not Path("gate").exists():
            time.sleep(0.02)
        note("end", task_id)
"""
ON_THE_LOOP = IN_A_THREAD.replace("import time", "import anyio").replace("def Hold", "async def Hold")
ON_THE_LOOP = ON_THE_LOOP.replace("time.sleep", "await anyio.sleep")
SHIELDED = """
    import anyio
    from scripts.witness import note

    async def Hold(task_id):
        note("start", task_id)
        with anyio.CancelScope(shield=True):
            await anyio.sleep_forever()
"""
BLOCKING = """
    import time
    from scripts.witness import note

    async def Hold(task_id):
        note("start", task_id)
        time.sleep(600)
"""


@pytest.fixture
def hold(project: Project) -> Callable[..., Path]:
    """Makes a project of one task, `hold`, with this script."""

    def make(script: str, settings: str | None = None, task: str = TASK) -> Path:
        return project(tasks={"hold": task}, scripts={"hold": script, "witness": WITNESS}, settings=settings)

    return make


def add(root: Path, count: int = 1) -> None:
    with App(root) as app:
        app.tasks["hold"].add_many([[]] * count)


def job(root: Path, id: int = 1) -> dict[str, object]:
    with App(root) as app:
        return app.get(f"hold.{id}")


# --- to the end of the work --------------------------------------------------------------------------


def test_a_drain_says_what_runs_works_until_nothing_is_left_and_ends_with_zero(hold: Callable[..., Path]) -> None:
    root = hold(ON_THE_LOOP)
    (root / "gate").touch()
    add(root, 3)
    run = drained(root)

    said = [" ".join(line.split()) for line in run.errors.splitlines()]
    assert f"project: {root}" in said
    assert any(line.startswith("store: sqlite:///") for line in said)
    assert "hold 1 1 try 5m tasks/hold.yml" in said
    assert said[-1].endswith("stopped; 3 succeeded")
    assert run.output == ""
    assert job(root, 3)["status"] == "SUCCESS"


def test_a_drain_waits_for_retries_but_not_for_a_job_that_its_adder_put_off(hold: Callable[..., Path]) -> None:
    script = """
        from yaotask import current_job

        def Hold(task_id):
            if current_job().attempt < 3:
                raise ValueError("not yet")
    """
    root = hold(script, task=TASK + "attempts: 2\nattempt_after: 100\n")
    with App(root) as app:
        app.tasks["hold"].add()
        app.tasks["hold"].options(delay="1h").add()
        run = drained(root)

        assert (app.get("hold.1")["status"], app.get("hold.2")["status"]) == ("SUCCESS", "WAITING")
    assert "stopped; 1 succeeded" in run.errors


def test_two_runs_of_one_project_share_its_jobs_and_run_none_twice(hold: Callable[..., Path]) -> None:
    script = """
        import os
        import time
        from pathlib import Path

        from scripts.witness import note

        def Hold(task_id):
            note("start", task_id)
            note("pid", os.getpid())
            lines = Path("witness").read_text().splitlines
            # Each waits until the other run has taken a job too.
            while len({line for line in lines() if line.startswith("pid")}) < 2:
                lines = Path("witness").read_text().splitlines
                time.sleep(0.02)
    """
    root = hold(script)
    with running(root) as one, running(root) as other:
        add(root, 50)
        until(lambda: job(root, 50)["status"] == "SUCCESS" and job(root, 49)["status"] == "SUCCESS")
        one.signal()
        other.signal()
        assert (one.status(), other.status()) == (0, 0)
    starts = Counter(notes(root, "start"))

    assert starts == {str(id): 1 for id in range(1, 51)}
    assert set(notes(root, "pid")) == {str(one.process.pid), str(other.process.pid)}


# --- told to stop ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("script", [IN_A_THREAD, ON_THE_LOOP], ids=["sync", "async"])
def test_a_running_job_ends_within_its_grace_and_none_starts_after_it(
    hold: Callable[..., Path], script: str, number: signal.Signals
) -> None:
    root = hold(script)
    add(root, 2)
    with running(root) as run:
        until(lambda: notes(root, "start"))
        run.signal(number)
        run.says(f"{number.name}: running jobs get 25s")
        (root / "gate").touch()
        assert run.status() == 0

    assert (job(root, 1)["status"], job(root, 2)["status"]) == ("SUCCESS", "WAITING")
    assert notes(root, "start") == ["1"]


@pytest.mark.parametrize("script", [IN_A_THREAD, ON_THE_LOOP], ids=["sync", "async"])
def test_a_job_that_outlasts_the_grace_is_handed_back_untried_and_runs_next_time(
    hold: Callable[..., Path], script: str
) -> None:
    root = hold(script, settings="grace: 200ms")
    add(root)
    with running(root) as run:
        until(lambda: notes(root, "start"))
        run.signal()
        assert run.status() == 0
    between = job(root)
    (root / "gate").touch()
    drained(root)
    after = job(root)

    assert (between["status"], between["attempt"]) == ("WAITING", 0)
    assert (after["status"], after["attempt"]) == ("SUCCESS", 1)
    assert (notes(root, "start"), notes(root, "end")) == (["1", "1"], ["1"])


def test_a_second_try_that_is_handed_back_waits_as_a_retry(hold: Callable[..., Path]) -> None:
    script = """
        import anyio
        from scripts.witness import note
        from yaotask import current_job

        async def Hold(task_id):
            if current_job().attempt == 1:
                raise ValueError("the first try")
            note("start", task_id)
            await anyio.sleep_forever()
    """
    root = hold(script, settings="grace: 0", task=TASK + "attempts: 1\nattempt_after: 0\n")
    add(root)
    with running(root) as run:
        until(lambda: notes(root, "start"))
        run.signal()
        assert run.status() == 0

    back = job(root)
    assert (back["status"], back["attempt"], back["error"]) == ("RETRYING", 1, "the first try")


@pytest.mark.parametrize("script", [IN_A_THREAD, ON_THE_LOOP], ids=["sync", "async"])
def test_a_second_signal_ends_at_once_with_one_and_hands_back(hold: Callable[..., Path], script: str) -> None:
    root = hold(script, settings="grace: 1h")
    add(root)
    with running(root) as run:
        until(lambda: notes(root, "start"))
        run.signal()
        run.says("SIGTERM: running jobs get 1h")
        run.signal()
        assert run.status() == 1
    between = job(root)
    (root / "gate").touch()
    drained(root)

    assert (between["status"], between["attempt"]) == ("WAITING", 0)
    assert job(root)["status"] == "SUCCESS"


@pytest.mark.parametrize("script", [SHIELDED, BLOCKING], ids=["shielded", "blocking"])
def test_a_handler_that_does_not_let_go_cannot_hold_up_the_end(hold: Callable[..., Path], script: str) -> None:
    root = hold(script, settings="grace: 200ms")
    add(root)
    with running(root) as run:
        until(lambda: notes(root, "start"))
        begun = time.monotonic()
        run.signal()
        assert run.status() == 0
        took = time.monotonic() - begun

    assert took < 12
    assert (job(root)["status"], job(root)["attempt"]) == ("WAITING", 0)


def test_a_second_signal_ends_a_run_whose_loop_is_blocked(hold: Callable[..., Path]) -> None:
    root = hold(BLOCKING, settings="grace: 1h")
    add(root, 2)
    with running(root) as run:
        until(lambda: notes(root, "start"))
        run.signal()
        run.signal(signal.SIGINT)
        assert run.status() == 1

    assert "a handler blocks its loop" in run.errors
    assert [(job(root, id)["status"], job(root, id)["attempt"]) for id in (1, 2)] == [("WAITING", 0)] * 2


# --- what stands in the way --------------------------------------------------------------------------


def test_a_broken_handler_stops_its_own_task_and_no_other(project: Project) -> None:
    root = project(
        tasks={"good": "name: Good\nprocess: scripts.good.Run\n", "bad": "name: Bad\nprocess: scripts.bad.Run\n"},
        scripts={"good": "def Run(task_id): return 'done'\n", "bad": "import nothing_of_this_name\n"},
    )
    with App(root) as app:
        app.tasks["good"].add()
        app.tasks["bad"].add()
        run = drained(root)

        assert (app.get("good.1")["status"], app.get("bad.1")["status"]) == ("SUCCESS", "WAITING")
    assert "bad is broken, its jobs wait:" in run.errors
    assert "No module named 'nothing_of_this_name'" in run.errors


def test_a_fault_in_a_task_file_ends_it_with_three_and_the_place(hold: Callable[..., Path]) -> None:
    root = hold(ON_THE_LOOP, task=TASK + "worker_nums: none\n")
    run = command(root, "run")

    assert run.returncode == 3
    assert "tasks/hold.yml:3:14: worker_nums: " in run.stderr
    assert not (root / ".yaotask").exists()


def test_a_store_that_cannot_be_opened_ends_it_with_four_and_advice(hold: Callable[..., Path]) -> None:
    root = hold(ON_THE_LOOP)
    (root / ".yaotask").mkdir(mode=0o700)
    (root / ".yaotask" / "yaotask.db").write_bytes(b"this is a letter, not a database" * 100)
    run = command(root, "run")

    assert run.returncode == 4
    assert run.stderr.splitlines()[-1].startswith("Error: ")
    assert ".yaotask/yaotask.db" in run.stderr
    assert "yaotask itself failed" not in run.stderr


def test_a_log_in_json_is_one_object_a_line(hold: Callable[..., Path]) -> None:
    root = hold(ON_THE_LOOP, settings="log: json")
    (root / "gate").touch()
    add(root)
    lines = [json.loads(line) for line in drained(root).errors.splitlines()]

    assert lines[0]["tasks"] == ["hold"]
    assert lines[-1]["message"] == "stopped; 1 succeeded"
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
