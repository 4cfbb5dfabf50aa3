"""What becomes of jobs when one of the processes of a node dies with no warning, or all of them do."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from textwrap import dedent

import pytest
from node_support import STAMPED, is_up, lines_with, members, nothing_left, processes, replaced, send, workers
from run_support import ON_THE_LOOP, TASK, WITNESS, Program, add, notes, running, until

from yaotask import App

pytest_plugins = ["run_fixtures"]
pytestmark = pytest.mark.timeout(120)

# A death of one's own child is repaired within two seconds; what a busy machine needs to start a process comes on top.
BOUND = 2.0
START = 8.0

Hold = Callable[..., Path]


def started_by(root: Path) -> dict[str, list[tuple[int, float]]]:
    """Of each job, the process and the time of each start."""
    starts: dict[str, list[tuple[int, float]]] = {}
    for id, pid, at in (line.split() for line in notes(root, "start")):
        starts.setdefault(id, []).append((int(pid), float(at)))
    return starts


def until_started(root: Path, count: int) -> dict[str, list[tuple[int, float]]]:
    until(lambda: len(notes(root, "start")) >= count)
    return started_by(root)


def losses(root: Path, ids: range) -> list[list[str]]:
    """How those attempts of each job ended that did not succeed."""
    with App(root) as app:
        return [[one["outcome"] for one in app.attempts(f"hold.{id}")] for id in ids]


def statuses(root: Path, count: int) -> Counter[str]:
    with App(root) as app:
        return Counter(app.status("hold", range(1, count + 1)).values())


# --- one worker ---------------------------------------------------------------------------------------


def test_jobs_of_a_killed_worker_run_again_soon_and_those_of_another_go_on(hold: Hold) -> None:
    root = hold(STAMPED, settings="processes: 2", task=f"{TASK}worker_nums: 4\n")
    add(root, 4)
    with running(root) as run:
        starts = until_started(root, 4)
        victim = workers(run)["worker 1"]
        killed, wall = time.monotonic(), time.time()
        send(signal.SIGKILL, victim)
        lost = [id for id, ((pid, _),) in starts.items() if pid == victim]
        starts = until_started(root, 4 + len(lost))
        replaced(run, "worker 1", victim)
        (root / "gate").touch()
        until(lambda: statuses(root, 4) == {"SUCCESS": 4})

    with App(root) as app:
        ends = {id: datetime.fromisoformat(app.attempts(f"hold.{id}")[0]["finished_at"]).timestamp() for id in lost}
    assert len(lost) == 2
    assert all(end - wall < BOUND for end in ends.values()), ends
    assert all(starts[id][1][1] - killed < BOUND + START for id in lost)
    assert {id: len(of) for id, of in starts.items()} == {str(id): 2 if str(id) in lost else 1 for id in range(1, 5)}
    assert sorted(losses(root, range(1, 5))) == [[], [], ["lost"], ["lost"]]
    assert lines_with(run, f"worker 1 (process {victim}) died: SIGKILL; another one takes its place")
    assert len(lines_with(run, "runs again: its worker died while it had the job")) == 2


POISON = """
    import os
    import signal

    def Drink(task_id):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_job_that_kills_its_processes_is_poisoned_and_a_hundred_beside_it_succeed(hold: Hold) -> None:
    root = hold(ON_THE_LOOP, task=f"{TASK}worker_nums: 100\n")
    (root / "tasks" / "poison.yml").write_text("name: Poison\nprocess: scripts.poison.Drink\n")
    (root / "scripts" / "poison.py").write_text(dedent(POISON))
    add(root, 100)
    with App(root) as app, running(root) as run:
        until(lambda: len(notes(root, "start")) == 100)
        app.tasks["poison"].add()
        run.says("died: SIGKILL; another one takes its place")
        (root / "gate").touch()
        poisoned = until(lambda: job if (job := app.get("poison.1"))["status"] == "FAILURE" else {})
        until(lambda: statuses(root, 100) == {"SUCCESS": 100}, patience=60)
        run.signal()
        assert run.status() == 0

        assert poisoned["error_type"] == "PoisonedJob"
        assert [one["outcome"] for one in app.attempts("poison.1")] == ["lost", "lost", "failure"]
    assert losses(root, range(1, 101)) == [["lost"]] * 100
    assert len(lines_with(run, "died: SIGKILL; another one takes its place")) == 1
    nothing_left(root)


# --- the others ---------------------------------------------------------------------------------------


