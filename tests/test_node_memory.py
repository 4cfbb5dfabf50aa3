"""A handler that takes all the memory there is: that is a try of its own that fails, or a loss, and no other job's."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fleet_folders import GATED, open_gate
from memory_support import MEGABYTE, MemoryGroup, NoGroup, memory_group
from node_support import lines_with, nothing_left, workers
from run_support import WITNESS, notes, running, until

from yaotask import App

pytest_plugins = ["run_fixtures"]
pytestmark = pytest.mark.timeout(90)

Project = Callable[..., Path]

JOBS = 40
HELD = 4
TRIES = 8
OTHERS = "name: Hold\nprocess: scripts.hold.Hold\nworker_nums: 6\n"
DIED = "died: SIGKILL; another one takes its place"


def greedy(handler: str, executor: str) -> str:
    return (
        f"name: G\nprocess: scripts.greedy.{handler}\nexecutor: {executor}\nattempts: {TRIES - 1}\nattempt_after: 0\n"
    )


def all_others_succeed(app: App) -> bool:
    return list(app.status("hold", range(1, JOBS + 1)).values()) == ["SUCCESS"] * JOBS


# --- a limit of the process -----------------------------------------------------------------------------

# One leaves next to nothing. What runs in a worker leaves some to the threads beside it, which are not to blame.
LIMITED = """
    import resource
    from pathlib import Path

    ROOM = 64 << 20

    def limit():
        if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, resource.RLIM_INFINITY))

    def TakeAll(task_id):
        limit()
        taken = []
        while True:
            taken.append([0] * 100)

    def TakeMuch(task_id):
        limit()
        taken = []
        while True:
            taken.append(b"x" * (8 << 20))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not tell what a process has taken")
@pytest.mark.parametrize(("executor", "handler"), [("process", "TakeAll"), ("thread", "TakeMuch")])
def test_a_job_that_finds_no_memory_has_failed_a_try_and_others_go_on(
    project: Project, executor: str, handler: str
) -> None:
    root = project(
        tasks={"greedy": greedy(handler, executor), "hold": f"{OTHERS}attempts: 5\nattempt_after: 0\n"},
        scripts={"greedy": LIMITED, "hold": GATED, "witness": WITNESS},
    )
    with App(root) as app, running(root) as run:
        app.tasks["hold"].add_many([[]] * JOBS)
        until(lambda: len(notes(root, "start")) >= HELD)
        pids = workers(run)
        app.tasks["greedy"].add()
        until(lambda: app.get("greedy.1")["status"] == "FAILURE")
        open_gate(root)
        until(lambda: all_others_succeed(app))
        same = workers(run) == pids
        tries = [(one["outcome"], one["error_type"]) for one in app.attempts("greedy.1")]
        run.signal(signal.SIGTERM)
        status = run.status()

    assert tries == [("retry", "MemoryError")] * (TRIES - 1) + [("failure", "MemoryError")]
    assert lines_with(run, f"greedy.1 failed at try {TRIES}: MemoryError")
    assert (status, same) == (0, True), run.errors
    nothing_left(root)


# --- the kernel -----------------------------------------------------------------------------------------

MOST = 128 * MEGABYTE

# The process joins the group by itself, and is alone there: when one has been killed, and its memory is not free yet,
# the kernel takes the next best, which could be the supervisor.
ENDLESS = """
    import os
    from pathlib import Path

    def Take(task_id, members):
        Path(members).write_text(str(os.getpid()))
        taken = []
        while True:
            taken.append(b"x" * (4 << 20))
"""


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    """One with little memory, for those who want too much."""
    try:
        with memory_group(MOST) as made:
            yield made
    except NoGroup as reason:
        pytest.skip(f"this system lets us make no group of processes with a memory of its own: {reason}")


@pytest.mark.parametrize("executor", ["process", "thread"])
def test_a_job_whose_processes_the_kernel_kills_for_its_memory_is_poisoned_and_others_succeed(
    project: Project, group: MemoryGroup, executor: str
) -> None:
    root = project(
        tasks={"greedy": greedy("Take", executor), "hold": OTHERS},
        scripts={"greedy": ENDLESS, "hold": GATED, "witness": WITNESS},
    )
    with App(root) as app, running(root) as run:
        app.tasks["hold"].add_many([[]] * JOBS)
        until(lambda: len(notes(root, "start")) >= HELD)
        app.tasks["greedy"].add(str(group.members))
        until(group.killed)
        open_gate(root)
        poisoned = until(lambda: job if (job := app.get("greedy.1"))["status"] == "FAILURE" else {})
        until(lambda: all_others_succeed(app))
        losses = app.attempts("greedy.1")
        lost = [one["outcome"] for id in range(1, JOBS + 1) for one in app.attempts(f"hold.{id}")]
        run.signal(signal.SIGTERM)
        status = run.status()

    assert group.killed() == 3
    assert poisoned["error_type"] == "PoisonedJob"
    assert [one["outcome"] for one in losses] == ["lost", "lost", "failure"]
    assert all("SIGKILL" in one["error"] for one in losses), losses
    # A worker takes those along that run in it.
    assert lost == ([] if executor == "process" else ["lost"] * HELD)
    assert len(lines_with(run, DIED)) == (0 if executor == "process" else 1)
    assert status == 0
    nothing_left(root)
