"""`yaotask run` as its users meet it: what it says, how it shares work, and what stands in its way."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from run_support import ON_THE_LOOP, TASK, WITNESS, add, command, drained, job, notes, running, until

from yaotask import App

pytest_plugins = ["run_fixtures"]
pytestmark = pytest.mark.timeout(60)

Project = Callable[..., Path]


# --- to the end of the work --------------------------------------------------------------------------


def test_a_drain_says_what_runs_works_until_nothing_is_left_and_ends_with_zero(hold: Callable[..., Path]) -> None:
    root = hold(ON_THE_LOOP)
    (root / "gate").touch()
    add(root, 3)
    run = drained(root)

    said = [" ".join(line.split()) for line in run.errors.splitlines()]
    assert f"project: {root}" in said
    assert any(line.startswith("store: sqlite:///") for line in said)
    assert "hold 1 1 try 5m tasks/hold.yml" in said
    assert said[-1].endswith("stopped; 3 succeeded")
    assert run.output == ""
    assert job(root, 3)["status"] == "SUCCESS"


def test_a_drain_waits_for_retries_but_not_for_a_job_that_its_adder_put_off(hold: Callable[..., Path]) -> None:
    script = """
        from yaotask import current_job

        def Hold(task_id):
            if current_job().attempt < 3:
                raise ValueError("not yet")
    """
    root = hold(script, task=TASK + "attempts: 2\nattempt_after: 100\n")
    with App(root) as app:
        app.tasks["hold"].add()
        app.tasks["hold"].options(delay="1h").add()
        run = drained(root)

        assert (app.get("hold.1")["status"], app.get("hold.2")["status"]) == ("SUCCESS", "WAITING")
    assert "stopped; 1 succeeded" in run.errors


def test_two_runs_of_one_project_share_its_jobs_and_run_none_twice(hold: Callable[..., Path]) -> None:
    script = """
        import os
        import time
        from pathlib import Path

        from scripts.witness import note

        def Hold(task_id):
            note("start", task_id)
            note("node", os.getppid())
            # Each waits until the other run has taken a job too.
            while len({line for line in Path("witness").read_text().splitlines() if line.startswith("node")}) < 2:
                time.sleep(0.02)
    """
    root = hold(script)
    with running(root) as one, running(root) as other:
        add(root, 50)
        until(lambda: job(root, 50)["status"] == "SUCCESS" and job(root, 49)["status"] == "SUCCESS")
        one.signal()
        other.signal()
        assert (one.status(), other.status()) == (0, 0)
    starts = Counter(notes(root, "start"))

    assert starts == {str(id): 1 for id in range(1, 51)}
    assert set(notes(root, "node")) == {str(one.process.pid), str(other.process.pid)}


# --- what stands in the way --------------------------------------------------------------------------


def test_a_broken_handler_stops_its_own_task_and_no_other(project: Project) -> None:
    root = project(
        tasks={"good": "name: Good\nprocess: scripts.good.Run\n", "bad": "name: Bad\nprocess: scripts.bad.Run\n"},
        scripts={"good": "def Run(task_id): return 'done'\n", "bad": "import nothing_of_this_name\n"},
    )
    with App(root) as app:
        app.tasks["good"].add()
        app.tasks["bad"].add()
        run = drained(root)

        assert (app.get("good.1")["status"], app.get("bad.1")["status"]) == ("SUCCESS", "WAITING")
    assert "bad is broken, its jobs wait:" in run.errors
    assert "running; at most 1 job at once;" in run.errors
    assert "stopped; 1 succeeded; still waiting: 1 job of bad, whose handler is broken" in run.errors
    assert "No module named 'nothing_of_this_name'" in run.errors


def test_the_hooks_of_a_task_whose_handler_is_broken_are_left_to_a_node_that_has_it_whole(project: Project) -> None:
    hook = "from scripts.witness import note\n\ndef OnAdd(task_id): note('added', task_id)\n"
    root = project(
        tasks={"bad": "name: Bad\nprocess: scripts.bad.Run\nevent:\n  add: scripts.bad.OnAdd\n"},
        scripts={"witness": WITNESS, "bad": hook},
    )
    with App(root) as app:
        app.tasks["bad"].add()
        drained(root)
        before = notes(root, "added")
        project(scripts={"bad": hook + "\ndef Run(task_id): return 'done'\n"})
        drained(root)

        assert (before, notes(root, "added")) == ([], ["1"])
        assert app.get("bad.1")["status"] == "SUCCESS"


def test_a_fault_in_a_task_file_ends_it_with_three_and_the_place(hold: Callable[..., Path]) -> None:
    root = hold(ON_THE_LOOP, task=TASK + "worker_nums: none\n")
    run = command(root, "run")

    assert run.returncode == 3
    assert "tasks/hold.yml:3:14: worker_nums: " in run.stderr
    assert not (root / ".yaotask").exists()


def test_a_store_that_cannot_be_opened_ends_it_with_four_and_advice(hold: Callable[..., Path]) -> None:
    root = hold(ON_THE_LOOP)
    (root / ".yaotask").mkdir(mode=0o700)
    (root / ".yaotask" / "yaotask.db").write_bytes(b"this is a letter, not a database" * 100)
    run = command(root, "run")

    assert run.returncode == 4
    assert run.stderr.splitlines()[-1].startswith("Error: ")
    assert ".yaotask/yaotask.db" in run.stderr
    assert "yaotask itself failed" not in run.stderr


def test_a_log_in_json_is_one_object_a_line(hold: Callable[..., Path]) -> None:
    root = hold(ON_THE_LOOP, settings="log: json")
    (root / "gate").touch()
    add(root)
    lines = [json.loads(line) for line in drained(root).errors.splitlines()]

    assert lines[0]["tasks"] == ["hold"]
    assert lines[-1]["message"] == "stopped; 1 succeeded"
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)


@pytest.mark.parametrize("word", ["def", "async def"])
def test_a_child_that_a_handler_forks_ends_with_the_handler(hold: Callable[..., Path], word: str) -> None:
    root = hold(f"""
        import os

        {word} Hold(task_id):
            child = os.fork()
            if child:
                os.waitpid(child, 0)
            return child
    """)
    add(root)
    drained(root)
    ended = job(root)

    assert ended["status"] == "SUCCESS"
    with pytest.raises(ProcessLookupError):
        os.kill(ended["response"], 0)
