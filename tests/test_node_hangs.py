"""Handlers that hang their worker: noticed, named, ended by their timeout, and no harm to those beside them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from node_support import lines_with, members, nothing_left, replaced, send, workers
from run_support import WITNESS, Program, notes, running, until

from yaotask import App

pytestmark = pytest.mark.timeout(90)

# What hangs is noticed within two seconds; what a busy machine needs to say so comes on top.
NOTICED = 2.0
SLACK = 4.0

EVIL = """
    import asyncio
    import os
    import re
    import sys
    import time

    import anyio
    from scripts.witness import note

    async def Block(task_id):
        note("evil", time.monotonic())
        time.sleep(600)

    def Regex(task_id):
        note("evil", time.monotonic())
        re.match(r"(a+)+$", "a" * 40 + "!")

    async def Power(task_id):
        note("evil", time.monotonic())
        10 ** 300_000_000

    async def Part(task_id):
        note("evil", time.monotonic())
        async with anyio.create_task_group() as group:
            group.start_soon(part)

    async def part():
        time.sleep(600)

    async def Exit(task_id):
        note("evil", time.monotonic())
        task = asyncio.create_task(leave())
        await anyio.sleep(600)

    async def leave():
        sys.exit(3)

    async def Swallow(task_id):
        note("evil", time.monotonic())
        while True:
            try:
                await anyio.sleep(600)
            except BaseException:
                pass

    def Endless(task_id):
        note("evil", time.monotonic())
        while True:
            time.sleep(0.05)

    async def Quick(task_id):
        note("quick", os.getpid())
"""
KEEPS_THE_INTERPRETER = """
    import ctypes
    import time
    from pathlib import Path

    from scripts.witness import note

    def Long(task_id):
        note("long", task_id)
        # Now jobs of the other task are claimed some at a time, ahead of their turn.
        while Path("witness").read_text().count("quick") < 100:
            time.sleep(0.001)
        ctypes.PyDLL(None).sleep(8)

    async def Quick(task_id):
        note("quick", task_id)
"""
QUICK_ONES = 1_000
GOOD = """
    from pathlib import Path

    import anyio
    from scripts.witness import note

    async def Good(task_id):
        note("good", task_id)
        while not Path("gate").exists():
            await anyio.sleep(0.02)
