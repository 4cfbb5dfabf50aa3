"""How `yaotask run` ends when it is told to: within the grace, after it, at once, and in spite of its handlers."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from run_support import IN_A_THREAD, ON_THE_LOOP, TASK, add, drained, job, notes, running, until

pytest_plugins = ["run_fixtures"]
pytestmark = pytest.mark.timeout(60)

SHIELDED = """
    import anyio
    from scripts.witness import note

    async def Hold(task_id):
        note("start", task_id)
        with anyio.CancelScope(shield=True):
            await anyio.sleep_forever()
"""
BLOCKING = """
    import time
    from scripts.witness import note

    async def Hold(task_id):
        note("start", task_id)
        time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("script", [IN_A_THREAD, ON_THE_LOOP], ids=["sync", "async"])
def test_a_running_job_ends_within_its_grace_and_none_starts_after_it(
    hold: Callable[..., Path], script: str, number: signal.Signals
) -> None:
    root = hold(script)
    add(root, 2)
    with running(root) as run:
        until(lambda: notes(root, "start"))
        run.signal(number)
        run.says(f"{number.name}: running jobs get 25s")
        (root / "gate").touch()
        assert run.status() == 0

    assert (job(root, 1)["status"], job(root, 2)["status"]) == ("SUCCESS", "WAITING")
    assert notes(root, "start") == ["1"]


@pytest.mark.parametrize("script", [IN_A_THREAD, ON_THE_LOOP], ids=["sync", "async"])
def test_a_job_that_outlasts_the_grace_is_handed_back_untried_and_runs_next_time(
    hold: Callable[..., Path], script: str
) -> None:
    root = hold(script, settings="grace: 200ms")
    add(root)
    with running(root) as run:
        until(lambda: notes(root, "start"))
        run.signal()
        assert run.status() == 0
    between = job(root)
    (root / "gate").touch()
    drained(root)
    after = job(root)

    assert (between["status"], between["attempt"]) == ("WAITING", 0)
    assert (after["status"], after["attempt"]) == ("SUCCESS", 1)
    assert (notes(root, "start"), notes(root, "end")) == (["1", "1"], ["1"])


def test_a_second_try_that_is_handed_back_waits_as_a_retry(hold: Callable[..., Path]) -> None:
    script = """
        import anyio
        from scripts.witness import note
        from yaotask import current_job

        async def Hold(task_id):
            if current_job().attempt == 1:
                raise ValueError("the first try")
            note("start", task_id)
            await anyio.sleep_forever()
    """
    root = hold(script, settings="grace: 0", task=TASK + "attempts: 1\nattempt_after: 0\n")
    add(root)
    with running(root) as run:
        until(lambda: notes(root, "start"))
        run.signal()
        assert run.status() == 0

    back = job(root)
    assert (back["status"], back["attempt"], back["error"]) == ("RETRYING", 1, "the first try")


@pytest.mark.parametrize("script", [IN_A_THREAD, ON_THE_LOOP], ids=["sync", "async"])
def test_a_second_signal_ends_at_once_with_one_and_hands_back(hold: Callable[..., Path], script: str) -> None:
    root = hold(script, settings="grace: 1h")
    add(root)
    with running(root) as run:
        until(lambda: notes(root, "start"))
        run.signal()
        run.says("SIGTERM: running jobs get 1h")
        run.signal()
        assert run.status() == 1
    between = job(root)
    (root / "gate").touch()
    drained(root)

    assert (between["status"], between["attempt"]) == ("WAITING", 0)
    assert job(root)["status"] == "SUCCESS"


@pytest.mark.parametrize("script", [SHIELDED, BLOCKING], ids=["shielded", "blocking"])
def test_a_handler_that_does_not_let_go_cannot_hold_up_the_end(hold: Callable[..., Path], script: str) -> None:
    root = hold(script, settings="grace: 200ms")
    add(root)
    with running(root) as run:
        until(lambda: notes(root, "start"))
        begun = time.monotonic()
        run.signal()
        assert run.status() == 0
        took = time.monotonic() - begun

    assert took < 12
    assert (job(root)["status"], job(root)["attempt"]) == ("WAITING", 0)


def test_a_second_signal_ends_a_run_whose_loop_is_blocked(hold: Callable[..., Path]) -> None:
    root = hold(BLOCKING, settings="grace: 1h")
    add(root, 2)
    with running(root) as run:
        until(lambda: notes(root, "start"))
        run.signal()
        run.says("SIGTERM: running jobs get 1h")
        run.signal(signal.SIGINT)
        assert run.status() == 1

    assert "worker 1 did not end in time" in run.errors
    assert "stopped; 2 handed back" in run.errors or "stopped; 1 handed back" in run.errors
    assert [(job(root, id)["status"], job(root, id)["attempt"]) for id in (1, 2)] == [("WAITING", 0)] * 2


def test_a_sync_hook_that_hangs_does_not_keep_the_process(hold: Callable[..., Path]) -> None:
    script = """
        import time
        from scripts.witness import note

        def Hold(task_id):
            pass

        def Hang(task_id, response):
            note("hook", task_id)
            time.sleep(600)
    """
    task = f"{TASK}event: {{success: scripts.hold.Hang}}\n"
    root = hold(script, task=task, settings="{grace: 100ms, hook_timeout: 100ms, hook_attempts: 1}")
    add(root)
    with running(root, "--drain") as run:
        until(lambda: notes(root, "hook"))
        begun = time.monotonic()
        assert run.status() == 0
        took = time.monotonic() - begun

    assert took < 12
    assert (job(root)["status"], notes(root, "hook")) == ("SUCCESS", ["1"])
