"""`yaotask workers`: what runs the jobs, for people and for programs; and who waits in vain is told."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_support import Run, screen
from fleet_support import Fleet
from run_support import IN_A_THREAD, add, notes, running, started, until

from yaotask import App

pytest_plugins = ["cli_fixtures", "run_fixtures"]

TASK = "name: Mail\nprocess: scripts.mail.Send\n"
SCRIPT = "def Send(task_id): ...\n"
NOBODY = "no worker is up"


@pytest.fixture
def root(project: Callable[..., Path]) -> Path:
    root = project(tasks={"mail": TASK}, scripts={"mail": SCRIPT})
    with App(root) as app:
        app.tasks["mail"].add_many([[]] * 6)
    return root


@pytest.fixture
def fleet(root: Path) -> Fleet:
    return Fleet(root)


def test_where_nothing_is_up_it_says_how_to_start(root: Path, run: Run) -> None:
    ended = run("workers", "-a", root)

    assert (ended.status, ended.out) == (0, "")
    assert ended.err == "no worker is up: jobs wait until one is started with: yaotask run\n"
    assert run("workers", "-a", root, "--json") == (0, "[]\n", "")


def test_each_node_has_a_heading_and_a_row_for_each_process(root: Path, fleet: Fleet, run: Run) -> None:
    fleet.node(1, workers=2, memory=85_400_000)
    fleet.enter(9, "embedded", lease=None)
    ended = run("workers", "-a", root)
    lines = ended.out.splitlines()

    assert (ended.status, ended.err) == (0, "")
    assert re.fullmatch(r"node 1 on build-1, yaotask 0\.1\.0; lease renewed \d\.\d s ago, 2\d\.\d s left", lines[0])
    assert lines[1].split() == ["KEY", "PROCESS", "PID", "INCARNATION", "STATE", "AGE", "BEAT", "MEMORY", "RUNS"]
    assert [line.split()[:2] for line in lines[2:5]] == [["1", "supervisor"], ["2", "worker"], ["3", "worker"]]
    assert re.fullmatch(r"3  +worker 2  +1003  +00000000  +working  +1 min 0 s  +2\.\d s  +85 MB", lines[4])
    assert lines[6] == "embedded 9 on build-1"


def test_what_a_worker_has_in_hand_is_told_and_cut_where_it_is_much(root: Path, fleet: Fleet, run: Run) -> None:
    fleet.node(1, zombies={"mail": 2})
    fleet.claim(1, 2, since=3600)
    fleet.claim(2, 2, since=600, started=False)
    for id in (3, 4, 5):
        fleet.claim(id, 2, since=60)
    (row,) = [line for line in run("workers", "-a", root).out.splitlines() if "worker 1" in line]

    # A busy machine needs a second for it.
    runs = r"mail\.1 1 h 0 min, mail\.2 10 min \d s \(not started\), mail\.3 1 min \d s, 2 more, 2 zombies of mail$"
    assert re.search(runs, row)


def test_a_dead_node_is_shown_as_dead_and_counts_for_nobody(root: Path, fleet: Fleet, run: Run) -> None:
    fleet.enter(1, "supervisor", renewed=150, lease=30)
    fleet.enter(2, node=1, renewed=150, lease=30)
    ended = run("workers", "-a", root)

    assert ended.out.startswith("node 1 on build-1; its lease ran out 2 min 0 s ago\n")
    assert ended.out.count("dead") == 2
    assert NOBODY in ended.err


def test_workers_without_their_supervisor_are_told_so(root: Path, fleet: Fleet, run: Run) -> None:
    fleet.enter(2, node=1)

    assert run("workers", "-a", root).out.startswith("node 1 on build-1, whose supervisor is gone\n")


def test_a_host_that_is_named_to_deceive_is_shown_escaped(root: Path, fleet: Fleet, run: Run) -> None:
    fleet.enter(1, host="a\x1b[2Jb")

    assert run("workers", "-a", root).out.startswith("worker 1 on a\\x1b[2Jb;")


def test_a_hundred_columns_are_enough(root: Path, fleet: Fleet) -> None:
    fleet.node(1, workers=2, memory=1_085_400_000)
    fleet.claim(1, 2)
    with screen(root, "workers", columns=100) as terminal:
        assert terminal.status() == 0

    assert all(len(line) <= 100 for line in terminal.text.splitlines())
    assert re.search(r"1,085 MB  mail\.1 \d\.\d s", terminal.text)


def test_as_json_it_is_what_the_app_answers(root: Path, fleet: Fleet, run: Run) -> None:
    fleet.node(1, zombies={"mail": 2})
    fleet.claim(1, 2)
    supervisor, worker = json.loads(run("workers", "-a", root, "--json").out)

    assert (supervisor["kind"], worker["node"], worker["number"]) == ("supervisor", 1, 1)
    assert worker["incarnation"] == f"{2:032x}"
    assert (worker["zombies"], worker["jobs"][0]["task_id"]) == ({"mail": 2}, "mail.1")


def test_what_a_node_cannot_run_is_said_below_it(root: Path, fleet: Fleet, run: Run) -> None:
    fleet.enter(1, "supervisor", tasks=["mail"], broken=["mail"])

    assert run("workers", "-a", root).out.splitlines()[-2] == (
        "cannot run mail: broken there, as its log says; their jobs are left to other nodes"
    )


def test_tasks_that_nodes_define_in_different_ways_are_told(root: Path, fleet: Fleet, run: Run) -> None:
    for key, word in ((1, "abcdef"), (2, "012345")):
        fleet.enter(key, "supervisor", tasks=["mail"], digests=word)
        fleet.enter(key + 2, node=key, number=0)
    ended = run("workers", "-a", root)

    assert (
        ended.err
        == "mail differs between node 1 on build-1 and node 2 on build-1: a job goes by the node that runs it\n"
    )


@pytest.mark.timeout(60)
def test_of_a_real_node_all_is_shown_and_nothing_is_wrong(hold: Callable[..., Path], run: Run) -> None:
    root = hold(IN_A_THREAD)
    add(root)
    with running(root, "--processes", "2"):
        until(lambda: notes(root, "start"))
        with App(root) as app:
            until(lambda: any(process["running"] for process in app.workers()))
            until(lambda: len(app.workers()) == 4)
            processes = app.workers()
        shown, checked = run("workers", "-a", root), run("doctor", "-a", root)

    kinds = [(process["kind"], process["number"], process["alive"]) for process in processes]
    assert kinds == [("supervisor", None, True), ("worker", 1, True), ("worker", 2, True), ("services", None, True)]
    assert [job["task_id"] for process in processes for job in process["jobs"]] == ["hold.1"]
    assert (shown.status, shown.err, "hold.1" in shown.out) == (0, "", True)
    assert (checked.status, checked.out.splitlines()[-1]) == (0, "0 faults, 0 warnings")


# --- waiting for nobody ------------------------------------------------------------------------------


@pytest.mark.timeout(60)
@pytest.mark.parametrize("words", [["add", "mail", "--wait"], ["get", "mail.7", "--follow", "--json"]])
def test_who_waits_for_a_job_that_nobody_will_run_is_told_once(root: Path, words: list[str]) -> None:
    with App(root) as app:
        if words[0] == "get":
            app.tasks["mail"].add()
        with started(root, ["-m", "yaotask", *words]) as waiting:
            waiting.says(NOBODY)
            app.cancel("mail.7")
            waiting.status()

    assert waiting.errors.count(NOBODY) == 1
    assert "no worker is up, mail.7 waits: start one with: yaotask run\n" in waiting.errors


@pytest.mark.timeout(60)
def test_who_follows_a_job_while_a_worker_is_up_or_after_its_end_is_told_nothing(
    root: Path, fleet: Fleet, run: Run
) -> None:
    with App(root) as app:
        app.cancel("mail.1")
        ended = run("get", "-a", root, "mail.1", "--follow")
        fleet.enter(1)
        with started(root, ["-m", "yaotask", "get", "mail.2", "--follow"]) as following:
            assert following.process.poll() is None
            app.cancel("mail.2")
            following.status()

    assert NOBODY not in ended.err
    assert NOBODY not in following.errors
