"""A replica takes over that lacks what was stored last: that is lost, and nothing else."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_folders import folder, open_gate, statuses
from own_server import Housing
from replica_support import Pair
from run_support import notes, running, until

from yaotask import App
from yaotask.errors import StorageError

pytest_plugins = ["own_server_fixtures"]
pytestmark = pytest.mark.timeout(120)

# What a job ends with is its own word, and the node that ran it.
SCRIPTS = {
    "work": """
    import time
    from pathlib import Path

    from scripts.witness import note

    NODE = Path.cwd().parent.name

    def Quick(task_id, word):
        return [word, NODE]

    def Hold(task_id, word):
        note("start", word)
        while not Path("gate").exists():
            time.sleep(0.02)
        return [word, NODE]
"""
}
TASKS = {
    "quick": "name: Quick\nprocess: scripts.work.Quick\nattempts: 0\n",
    "hold": "name: Hold\nprocess: scripts.work.Hold\nattempts: 0\nworker_nums: 2\n",
}
SETTINGS = "lease: 2s\nheartbeat: 600ms\npoll: 200ms\n"
# A sequence of PostgreSQL tells replicas of so many numbers before they are used.
TOLD_BEFORE = 32


@pytest.fixture
def pair(housing: Housing) -> Iterator[Pair]:
    with housing("postgresql") as place:
        pair = Pair(place)
        yield pair
        pair.close()


def add(app: App, task: str, word: str) -> int:
    """A job, as soon as there is somebody to store it."""

    def stored() -> int:
        try:
            return app.tasks[task].add(word)
        except StorageError:
            return 0

    return until(stored)


def results(app: App, task: str) -> list[tuple[str, list[str] | None]]:
    """Of all jobs of a task that there are: the word that each was given, and what it ended with."""
    found = [app.get(f"{task}.{job['id']}") for job in app.tasks[task].list(page_size=200)["items"]]
    return [(job["args"][0], job["result"]) for job in found]


def test_no_more_is_lost_than_a_replica_lacks_that_takes_over(tmp_path: Path, pair: Pair) -> None:
    a, b, c = (folder(tmp_path, name, pair.database, tasks=TASKS, scripts=SCRIPTS, settings=SETTINGS) for name in "abc")
    with running(a) as one, App(c) as app, App(b) as other:
        for number in range(20):
            add(app, "quick", f"kept {number}")
        add(app, "hold", "kept")
        until(lambda: statuses(app) == {"SUCCESS": 20, "RUNNING": 1})
        pair.part()
        for number in range(TOLD_BEFORE + 8):
            add(app, "quick", f"lost {number}")
        lost = add(app, "hold", "lost")
        until(lambda: app.get(f"hold.{lost}")["started_at"])
        key = pair.ask("SELECT max(key) FROM yaotask_jobs")

        pair.change()
        with running(b) as two:
            # Numbers are given out twice now: the lost job's, too, whose handler still runs.
            while pair.ask("SELECT max(key) FROM yaotask_jobs") < key - 1:
                add(app, "quick", "new")
            add(app, "hold", "new")
            assert pair.ask("SELECT max(key) FROM yaotask_jobs") == key
            until(lambda: notes(b, "start") == ["new"])
            # Both have ids that they were given before, or are given now.
            for _ in range(20):
                add(app, "quick", "new")
                add(other, "quick", "new")
            open_gate(a)
            one.says(f"hold.{lost} was given to another worker, or ended")
            held = [job for job in results(app, "hold") if job[0] == "new"]
            open_gate(b)
            until(lambda: set(statuses(app)) == {"SUCCESS"})
            for node in (one, two):
                node.signal(signal.SIGTERM)
                assert node.status() == 0, node.errors

        assert held == [("new", None)]
        assert sorted(results(app, "hold")) == [("kept", ["kept", "a"]), ("new", ["new", "b"])]
        assert all(result is not None and result[0] == word for word, result in results(app, "quick"))
        assert {f"kept {number}" for number in range(20)} <= {word for word, _ in results(app, "quick")}
