"""How a node ends, whatever ends it: its exit status, what it says, and that nothing of it is left."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from node_support import STAMPED, lines_with, nothing_left, processes, replaced, send, workers
from run_support import IN_A_THREAD, ON_THE_LOOP, TASK, add, command, job, notes, running, started, until

from yaotask import App

pytest_plugins = ["run_fixtures"]
pytestmark = pytest.mark.timeout(90)

Hold = Callable[..., Path]
TWO = f"{TASK}worker_nums: 4\n"


# --- signals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_lets_jobs_end_and_leaves_nothing(hold: Hold, name: str) -> None:
    root = hold(IN_A_THREAD, settings="processes: 2", task=TWO)
    add(root, 6)
    with running(root) as run:
        until(lambda: len(notes(root, "start")) == 4)
        run.signal(signal.Signals[name])
        run.says(f"{name}: running jobs get 25s")
        (root / "gate").touch()

        assert run.status() == 0
    assert lines_with(run, "stopped; 4 succeeded")
    assert len(notes(root, "start")) == 4
    nothing_left(root)


@pytest.mark.parametrize(
    "answers",
    [
        {"SIGTERM": "SIGTERM: running jobs get 1h", "SIGINT": "SIGINT again: ending at once"},
        {"SIGINT": "SIGINT: running jobs get 1h", "SIGTERM": "SIGTERM again: ending at once"},
        {"SIGHUP": "SIGHUP: running jobs get 1h", "SIGTERM": "SIGTERM again: ending at once"},
        {"SIGQUIT": "SIGQUIT: ending at once"},
    ],
)
def test_a_second_signal_or_sigquit_ends_at_once_and_leaves_nothing(hold: Hold, answers: dict[str, str]) -> None:
    root = hold(IN_A_THREAD, settings="{processes: 2, grace: 1h}", task=TWO)
    add(root, 4)
    with running(root) as run:
        until(lambda: len(notes(root, "start")) == 4)
        for name, answer in answers.items():
            run.signal(signal.Signals[name])
            run.says(answer)

        assert run.status() == 1
    assert {job(root, id)["status"] for id in range(1, 5)} == {"WAITING"}
    assert {job(root, id)["attempt"] for id in range(1, 5)} == {0}
    nothing_left(root)


@pytest.mark.parametrize("first", ["SIGHUP", "SIGTERM"])
def test_a_terminal_that_is_closed_hurries_nobody(hold: Hold, first: str) -> None:
    """Its shell sends SIGHUP, and the system another one behind it."""
    root = hold(IN_A_THREAD, task=TWO)
    add(root, 4)
    with running(root) as run:
        until(lambda: len(notes(root, "start")) == 4)
        run.signal(signal.Signals[first])
        run.says(f"{first}: running jobs get")
        run.signal(signal.SIGHUP)
        run.signal(signal.SIGHUP)
        (root / "gate").touch()

        assert run.status() == 0
    assert lines_with(run, "stopped; 4 succeeded")
    assert not lines_with(run, "again")
    nothing_left(root)


def test_a_storm_of_signals_ends_it_once(hold: Hold) -> None:
    root = hold(ON_THE_LOOP)
    add(root)
    with running(root) as run:
        until(lambda: notes(root, "start"))
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT) * 25:
            if run.process.poll() is None:
                run.signal(number)

        assert run.status() == 1
    assert "Traceback" not in run.errors
    assert (job(root)["status"], job(root)["attempt"]) == ("WAITING", 0)
    nothing_left(root)


def test_a_signal_while_a_script_is_being_imported_ends_it_in_order(hold: Hold) -> None:
    script = """
        import time
        from scripts.witness import note

        note("import", "begun")
        time.sleep(600)

        def Hold(task_id): pass
    """
    root = hold(script, settings="{processes: 2, grace: 1h}")
    with started(root, ["-m", "yaotask", "run"]) as run:
        until(lambda: len(notes(root, "import")) == 2)
        # Until then a signal ends it as any other program.
        until(lambda: list((root / ".yaotask" / "workers").glob("*.lock")))
        run.signal()

        assert run.status() == 0
    assert "Traceback" not in run.errors
    nothing_left(root)


def test_a_worker_that_is_told_to_end_from_outside_ends_in_order_and_is_replaced(hold: Hold) -> None:
    root = hold(STAMPED)
    add(root, 2)
    with running(root) as run:
        until(lambda: notes(root, "start"))
        old = workers(run)["worker 1"]
        send(signal.SIGTERM, old)
        (root / "gate").touch()
        run.says(f"worker 1 (process {old}) has left; another one takes its place")
        replaced(run, "worker 1", old)
        until(lambda: job(root, 2)["status"] == "SUCCESS")
        run.signal()

        assert run.status() == 0
    with App(root) as app:
        assert app.attempts("hold.1") == app.attempts("hold.2") == []
    nothing_left(root)


# --- by itself ----------------------------------------------------------------------------------------


def test_a_drain_leaves_nothing(hold: Hold) -> None:
    root = hold(ON_THE_LOOP, settings="processes: 2", task=TWO)
    (root / "gate").touch()
    add(root, 50)
    with running(root, "--drain") as run:
        assert run.status() == 0

    assert lines_with(run, "stopped; 50 succeeded")
    nothing_left(root)


@pytest.mark.parametrize(
    ("fault", "fate"), [("import os\nos._exit(1)", "exit status 1"), ("import os\nos.abort()", "SIGABRT")]
)
def test_a_script_that_kills_each_process_that_imports_it_ends_the_node_with_one(
    hold: Hold, fault: str, fate: str
) -> None:
    root = hold(f"{fault}\n\ndef Hold(task_id): pass\n")
    with started(root, ["-m", "yaotask", "run"]) as run:
        assert run.process.wait(60) == 1

    assert fate in run.errors
    assert "Error: worker 1 has ended 5 times in a row before it was ready" in run.errors
    assert "Traceback" not in run.errors
    nothing_left(root)


def test_a_script_that_ends_the_interpreter_when_imported_breaks_its_task_alone(hold: Hold) -> None:
    root = hold("import sys\nsys.exit(3)\n\ndef Hold(task_id): pass\n")
    add(root)
    with running(root, "--drain") as run:
        assert run.status() == 0

    assert "hold is broken, its jobs wait" in run.errors
    assert "stopped; still waiting: 1 job of hold, whose handler is broken" in run.errors
    assert job(root)["status"] == "WAITING"
    nothing_left(root)


def test_a_store_that_is_none_ends_it_with_four_and_leaves_nothing(hold: Hold) -> None:
    root = hold(ON_THE_LOOP)
    (root / ".yaotask").mkdir(mode=0o700)
    (root / ".yaotask" / "yaotask.db").write_bytes(b"this is a letter, not a database" * 100)
    run = command(root, "run")

    assert run.returncode == 4
    nothing_left(root)


def test_what_a_handler_started_ends_with_its_worker(hold: Hold) -> None:
    root = hold("""
        import subprocess
        import time

        from scripts.witness import note

        def Hold(task_id):
            child = subprocess.Popen(["sleep", "600"])
            note("child", child.pid)
            time.sleep(600)
    """)
    add(root)
    with running(root) as run:
        child = int(until(lambda: notes(root, "child"))[0])
        assert child in processes(root)
        run.signal(signal.SIGQUIT)
        assert run.status() == 1

    nothing_left(root)


def test_what_a_child_process_had_started_ends_with_its_worker(hold: Callable[..., Path]) -> None:
    script = """
        import subprocess
        from scripts.witness import note

        def Hold(task_id):
            sleeper = subprocess.Popen(["sleep", "600"])
            note("sleeper", sleeper.pid)
            sleeper.wait()
    """
    root = hold(script, task=TASK + "executor: process\n")
    add(root)
    with running(root) as run:
        (sleeper,) = until(lambda: notes(root, "sleeper"))
        os.kill(workers(run)["worker 1"], signal.SIGKILL)
        until(lambda: not Path(f"/proc/{sleeper}").exists())
        run.says("another one takes its place")
