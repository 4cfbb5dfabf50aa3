"""`yaotask cancel` of jobs that a real `yaotask run` has under way."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from run_support import TASK, add, command, job, notes, running, until

pytest_plugins = ["run_fixtures"]

# Both end by an exception once they are asked to stop, and have tries left.
IN_A_THREAD = """
    import os
    import time

    from scripts.witness import note
    from yaotask import current_job

    def Hold(task_id):
        current_job().on_cancel(lambda: note("called", task_id))
        note("start", os.getpid())
        while not current_job().cancelled:
            time.sleep(0.01)
        note("stopped", task_id)
        raise ValueError("stopped half-way")
"""
ON_THE_LOOP = """
    import os

    import anyio
    from scripts.witness import note
    from yaotask import current_job

    async def Hold(task_id):
        async def called():
            note("called", task_id)

        current_job().on_cancel(called)
        note("start", os.getpid())
        try:
            await anyio.sleep_forever()
        finally:
            note("stopped", task_id)
"""
DEAF = IN_A_THREAD.replace("while not current_job().cancelled", "while True")
HANDLERS = {"thread": IN_A_THREAD, "async": ON_THE_LOOP, "process": IN_A_THREAD}

Hold = Callable[..., Path]


def task(executor: str = "thread") -> str:
    return f"{TASK}attempts: 3\nworker_nums: 4\nexecutor: {executor}\n"


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def begun(root: Path, count: int = 1) -> None:
    """Wait until so many jobs are known to run."""
    until(lambda: all(job(root, id)["status"] == "RUNNING" for id in range(1, count + 1)))


@pytest.mark.parametrize("executor", HANDLERS)
def test_a_running_job_is_asked_to_stop_and_ends_as_cancelled(hold: Hold, executor: str) -> None:
    root = hold(HANDLERS[executor], task=task(executor))
    add(root)
    with running(root) as program:
        begun(root)
        done = command(root, "cancel", "hold.1")
        ended = command(root, "get", "hold.1", "--follow")
        program.says("hold.1 cancelled while it ran")
        until(lambda: notes(root, "called") == ["1"])

    assert (done.returncode, done.stdout) == (0, "hold.1 is running: it has been asked to stop\n")
    assert ended.returncode == 1
    assert "CANCELLED" in ended.stdout
    assert notes(root, "stopped") == ["1"]
    assert len(notes(root, "start")) == 1


def test_each_worker_of_a_node_hears_of_its_own(hold: Hold) -> None:
    root = hold(IN_A_THREAD, task=task())
    add(root, 4)
    with running(root, "--processes", "2"):
        begun(root, 4)
        done = command(root, "cancel", "hold.1", "hold.2", "hold.3", "hold.4")
        until(lambda: {job(root, id)["status"] for id in range(1, 5)} == {"CANCELLED"})

    assert done.returncode == 0
    assert len(set(notes(root, "start"))) == 2
    assert sorted(notes(root, "stopped")) == ["1", "2", "3", "4"]


def test_a_job_whose_worker_dies_after_its_cancel_does_not_run_again(hold: Hold) -> None:
    root = hold(DEAF, task=task())
    add(root)
    with running(root):
        begun(root)
        command(root, "cancel", "hold.1")
        (pid,) = notes(root, "start")
        os.kill(int(pid), signal.SIGKILL)
        until(lambda: job(root)["status"] == "CANCELLED")

    assert notes(root, "start") == [pid]


def test_a_handler_in_a_child_process_is_killed_after_the_grace(hold: Hold) -> None:
    root = hold(DEAF, task=task("process"), settings="cancel_grace: 100ms\n")
    add(root)
    with running(root):
        begun(root)
        command(root, "cancel", "hold.1")
        until(lambda: job(root)["status"] == "CANCELLED")
        (pid,) = notes(root, "start")
        until(lambda: is_gone(int(pid)))

    assert notes(root, "stopped") == []


def test_a_run_that_ends_does_not_hand_back_what_was_cancelled(hold: Hold) -> None:
    root = hold(DEAF, task=task(), settings="grace: 100ms\n")
    add(root)
    with running(root) as program:
        begun(root)
        command(root, "cancel", "hold.1")
        program.signal()
        program.status()

    assert job(root)["status"] == "CANCELLED"
