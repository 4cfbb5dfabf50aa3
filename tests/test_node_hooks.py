"""Hooks that end their worker, or hang it: given up after some calls, and no harm to the hooks and jobs beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from node_support import lines_with, nothing_left
from run_support import WITNESS, notes, running, until

from yaotask import App

pytestmark = pytest.mark.timeout(120)

EVIL = """
    import os
    import time

    import anyio
    from scripts.witness import note

    async def Evil(task_id):
        return os.getpid()

    def end(task_id, response):
        note("called", os.getpid())
        os._exit(7)

    async def block(task_id, response):
        note("called", os.getpid())
        time.sleep(600)

    async def swallow(task_id, response):
        note("called", os.getpid())
        while True:
            try:
                await anyio.sleep(600)
            except BaseException:
                pass

    async def interrupt(task_id, response):
        note("called", os.getpid())
        raise KeyboardInterrupt
"""
GOOD = """
    from scripts.witness import note

    async def Good(task_id):
        pass

    def tell(task_id, response):
        note("told", task_id)
"""
SETTINGS = "{hook_attempts: 2, hook_timeout: 500ms, cancel_grace: 500ms, poll: 200ms, grace: 2s}"
GOOD_ONES = 20

Project = Callable[..., Path]


# The call that ends a worker does not count, because it may have been another's; the next ones are in child processes.
@pytest.mark.parametrize(
    ("hook", "calls", "deaths"), [("end", 3, 1), ("block", 3, 1), ("swallow", 3, 1), ("interrupt", 2, 0)]
)
def test_a_hook_that_does_harm_to_its_worker_is_given_up_and_others_are_called(
    project: Project, hook: str, calls: int, deaths: int
) -> None:
    root = project(
        tasks={
            "evil": f"name: Evil\nprocess: scripts.evil.Evil\nevent: {{success: scripts.evil.{hook}}}\n",
            "good": "name: Good\nprocess: scripts.good.Good\nevent: {success: scripts.good.tell}\n",
        },
        scripts={"evil": EVIL, "good": GOOD, "witness": WITNESS},
        settings=SETTINGS,
    )
    with App(root) as app:
        app.tasks["good"].add_many([[]] * GOOD_ONES)
        app.tasks["evil"].add()
    with running(root) as run:
        run.says("the success hook of evil.1 failed for the last time; the event is kept")
        until(lambda: set(notes(root, "told")) == {str(id) for id in range(1, GOOD_ONES + 1)})
        run.signal()
        assert run.status() == 0

    with App(root) as app:
        evil, good = app.get("evil.1"), app.status("good", range(1, GOOD_ONES + 1))
    assert (evil["status"], evil["attempt"], set(good.values())) == ("SUCCESS", 1, {"SUCCESS"})
    assert len(notes(root, "called")) == calls
    assert len(lines_with(run, "worker 1 is up")) == 1 + deaths
    nothing_left(root)


def test_a_hook_that_ends_its_process_for_each_job_costs_one_worker(project: Project) -> None:
    root = project(
        tasks={"evil": "name: Evil\nprocess: scripts.evil.Evil\nevent: {success: scripts.evil.end}\n"},
        scripts={"evil": EVIL, "witness": WITNESS},
        settings=SETTINGS,
    )
    with App(root) as app, running(root) as run:
        app.tasks["evil"].add()
        run.says("the success hook of evil.1 failed, next try")
        app.tasks["evil"].add_many([[]] * 5)
        for id in range(1, 7):
            run.says(f"the success hook of evil.{id} failed for the last time")
        run.signal()
        assert run.status() == 0

    assert len(lines_with(run, "worker 1 is up")) == 2
    nothing_left(root)


def test_a_hook_that_runs_while_a_job_blocks_the_loop_has_nobody_replaced(project: Project) -> None:
    script = """
        import time

        import anyio
        from scripts.witness import note

        async def Block(task_id):
            note("blocks", task_id)
            time.sleep(6)

        async def wait(task_id):
            note("waits", task_id)
            await anyio.sleep(0.3)
            note("told", task_id)
    """
    root = project(
        tasks={
            "block": "name: Block\nprocess: scripts.some.Block\ntimeout: 60\n",
            "told": "name: Told\nprocess: scripts.some.Block\ntimeout: 60\nevent: {add: scripts.some.wait}\n",
        },
        scripts={"some": script, "witness": WITNESS},
        settings="{hook_timeout: 1s, cancel_grace: 500ms, poll: 200ms, grace: 2s}",
    )
    with App(root) as app, running(root) as run:
        app.tasks["told"].add()
        app.tasks["block"].add()
        until(lambda: app.get("block.1")["status"] == app.get("told.1")["status"] == "SUCCESS")
        run.signal()
        assert run.status() == 0

    assert lines_with(run, "has blocked the event loop")
    assert notes(root, "blocks") == ["1", "1"]
    assert len(lines_with(run, "worker 1 is up")) == 1
