"""What `yaotask run` says of itself before it works."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import pytest
from run_support import PATIENCE, command, running, until

from yaotask import App

pytestmark = pytest.mark.timeout(60)

Project = Callable[..., Path]


def banner(root: Path) -> list[str]:
    ended = command(root, "run", "--drain", "--no-http")
    assert ended.returncode == 0, ended.stderr
    return [" ".join(line.split()) for line in ended.stderr.splitlines()]


def test_it_says_where_it_works_how_many_at_once_and_on_what(project: Project) -> None:
    task = "name: Some\nprocess: scripts.some.Run\n"
    root = project(
        tasks={"some": f"{task}worker_nums: 3\nattempts: 1\n", "other": f"{task}worker_nums: 4\n"},
        scripts={"some": "def Run(task_id): ...\n"},
    )
    lines = banner(root)

    assert lines[1:7] == [
        f"project: {root}",
        f"store: sqlite:///{root}/.yaotask/yaotask.db",
        "workers: 1 process",
        "TASK AT ONCE TRIES WAITS TIMEOUT FILE",
        "other 4 1 try 5m tasks/other.yml",
        "some 3 1 try + 1 retry 200ms 5m tasks/some.yml",
    ]
    assert lines[-2].endswith("INFO running; at most 7 jobs at once; SIGTERM or Ctrl-C ends it")
    assert lines[-1].endswith("INFO stopped; there was nothing to do")


def test_a_broken_task_is_told_with_the_reason_and_what_becomes_of_its_jobs(project: Project) -> None:
    root = project(
        tasks={"some": "name: Some\nprocess: scripts.some.Rum\n"}, scripts={"some": "def Run(task_id): ...\n"}
    )
    lines = banner(root)

    assert "some 1 1 try 5m tasks/some.yml" in lines
    assert [line.partition(" WARN ")[2] for line in lines if " WARN " in line] == [
        "some is broken, its jobs wait: scripts/some.py has no function "
        '"Rum"; did you mean "Run"? (mend it and start again)'
    ]


def test_a_project_without_tasks_is_told_where_they_would_be(project: Project) -> None:
    lines = banner(project(settings="poll: 1s\n"))

    assert "tasks: none that can run; each is a file such as tasks/mail.yml" in lines


def full() -> TextIO:
    return open("/dev/full", "w")


def test_a_log_on_a_full_disk_keeps_no_node_from_its_work(project: Project) -> None:
    root = project(
        tasks={"some": "name: Some\nprocess: scripts.some.Run\n"}, scripts={"some": "def Run(task_id): ...\n"}
    )
    with App(root) as app, full() as outlet:
        app.tasks["some"].add()
        ended = subprocess.run(
            [sys.executable, "-m", "yaotask", "run", "--drain"], cwd=root, stderr=outlet, timeout=PATIENCE, check=False
        )
        status = app.get("some.1")["status"]

    assert (ended.returncode, status) == (0, "SUCCESS")


def left() -> TextIO:
    """A pipe whose reader has left."""
    reader, pipe = os.pipe()
    os.close(reader)
    return open(pipe, "w")


@pytest.mark.parametrize("nowhere", [full, left])
def test_handlers_may_print_where_nobody_reads_it_or_the_disk_is_full(
    project: Project, nowhere: Callable[[], TextIO]
) -> None:
    script = """
        import sys

        def Run(task_id):
            print("a line")
            print("one more", file=sys.stderr, flush=True)
    """
    executors = ("async", "thread", "process")
    root = project(
        tasks={name: f"name: Some\nprocess: scripts.{name}.Run\nexecutor: {name}\nattempts: 0\n" for name in executors},
        scripts={name: script.replace("def", "async def" if name == "async" else "def") for name in executors},
    )
    with App(root) as app, nowhere() as outlet:
        for name in executors:
            app.tasks[name].add()
        ended = subprocess.run(
            [sys.executable, "-m", "yaotask", "run", "--drain"],
            cwd=root,
            stdout=outlet,
            stderr=outlet,
            timeout=PATIENCE,
        )
        states = {name: app.get(f"{name}.1")["status"] for name in executors}

    assert states == dict.fromkeys(executors, "SUCCESS")
    assert ended.returncode == 0


def test_only_some_tasks_run_where_they_are_named(project: Project) -> None:
    task = "name: Some\nprocess: scripts.some.Run\n"
    root = project(tasks={"some": task, "other": task}, scripts={"some": "def Run(task_id): ...\n"})
    with App(root) as app:
        ids = [app.tasks[name].add() for name in ("some", "other")]
        ended = command(root, "run", "--drain", "--only", "some")
        statuses = [app.get(f"{name}.{id}")["status"] for name, id in zip(("some", "other"), ids, strict=True)]
    unknown = command(root, "run", "--only", "somme")

    assert (ended.returncode, statuses) == (0, ["SUCCESS", "WAITING"])
    assert "other" not in ended.stderr
    assert (unknown.returncode, 'did you mean "some"' in unknown.stderr) == (2, True)


def test_what_a_handler_prints_is_in_a_log_file_at_once(project: Project) -> None:
    script = "import time\n\ndef Run(task_id):\n    print('begun')\n    time.sleep(60)\n"
    root = project(
        tasks={"some": "name: Some\nprocess: scripts.some.Run\n"}, scripts={"some": script}, settings="grace: 0\n"
    )
    with App(root) as app:
        app.tasks["some"].add()
    with running(root) as run:
        until(lambda: run.output == "begun\n")