"""
SETTINGS = "{cancel_grace: 500ms, poll: 200ms, grace: 2s}"

Project = Callable[..., Path]


@pytest.fixture
def evil(project: Project) -> Callable[[str], Path]:
    """Makes a project of a good task with three places, and of one whose handler hangs."""

    def make(handler: str, timeout: str = "1") -> Path:
        return project(
            tasks={
                "good": "name: Good\nprocess: scripts.good.Good\nworker_nums: 3\n",
                "evil": f"name: Evil\nprocess: scripts.evil.{handler}\ntimeout: {timeout}\n",
                "quick": "name: Quick\nprocess: scripts.evil.Quick\n",
            },
            scripts={"good": GOOD, "evil": EVIL, "witness": WITNESS},
            settings=SETTINGS,
        )

    return make


def get(root: Path, name: str) -> dict[str, Any]:
    with App(root) as app:
        return app.get(name)


def attempts(root: Path, name: str) -> list[str]:
    with App(root) as app:
        return [one["outcome"] for one in app.attempts(name)]


def until_ended(root: Path, name: str) -> dict[str, Any]:
    return until(lambda: job if (job := get(root, name))["status"] in ("SUCCESS", "FAILURE") else {})


def set_off(root: Path, run: Program) -> int:
    """Three good jobs that run, and then the evil one; the worker that has them."""
    pid = workers(run)["worker 1"]
    with App(root) as app:
        app.tasks["good"].add_many([[]] * 3)
        until(lambda: len(notes(root, "good")) == 3)
        app.tasks["evil"].add()
    until(lambda: notes(root, "evil"))
    return pid


def seconds_since_hang(root: Path) -> float:
    return time.monotonic() - float(notes(root, "evil")[0])


def good_ones_succeed_without_a_loss(root: Path) -> None:
    (root / "gate").touch()
    ended = [until_ended(root, f"good.{id}") for id in (1, 2, 3)]

    assert [(one["status"], one["attempt"]) for one in ended] == [("SUCCESS", 1)] * 3
    assert [attempts(root, f"good.{id}") for id in (1, 2, 3)] == [[]] * 3


# --- a loop that does not turn -------------------------------------------------------------------------


def test_a_blocked_loop_is_named_with_its_line_and_its_worker_replaced_at_the_timeout(
    evil: Callable[[str], Path],
) -> None:
    root = evil("Block")
    with running(root) as run:
        pid = set_off(root, run)
        run.says("evil.1 has blocked the event loop")
        noticed = seconds_since_hang(root)
        replaced(run, "worker 1", pid)
        good_ones_succeed_without_a_loss(root)
        run.signal()
        assert run.status() == 0

    job = get(root, "evil.1")
    assert noticed < NOTICED + SLACK
    assert "in Block\n        time.sleep(600)" in run.errors
    assert (job["status"], job["error_type"]) == ("FAILURE", "TimeoutError")
    assert "timeout" in job["error"]
    nothing_left(root)


def test_a_loop_that_is_blocked_by_what_a_handler_has_started_is_freed_at_the_timeout(
    evil: Callable[[str], Path],
) -> None:
    root = evil("Part")
    with running(root) as run:
        pid = set_off(root, run)
        run.says("is ended: its event loop is blocked by what one of these has started: evil.1")
        replaced(run, "worker 1", pid)
        good_ones_succeed_without_a_loss(root)
        job = until_ended(root, "evil.1")
        run.signal()
        assert run.status() == 0

    assert (job["status"], job["error_type"], job["losses"]) == ("FAILURE", "TimeoutError", 1)
    nothing_left(root)


def test_a_task_that_ends_the_loop_fails_its_own_job_and_no_other(evil: Callable[[str], Path]) -> None:
    root = evil("Exit")
    with running(root) as run:
        pid = set_off(root, run)
        run.says("its event loop was ended by SystemExit")
        replaced(run, "worker 1", pid)
        (root / "gate").touch()
        good = [until_ended(root, f"good.{id}") for id in (1, 2, 3)]
        job = until_ended(root, "evil.1")
        run.signal()
        assert run.status() == 0

    assert [(one["status"], one["attempt"], one["losses"]) for one in good] == [("SUCCESS", 1, 1)] * 3
    assert (job["status"], job["error_type"]) == ("FAILURE", "SystemExit")
    assert "a task that a job or a hook has started ends the event loop" in run.errors
    assert "sys.exit(3)" in run.errors
    nothing_left(root)


def test_a_worker_whose_loop_is_blocked_claims_nothing(evil: Callable[..., Path]) -> None:
    root = evil("Block", timeout="1h")
    with running(root) as run:
        blocked = set_off(root, run)
        run.says("evil.1 has blocked the event loop")
        with App(root) as app, running(root, "--only", "quick") as other:
            app.tasks["quick"].add_many([[]] * 20)
            until_ended(root, "quick.20")
            others = workers(other).values()

    assert set(map(int, notes(root, "quick"))) == set(others) != {blocked}


# --- a process that does not even beat -------------------------------------------------------------------


@pytest.mark.parametrize("handler", ["Regex", "Power"])
def test_a_handler_that_keeps_the_interpreter_is_shown_and_ended(evil: Callable[[str], Path], handler: str) -> None:
    root = evil(handler)
    with running(root) as run:
        pid = set_off(root, run)
        run.says(f"worker 1 (process {pid}) has not answered for")
        noticed = seconds_since_hang(root)
        replaced(run, "worker 1", pid)
        good_ones_succeed_without_a_loss(root)
        job = until_ended(root, "evil.1")
        run.signal()
        assert run.status() == 0

    assert noticed < NOTICED + SLACK
    assert f"in {handler}" in run.errors
    assert " 3 succeeded, 1 failed" in lines_with(run, "stopped;")[0]
    assert (job["status"], job["error_type"]) == ("FAILURE", "TimeoutError")
    assert "timeout" in job["error"]
    nothing_left(root)


def test_a_job_that_keeps_the_interpreter_within_its_timeout_costs_no_other_a_try(project: Project) -> None:
    quick = "name: Quick\nprocess: scripts.some.Quick\nworker_nums: 1\ntimeout: 1\n"
    root = project(
        tasks={"long": "name: Long\nprocess: scripts.some.Long\ntimeout: 1h\n", "quick": quick},
        scripts={"some": KEEPS_THE_INTERPRETER, "witness": WITNESS},
        settings=SETTINGS,
    )
    with App(root) as app, running(root) as run:
        app.tasks["long"].add()
        app.tasks["quick"].add_many([[]] * QUICK_ONES)
        ended = [until_ended(root, "long.1"), *(until_ended(root, f"quick.{id}") for id in (QUICK_ONES, 200, 100))]
        until(lambda: set(app.status("quick", range(1, QUICK_ONES + 1)).values()) == {"SUCCESS"})
        run.signal()
        assert run.status() == 0

    assert [(one["status"], one["attempt"]) for one in ended] == [("SUCCESS", 1)] * 4
    assert lines_with(run, "has not answered for")
    # Killed for those that it kept waiting, once or twice; then it ran alone, or none waited.
    assert len(notes(root, "long")) in (2, 3)
    assert lines_with(run, "long.1 runs again")


# --- handlers that do not end --------------------------------------------------------------------------


@pytest.mark.parametrize("handler", ["Swallow", "Endless"])
def test_a_handler_that_does_not_end_frees_its_place_by_a_new_worker(evil: Callable[[str], Path], handler: str) -> None:
    root = evil(handler)
    with running(root) as run:
        pid = set_off(root, run)
        ended = until_ended(root, "evil.1")
        # Those that end in their grace do so in the old worker, which is replaced after that.
        (root / "gate").touch()
        replaced(run, "worker 1", pid)
        with App(root) as app:
            app.tasks["evil"].add()
        until(lambda: len(notes(root, "evil")) == 2)
        good_ones_succeed_without_a_loss(root)
        until_ended(root, "evil.2")
        run.signal()
        assert run.status() == 0

    assert (ended["status"], ended["error_type"]) == ("FAILURE", "TimeoutError")
    assert "timeout" in ended["error"]
    assert "worker 1 is replaced: evil: " in run.errors
    assert "it is killed" not in run.errors
    nothing_left(root)


# --- a process that is stopped -------------------------------------------------------------------------


def test_a_stopped_worker_is_noticed_and_goes_on_when_it_may(project: Project) -> None:
    root = project(
        tasks={"good": "name: Good\nprocess: scripts.good.Good\nworker_nums: 3\n"},
        scripts={"good": GOOD, "witness": WITNESS},
        settings=SETTINGS,
    )
    with App(root) as app, running(root) as run:
        pid = workers(run)["worker 1"]
        app.tasks["good"].add_many([[]] * 3)
        until(lambda: len(notes(root, "good")) == 3)
        stopped = time.monotonic()
        send(signal.SIGSTOP, pid)
        run.says(f"worker 1 (process {pid}) has not answered for")
        noticed = time.monotonic() - stopped
        send(signal.SIGCONT, pid)
        run.says("worker 1 answers again")
        good_ones_succeed_without_a_loss(root)

        assert noticed < NOTICED + SLACK
        assert "it has good.1, good.2, good.3" in run.errors
        assert "it may have been stopped" in run.errors
        assert members(run)["worker 1"] == pid
        os.kill(pid, 0)


def test_a_worker_that_can_open_nothing_any_more_is_replaced_once_a_child_is_needed(
    project: Callable[..., Path],
) -> None:
    script = """
        import resource

        held = []

        def Hoard(task_id):
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            try:
                while True:
                    held.append(open("/dev/null"))
            except OSError:
                return len(held)

        def Apart(task_id):
            return "done"
    """
    tasks = {
        "hoard": "name: Hoard\nprocess: scripts.some.Hoard\n",
        "apart": "name: Apart\nprocess: scripts.some.Apart\nexecutor: process\n",
    }
    root = project(tasks=tasks, scripts={"some": script})
    with App(root) as app, running(root) as run:
        id = app.tasks["hoard"].add()
        until(lambda: app.get(f"hoard.{id}")["status"] == "SUCCESS")
        app.tasks["apart"].add()
        until(lambda: app.get("apart.1")["status"] == "SUCCESS")
        attempt, errors = app.get("apart.1")["attempt"], run.errors

    assert "worker 1 is replaced: child processes: none can be started" in errors
    assert attempt == 1
