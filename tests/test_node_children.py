"""Child processes of a real `yaotask run`: none of them is left, however their worker ends."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from node_support import STAMPED, nothing_left, processes, send, workers
from run_support import TASK, Program, add, drained, job, notes, running, until

pytest_plugins = ["run_fixtures"]
pytestmark = pytest.mark.timeout(60)

APART = f"{TASK}worker_nums: 4\nexecutor: process\n"

Hold = Callable[..., Path]


def until_started(root: Path, count: int) -> list[int]:
    """The processes that have begun with a job, once there are so many."""
    until(lambda: len(notes(root, "start")) >= count)
    return [int(line.split()[1]) for line in notes(root, "start")]


def stop(run: Program) -> None:
    run.signal(signal.SIGTERM)


def stop_at_once(run: Program) -> None:
    stop(run)
    run.says("running jobs get")
    stop(run)


def kill(run: Program) -> None:
    run.signal(signal.SIGKILL)


def test_a_killed_worker_takes_its_children_along_and_their_jobs_run_again(hold: Hold) -> None:
    root = hold(STAMPED, task=APART)
    add(root, 2)
    with running(root) as run:
        children = until_started(root, 2)
        send(signal.SIGKILL, *workers(run).values())
        until_started(root, 4)
        left = set(children) & processes(root).keys()
        (root / "gate").touch()
        until(lambda: {job(root, id)["status"] for id in (1, 2)} == {"SUCCESS"})

    assert left == set()
    assert len(notes(root, "end")) == 2


@pytest.mark.parametrize("end", [stop_at_once, kill])
def test_nothing_is_left_of_children_whatever_ends_their_node(hold: Hold, end: Callable[[Program], None]) -> None:
    root = hold(STAMPED, task=APART)
    add(root, 3)
    with running(root) as run:
        until_started(root, 3)
        end(run)
        run.status()

        assert until(lambda: not processes(root))


def test_jobs_in_children_end_within_the_grace(hold: Hold) -> None:
    root = hold(STAMPED, task=APART)
    add(root, 2)
    with running(root) as run:
        until_started(root, 2)
        stop(run)
        run.says("running jobs get")
        (root / "gate").touch()

        assert run.status() == 0
    assert [job(root, id)["status"] for id in (1, 2)] == ["SUCCESS", "SUCCESS"]
    nothing_left(root)


def test_what_a_handler_prints_is_seen_although_it_dies(hold: Hold) -> None:
    script = "import os\n\ndef Hold(task_id):\n    print('last words')\n    os._exit(7)\n"
    root = hold(script, task=APART, settings="losses: 2\n")
    add(root)
    run = drained(root)

    assert run.output.count("last words") == 2
    assert "exit status 7" in job(root)["error"]
    assert "hold.1 failed as PoisonedJob" in run.errors


def test_a_poison_job_spares_a_hundred_neighbours(hold: Hold) -> None:
    script = "import os\n\ndef Hold(task_id):\n    if task_id == 50:\n        os._exit(7)\n"
    root = hold(script, task=f"{APART}size: 200\n")
    add(root, 101)
    drained(root)

    assert job(root, 50)["error_type"] == "PoisonedJob"
    assert all(job(root, id)["status"] == "SUCCESS" for id in range(1, 102) if id != 50)
