"""Signals to processes of a node, and to what users' code starts there: each ends whom it is sent to, alone."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from node_support import STAMPED, lines_with, members, nothing_left, processes, send
from run_support import TASK, add, drained, job, notes, running, started, until

pytest_plugins = ["run_fixtures"]
pytestmark = pytest.mark.timeout(60)

Hold = Callable[..., Path]

# Forks as multiprocessing does by itself on most systems; what was forked waits for ever, unless it is ended.
FORKING = """
    import multiprocessing
    import threading

    {kind} Hold(task_id):
        forked = multiprocessing.get_context("fork").Process(target=threading.Event().wait)
        forked.start()
        forked.terminate()
        forked.join(20)
        status = forked.exitcode
        forked.kill()
        return status
"""


# As `nohup` starts a program, and a shell what it starts by `&` in a script.
IN_THE_BACKGROUND = """
import os, signal, sys
for number in (signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.mark.parametrize(
    ("kind", "executor"),
    [("async def", "async"), ("def", "thread"), ("def", "process")],
    ids=["loop", "thread", "child"],
)
def test_what_a_handler_has_forked_hears_its_own_signals(hold: Hold, kind: str, executor: str) -> None:
    root = hold(FORKING.format(kind=kind), task=f"{TASK}executor: {executor}\n")
    add(root, 2)
    run = drained(root)

    assert [job(root, id)["response"] for id in (1, 2)] == [-signal.SIGTERM] * 2
    assert not lines_with(run, "another one takes its place")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_all_processes_of_a_node_lets_its_jobs_end(hold: Hold, number: signal.Signals) -> None:
    """As systemd sends it, unless it is told to send it to the first process alone."""
    root = hold(STAMPED, task=f"{TASK}worker_nums: 2\nexecutor: process\nattempts: 0\n")
    add(root, 2)
    with running(root) as run:
        until(lambda: len(notes(root, "start")) == 2)
        # The supervisor last: the others are to end by what they hear themselves.
        send(number, *sorted(processes(root), reverse=True))
        run.says("running jobs get")
        (root / "gate").touch()

        assert run.status() == 0
    assert [job(root, id)["status"] for id in (1, 2)] == ["SUCCESS", "SUCCESS"]
    assert not lines_with(run, " died")
    nothing_left(root)


def test_what_a_node_was_started_to_ignore_it_ignores_with_all_its_processes(hold: Hold) -> None:
    root = hold(STAMPED, task=f"{TASK}worker_nums: 2\n")
    add(root)
    with started(root, ["-c", IN_THE_BACKGROUND, "-m", "yaotask", "run"]) as run:
        until(lambda: notes(root, "start"))
        before = members(run)
        for number in (signal.SIGHUP, signal.SIGINT):
            send(number, *before.values(), run.process.pid)
        add(root)
        until(lambda: len(notes(root, "start")) == 2)
        (root / "gate").touch()
        until(lambda: job(root, 2)["status"] == "SUCCESS")

        assert members(run) == before
        run.signal(signal.SIGTERM)
        assert run.status() == 0
    assert lines_with(run, "SIGTERM: running jobs get")
    assert not lines_with(run, "SIGHUP") + lines_with(run, "SIGINT") + lines_with(run, "has left")
    nothing_left(root)