def test_nobody_notices_a_killed_services_process_which_is_replaced(hold: Hold) -> None:
    root = hold(STAMPED)
    add(root)
    with running(root) as run:
        until_started(root, 1)
        victim = members(run)["services"]
        send(signal.SIGKILL, victim)
        replaced(run, "services", victim)
        (root / "gate").touch()
        until(lambda: statuses(root, 1) == {"SUCCESS": 1})
        run.signal()
        assert run.status() == 0

    assert losses(root, range(1, 2)) == [[]]
    assert lines_with(run, f"services (process {victim}) died: SIGKILL; another one takes its place")
    nothing_left(root)


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_all_processes_die_with_their_supervisor_and_the_next_run_takes_over_at_once(hold: Hold, executor: str) -> None:
    task = f"{TASK}worker_nums: 4\nexecutor: {executor}\n"
    root = hold(STAMPED, settings="{processes: 2, lease: 1h, heartbeat: 1m}", task=task)
    add(root, 4)
    with running(root) as first:
        until_started(root, 4)
        first.signal(signal.SIGKILL)
        assert first.status() == -signal.SIGKILL
        until(lambda: not processes(root))
    with running(root) as second:
        until_started(root, 8)
        (root / "gate").touch()
        until(lambda: statuses(root, 4) == {"SUCCESS": 4})
        second.signal()
        assert second.status() == 0

    assert losses(root, range(1, 5)) == [["lost"]] * 4
    nothing_left(root)


def test_a_kill_of_all_processes_at_once_costs_one_loss_each_and_leaves_nothing_behind(hold: Hold) -> None:
    root = hold(STAMPED, settings="processes: 2", task=f"{TASK}worker_nums: 4\n")
    add(root, 4)
    with running(root) as first:
        until_started(root, 4)
        send(signal.SIGKILL, *members(first).values(), first.process.pid)
        first.status()
        until(lambda: not processes(root))
    (root / "gate").touch()
    with running(root, "--drain") as second:
        assert second.status() == 0

    assert losses(root, range(1, 5)) == [["lost"]] * 4
    nothing_left(root)


# --- many ---------------------------------------------------------------------------------------------

KILLS = 60
SHORT = """
    import time

    from scripts.witness import note

    def Threaded(task_id):
        time.sleep(0.02)
        note("end", task_id)

    async def Looped(task_id):
        import anyio

        await anyio.sleep(0.02)
        note("end", task_id)
"""


def short(name: str) -> str:
    return f"name: Short\nprocess: scripts.short.{name}\nworker_nums: 8\nsize: 10000\n"


class Nemesis:
    """Kills a worker that is at work, again and again, in a thread of its own."""

    def __init__(self, run: Program) -> None:
        self.killed: set[int] = set()
        self._run = run
        self._chance = random.Random(7)  # noqa: S311 - who dies when is no secret
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._kill)

    def __enter__(self) -> Nemesis:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _kill(self) -> None:
        while len(self.killed) < KILLS and not self._over.wait(self._chance.uniform(0.05, 0.3)):
            alive = [pid for pid in workers(self._run).values() if pid not in self.killed and is_up(self._run, pid)]
            if alive:
                victim = self._chance.choice(alive)
                self.killed.add(victim)
                send(signal.SIGKILL, victim)


@pytest.mark.timeout(240)
def test_sixty_kills_among_two_thousand_jobs_lose_none_and_poison_none(project: Callable[..., Path]) -> None:
    root = project(
        tasks={"one": short("Threaded"), "two": short("Looped"), "three": short("Threaded"), "four": short("Looped")},
        scripts={"short": SHORT, "witness": WITNESS},
        settings="{processes: 4, poll: 200ms}",
    )
    with App(root) as app:
        ids = {task: app.tasks[task].add_many([[]] * 500) for task in ("one", "two", "three", "four")}
        with running(root) as run, Nemesis(run) as nemesis:
            until(lambda: len(nemesis.killed) == KILLS, patience=100)
            until(lambda: all(set(app.status(task, some).values()) == {"SUCCESS"} for task, some in ids.items()), 100)
            assert run.process.poll() is None
            run.signal()
            assert run.status() == 0
        ends = Counter(
            one["outcome"] for task, some in ids.items() for id in some for one in app.attempts(f"{task}.{id}")
        )

    assert ends.keys() == {"lost"}
    assert len(lines_with(run, "died: SIGKILL; another one takes its place")) == KILLS
    assert not lines_with(run, "PoisonedJob")
    nothing_left(root)
