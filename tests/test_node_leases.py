"""Two nodes of one project: when one is out of reach, the other takes over, and nothing the first did then counts."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from node_support import has_ended, members, nothing_left, replaced, send, stop, workers
from run_support import Program, add, job, notes, running, until

from yaotask import App

pytest_plugins = ["run_fixtures"]
pytestmark = pytest.mark.timeout(120)

LEASE = 3.0
SETTINGS = "{lease: 3s, heartbeat: 1s, poll: 100ms, grace: 2s}"
# A process that is to go on again begins by telling what it had; a busy machine needs its time for all of it.
SLACK = 10.0

# Each start notes the process; a job ends when there is a file for it, and says where it ran.
HELD = """
    import os
    import time
    from pathlib import Path

    from scripts.witness import note

    def Hold(task_id):
        note("start", task_id, os.getpid())
        while not Path("gate").exists() and not Path(f"gate-{os.getppid()}").exists():
            time.sleep(0.02)
        note("end", task_id)
        return os.getpid()
"""


def starts(root: Path) -> list[tuple[str, int]]:
    """Each start: the job, and its process."""
    return [(id, int(pid)) for id, pid in (line.split() for line in notes(root, "start"))]


def freeze(run: Program, root: Path) -> list[int]:
    """Stop all of a node: its supervisor first, which would notice."""
    frozen: list[int] = []

    def is_stopped() -> bool:
        # Each time anew: until then it may replace what takes too long.
        frozen[:] = [run.process.pid, *members(run).values()]
        return stop(frozen, root / ".yaotask" / "yaotask.db")

    until(is_stopped)
    return frozen


def wake(frozen: list[int]) -> None:
    """Let them go on. The supervisor, which is the first, may bury others at once; they have no number any more."""
    for pid in frozen:
        with suppress(ProcessLookupError):
            send(signal.SIGCONT, pid)


def test_a_node_that_was_stopped_past_its_lease_changes_nothing_when_it_is_back(hold: Callable[..., Path]) -> None:
    root = hold(HELD, settings=SETTINGS)
    add(root)
    with running(root) as first:
        until(lambda: starts(root))
        victim = workers(first)["worker 1"]
        with running(root) as second:
            frozen = freeze(first, root)
            stopped = time.monotonic()
            until(lambda: len(starts(root)) == 2)
            took = time.monotonic() - stopped
            (root / "gate").touch()
            until(lambda: job(root)["status"] == "SUCCESS")
            before = job(root)
            wake(frozen)
            first.says("this node was out of reach for longer than its lease")
            replaced(first, "worker 1", victim)
            second.signal()
            assert second.status() == 0
        add(root)
        until(lambda: job(root, 2)["status"] == "SUCCESS")
        first.signal()
        assert first.status() == 0

    assert took < LEASE + LEASE + 5 + SLACK
    assert job(root) == before
    assert {pid for id, pid in starts(root) if id == "1"} == {victim, before["response"]}
    assert before["response"] != victim
    assert [id for id, _ in starts(root)] == ["1", "1", "2"]
    with App(root) as app:
        assert [one["outcome"] for one in app.attempts("hold.1")] == ["lost"]
        assert app.attempts("hold.2") == []
    nothing_left(root)


def test_a_worker_that_wakes_before_its_supervisor_can_neither_end_nor_claim(hold: Callable[..., Path]) -> None:
    root = hold(HELD, settings=SETTINGS)
    add(root)
    with running(root) as first:
        until(lambda: starts(root))
        victim = workers(first)["worker 1"]
        with running(root) as second:
            frozen = freeze(first, root)
            until(lambda: len(starts(root)) == 2)
            send(signal.SIGCONT, victim)
            # Lets the handlers of the first node end, and no others.
            (root / f"gate-{first.process.pid}").touch()
            until(lambda: notes(root, "end") == ["1"])
            add(root)
            # It ends by itself: its supervisor cannot have told it to.
            until(lambda: has_ended(victim))
            between = job(root)
            wake(frozen)
            replaced(first, "worker 1", victim)
            (root / "gate").touch()
            until(lambda: job(root, 2)["status"] == "SUCCESS")
            first.signal()
            second.signal()
            assert (first.status(), second.status()) == (0, 0)

    assert between["status"] == "RUNNING"
    assert (job(root)["status"], job(root)["response"] != victim) == ("SUCCESS", True)
    assert [pid for id, pid in starts(root) if id == "2"] != [victim]
    assert "has blocked the event loop" not in first.errors
    assert len(starts(root)) == 3
    nothing_left(root)


def test_what_a_node_ends_while_its_supervisor_is_stopped_past_its_lease_is_refused(hold: Callable[..., Path]) -> None:
    root = hold(HELD, settings=SETTINGS)
    add(root)
    with running(root) as first:
        until(lambda: starts(root))
        victim = workers(first)["worker 1"]
        with running(root) as second:
            first.signal(signal.SIGSTOP)
            until(lambda: len(starts(root)) == 2)
            (root / f"gate-{first.process.pid}").touch()
            first.says("hold.1 was given to another worker, or ended: what this one did of it is not stored")
            until(lambda: has_ended(victim))
            between = job(root)
            (root / "gate").touch()
            until(lambda: job(root)["status"] == "SUCCESS")
            first.signal(signal.SIGCONT)
            replaced(first, "worker 1", victim)
            first.signal()
            second.signal()
            assert (first.status(), second.status()) == (0, 0)

    assert between["status"] == "RUNNING"
    assert job(root)["response"] not in (None, victim)
    assert "has blocked the event loop" not in first.errors
    assert len(starts(root)) == 2
    nothing_left(root)
