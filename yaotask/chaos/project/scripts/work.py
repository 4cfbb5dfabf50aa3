"""The handlers. Each is given the tag of its job, for how many seconds it shall work, and how it shall end."""

import time

import anyio
from scripts.witness import Noted

from yaotask import Fail, Ignore, Retry, current_job

STEPS = 5
INSERT = "INSERT INTO yaotask_chaos_ledger (task, id, fence) VALUES (:task, :id, :fence)"


async def Quick(task_id, tag, seconds, end):
    with Noted(tag) as claim:
        await anyio.sleep(seconds)
        return {"fence": claim.fence}


async def Late(task_id, tag, seconds, end):
    with Noted(tag) as claim:
        await anyio.sleep(15 if end == "retry" else seconds)
        return {"fence": claim.fence}


def Steady(task_id, tag, seconds, end):
    with Noted(tag) as claim:
        for step in range(1, STEPS + 1):
            time.sleep(seconds / STEPS)
            current_job().progress(step, STEPS, f"fence {claim.fence}, {step} of {STEPS}")
        return {"fence": claim.fence}


def Ledger(task_id, tag, seconds, end):
    # Half of what a child process does at its start would be for this import, and few of them run this.
    from sqlalchemy import text  # noqa: PLC0415

    with Noted(tag) as claim, current_job().transaction() as connection:
        connection.execute(text(INSERT), {"task": claim.task, "id": claim.id, "fence": claim.fence})
        time.sleep(min(seconds, 0.1))
        if end == "retry" and claim.attempt == 1:
            raise ValueError("this try writes, and fails")
        return {"fence": claim.fence}


async def Flaky(task_id, tag, seconds, end):
    with Noted(tag) as claim:
        await anyio.sleep(seconds)
        if end == "retry" and claim.attempt == 1:
            raise Retry("once more", after=0.05)
        if end == "fail":
            raise Fail("for good")
        if end == "ignore":
            raise Ignore("nothing to do")
        return {"fence": claim.fence}
