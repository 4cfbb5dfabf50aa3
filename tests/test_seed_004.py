"""Waits that grow, priorities, and what may be retried or cancelled: seed 004."""

from __future__ import annotations

import pytest
from runtime_support import ended
from seed_support import OpenApp, ShiftedClock, reaches, told

from yaotask import App
from yaotask.errors import WrongState

pytest_plugins = ["seed_fixtures"]

# Its retry hook sets the clock forward to the next try, so that nobody waits for it.
SERVER = """
    from yaotask import current_app

    told = []

    def Send(task_id):
        raise ConnectionError("no server")

    def OnRetry(id, error, attempt, after_ms):
        told.append(after_ms)
        current_app().clock.ahead += after_ms / 1000

    def Told():
        return told
"""


@pytest.mark.parametrize(("backoff", "waits"), [("exponential", [60, 120, 240]), ("fixed", [60, 60, 60])])
async def test_three_retries_wait_as_long_as_their_strategy_says(
    open_app: OpenApp, backoff: str, waits: list[int]
) -> None:
    app = open_app(
        SERVER,
        clock=ShiftedClock(),
        settings="poll: 20ms",
        attempts=3,
        attempt_after="60s",
        backoff=backoff,
        event="retry",
    )
    async with app.running():
        id = await app.acall("tasks.mail.add")
        job = await ended(app, id)

    tries = await app.aattempts(f"mail.{id}")
    # Counted from when the failure was stored, a little after the try.
    assert [after_ms // 1_000 for after_ms in await told(app, 3)] == waits
    assert (job["status"], job["retry_strategy"], job["retry_interval"]) == ("FAILURE", backoff, 60)
    assert [one["outcome"] for one in tries] == ["retry", "retry", "retry", "failure"]


async def test_a_small_base_doubles_too(open_app: OpenApp) -> None:
    script = SERVER.replace("current_app().clock.ahead += after_ms / 1000", "")
    app = open_app(script, attempts=3, attempt_after=10, backoff="exponential", event="retry")
    async with app.running():
        id = await app.acall("tasks.mail.add")
        job = await ended(app, id)

    waits = await told(app, 3)
    assert all(waited >= wait for waited, wait in zip(waits, [10, 20, 40], strict=True))
    assert job["attempt"] == 4


ORDER = """
    told = []

    def Send(task_id, name):
        told.append(name)

    def Told():
        return told
"""


async def test_the_larger_priority_runs_first_and_equal_ones_in_order(open_app: OpenApp) -> None:
    app = open_app(ORDER, priority=1)
    mail = app.tasks["mail"]
    for name, priority in [("low", "low"), ("none", None), ("5", 5), ("11", 11), ("high", "high"), ("none too", None)]:
        await mail.options(priority=priority).aadd(name)
    async with app.running():
        order = await told(app, 6)

    assert order == ["11", "high", "5", "none", "none too", "low"]


# Told what to do by its first argument; "wait" lasts until `Open`.
EACH_WAY = """
    import threading

    gate = threading.Event()

    def Send(task_id, what):
        if what == "fail":
            raise ValueError("no server")
        if what == "wait":
            assert gate.wait(10)
        return what

    def Open():
        gate.set()
"""


async def every_status(app: App) -> dict[str, str]:
    """One job of each status, by its status."""
    mail = app.tasks["mail"]
    wishes = {
        "SUCCESS": await mail.aadd("return"),
        "FAILURE": await mail.options(attempts=0).aadd("fail"),
        "RETRYING": await mail.aadd("fail"),
        "RUNNING": await mail.aadd("wait"),
        "WAITING": await mail.options(delay="1h").aadd("return"),
    }
    for status, id in wishes.items():
        await reaches(app, id, status)
    return {status: f"mail.{id}" for status, id in wishes.items()}


async def test_only_a_failure_can_be_retried(open_app: OpenApp) -> None:
    app = open_app(EACH_WAY, attempts=1, attempt_after="1h")
    async with app.running():
        jobs = await every_status(app)
        refused = [status for status, id in jobs.items() if await refuses(app, "retry", id)]
        await app.acall("scripts.mail.Open")
        await ended(app, 2)

    assert refused == ["SUCCESS", "RETRYING", "RUNNING", "WAITING"]


async def test_only_a_job_that_has_succeeded_cannot_be_cancelled(open_app: OpenApp) -> None:
    app = open_app(EACH_WAY, attempts=1, attempt_after="1h")
    async with app.running():
        jobs = await every_status(app)
        refused = [status for status, id in jobs.items() if await refuses(app, "cancel", id)]
        ends = {status: (await app.aget(id))["status"] for status, id in jobs.items()}
        await app.acall("scripts.mail.Open")

    assert refused == ["SUCCESS"]
    assert (ends["WAITING"], ends["RETRYING"]) == ("CANCELLED", "CANCELLED")


async def refuses(app: App, what: str, id: str) -> bool:
    """Whether this cannot be done to the job, now."""
    try:
        await app.acall(f"tasks.mail.{what}", id)
    except WrongState:
        return True
    return False
