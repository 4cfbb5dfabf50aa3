"""Workers, tries and timeouts, as seed 002 has them: each test is named after what is promised there."""

from __future__ import annotations

from itertools import pairwise

import pytest
from runtime_support import ended
from seed_support import ECHO, OpenApp, ShiftedClock, told

pytest_plugins = ["seed_fixtures"]

# --- workers -----------------------------------------------------------------------------------------

CROWD_OF_THREADS = """
    import threading

    lock, meeting, inside, most = threading.Lock(), threading.Barrier(3), 0, 0

    def Send(task_id):
        global inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        meeting.wait(10)
        with lock:
            inside -= 1

    def Most():
        return most
"""

CROWD_OF_TASKS = """
    import anyio

    inside = most = 0

    async def Send(task_id):
        global inside, most
        inside += 1
        most = max(most, inside)
        while most < 3:
            await anyio.sleep(0.001)
        for _ in range(5):
            await anyio.sleep(0)
        inside -= 1

    def Most():
        return most
"""


@pytest.mark.parametrize("script", [CROWD_OF_THREADS, CROWD_OF_TASKS], ids=["sync", "async"])
async def test_as_many_jobs_run_at_once_as_there_are_workers_and_never_more(open_app: OpenApp, script: str) -> None:
    app = open_app(script, worker_nums=3)
    ids = await app.tasks["mail"].aadd_many([[]] * 30)
    async with app.running():
        ends = [(await ended(app, id))["status"] for id in ids]

    assert ends == ["SUCCESS"] * 30
    assert await app.acall("scripts.mail.Most") == 3


async def test_one_worker_takes_jobs_in_the_order_in_which_they_came(open_app: OpenApp) -> None:
    app = open_app(ECHO)
    for number in range(20):
        await app.acall("tasks.mail.add", number)
    async with app.running():
        await ended(app, 20)
        calls = await app.acall("scripts.mail.Calls")

    assert [number for _, number in calls] == list(range(20))


# --- trying again ------------------------------------------------------------------------------------

TRIES = """
    import time

    tries, told = [], []

    def Send(task_id, failures):
        tries.append(time.time())
        if len(tries) <= failures:
            raise ConnectionError(f"try {len(tries)}")
        return len(tries)

    def Tries():
        return tries

    def OnSuccess(id, response):
        told.append(("success", id, response))

    def OnError(id, error):
        told.append(("error", id, str(error)))

    def Told():
        return told
"""


async def test_three_attempts_are_four_executions_that_far_apart_and_one_error(open_app: OpenApp) -> None:
    app = open_app(TRIES, attempts=3, attempt_after=50, event="success error")
    async with app.running():
        id = await app.acall("tasks.mail.add", 99)
        job = await ended(app, id)
        await told(app, 1)
    tries, calls = await app.acall("scripts.mail.Tries"), await app.acall("scripts.mail.Told")

    assert (job["status"], job["retry_count"]) == ("FAILURE", 3)
    assert len(tries) == 4
    assert all(later - earlier >= 0.05 for earlier, later in pairwise(tries))
    assert calls == [("error", id, "try 4")]


async def test_a_job_that_fails_twice_and_then_returns_is_one_success_and_no_error(open_app: OpenApp) -> None:
    app = open_app(TRIES, attempts=3, attempt_after=1, event="success error")
    async with app.running():
        id = await app.acall("tasks.mail.add", 2)
        job = await ended(app, id)
        await told(app, 1)
    calls = await app.acall("scripts.mail.Told")

    assert (job["status"], job["response"], job["error"]) == ("SUCCESS", 3, None)
    assert calls == [("success", id, 3)]


async def test_time_in_the_queue_does_not_count_against_the_timeout(open_app: OpenApp) -> None:
    clock = ShiftedClock()
    app = open_app(ECHO, clock=clock, timeout=30)
    id = await app.acall("tasks.mail.add")
    clock.ahead += 3600
    async with app.running():
        job = await ended(app, id)

    assert job["status"] == "SUCCESS"
    assert job["wait_ms"] >= 3_600_000


@pytest.mark.parametrize("word", ["async def", "def"])
async def test_a_try_that_takes_longer_than_the_timeout_has_failed_and_is_repeated(
    open_app: OpenApp, word: str
) -> None:
    script = f"""
        import anyio, threading

        told, gate = [], threading.Event()

        {word} Send(task_id):
            {"await anyio.sleep_forever()" if "async" in word else "gate.wait(10)"}

        def Open():
            gate.set()

        def OnRetry(id, error, attempt, after_ms):
            told.append(("retry", id, error.type, attempt))

        def OnError(id, error):
            told.append(("error", id, error.type))

        def Told():
            return told
    """
    app = open_app(script, timeout="100ms", attempts=1, attempt_after=0, worker_nums=2, event="retry error")
    async with app.running():
        id = await app.acall("tasks.mail.add")
        job = await ended(app, id)
        calls = await told(app, 2)
        await app.acall("scripts.mail.Open")

    assert (job["status"], job["error_type"], job["attempt"]) == ("FAILURE", "TimeoutError", 2)
    assert calls == [("retry", id, "TimeoutError", 1), ("error", id, "TimeoutError")]
