"""Hooks, as seed 002 has them: each test is named after what is promised there."""

from __future__ import annotations

import pytest
from runtime_support import ended
from seed_support import OpenApp, reaches, told

pytest_plugins = ["seed_fixtures"]


@pytest.mark.parametrize("word", ["async def", "def"])
async def test_progress_is_told_in_order_with_id_current_total_and_message(open_app: OpenApp, word: str) -> None:
    wait, call = ("await ", "aprocess") if "async" in word else ("", "process")
    script = f"""
        from yaotask import aprocess, process

        told = []

        {word} Send(task_id):
            for current in range(1, 51):
                {wait}{call}("tasks.mail.progress", task_id, current, 50, f"Progress {{current}}/50")

        {word} OnProgress(*args):
            told.append(args)

        def Told():
            return told
    """
    app = open_app(script, event="progress")
    async with app.running():
        id = await app.acall("tasks.mail.add")
        await ended(app, id)

    expected = [(id, current, 50, f"Progress {current}/50") for current in range(1, 51)]
    assert await app.acall("scripts.mail.Told") == expected


@pytest.mark.parametrize("word", ["async def", "def"])
async def test_hooks_may_call_add_get_and_progress_of_the_same_task(open_app: OpenApp, word: str) -> None:
    wait, call = ("await ", "aprocess") if "async" in word else ("", "process")
    script = f"""
        import threading
        from yaotask import aprocess, process

        told, gate = [], threading.Event()

        def Send(task_id, first=False):
            process("tasks.mail.progress", task_id, 1, 4)
            assert not first or gate.wait(10)

        {word} OnAdd(id):
            job = {wait}{call}("tasks.mail.get", id)
            told.append(("add", id, job["id"]))

        {word} OnProgress(id, current, total, message):
            job = {wait}{call}("tasks.mail.get", id)
            told.append(("progress", id, job["id"], current))

        {word} OnSuccess(id, response):
            job = {wait}{call}("tasks.mail.get", id)
            told.append(("success", id, job["status"]))
            if job["args"]:
                follower = {wait}{call}("tasks.mail.add")
                told.append(("follower", follower))

        def Told():
            return told

        def Open():
            gate.set()
    """
    app = open_app(script, event="add progress success", worker_nums=2)
    async with app.running():
        id = await app.acall("tasks.mail.add", True)
        await reaches(app, id, "RUNNING")
        await app.acall("tasks.mail.progress", id, 3, 4)
        await app.acall("scripts.mail.Open")
        calls = await told(app, 8)

    assert set(calls) == {
        *[("add", id, id), ("progress", id, id, 1), ("progress", id, id, 3), ("success", id, "SUCCESS")],
        *[("follower", id + 1), ("add", id + 1, id + 1), ("progress", id + 1, id + 1, 1)],
        ("success", id + 1, "SUCCESS"),
    }


ALL_HOOKS = "next add progress success error retry"


async def test_hooks_that_raise_change_nothing(open_app: OpenApp) -> None:
    script = """
        from yaotask import process

        def Send(task_id, fails):
            process("tasks.mail.progress", task_id, 1, 2, "half")
            if fails:
                raise ValueError("bad")
            return "done"

        def fault(*args):
            raise RuntimeError("a hook at fault")

        NextID = OnAdd = OnProgress = OnSuccess = OnError = OnRetry = fault
    """
    app = open_app(script, settings="hook_attempts: 1", attempts=1, attempt_after=0, event=ALL_HOOKS)
    async with app.running():
        good, bad = await app.acall("tasks.mail.add", False), await app.acall("tasks.mail.add", True)
        done, failed = await ended(app, good), await ended(app, bad)

    assert (done["status"], done["response"], done["current"]) == ("SUCCESS", "done", 1)
    assert (failed["status"], failed["error"], failed["attempt"]) == ("FAILURE", "bad", 2)
