"""Jobs of a pool, as the document of seed 002 has them: each test is named after what it says there."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import anyio
import pytest
from seed_support import OpenApp, ShiftedClock, ended, reaches, told

from yaotask import App

pytest_plugins = ["seed_fixtures"]

ECHO = """
    calls, told = [], []

    def Send(task_id, *args):
        calls.append([task_id, *args])
        return {"message": "ok"}

    def Calls():
        return calls

    def Told():
        return told
"""

# A handler that stops in the middle until it is let go.
GATE = """
    import threading

    entered, gate, told = threading.Event(), threading.Event(), []

    def Send(task_id, *args):
        entered.set()
        assert gate.wait(10)
        return args

    def Entered():
        return entered.wait(10)

    def Open():
        gate.set()

    def Told():
        return told
"""


# --- adding ------------------------------------------------------------------------------------------


async def test_next_makes_the_ids_and_each_add_is_told_once(open_app: OpenApp) -> None:
    script = (
        ECHO
        + """
    last = 0

    def NextID():
        global last
        last += 2
        return last

    def OnAdd(*args):
        told.append(args)
    """
    )
    app = open_app(script, event="next add")
    async with app.running():
        ids = [await app.acall("tasks.mail.add", "x") for _ in range(9)]
        for id in ids:
            await ended(app, id)
        adds = await told(app, 9)

    assert ids == [2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert sorted(adds) == [(id,) for id in ids]


async def test_a_script_adds_with_a_process_call_and_nobody_works_yet(open_app: OpenApp, tmp_path: Path) -> None:
    app = open_app(ECHO)
    script = tmp_path / "plain.py"
    script.write_text(
        "from yaotask import process\n"
        "for i in range(1, 100):\n"
        "    print(process('tasks.mail.add', '任务-' + str(i)))\n"
        "print(process('tasks.mail.get', 1)['args'][0] == '任务-1')\n"
    )
    run = await anyio.run_process([sys.executable, str(script)], env={"YAOTASK_ROOT": str(app.root)})
    async with app.running():
        job = await ended(app, 99)

    assert run.stdout.decode().split() == [*map(str, range(1, 100)), "True"]
    assert (job["args"], job["status"]) == (["任务-99"], "SUCCESS")


async def test_a_job_waits_right_after_its_add(open_app: OpenApp) -> None:
    app = open_app(ECHO)
    id = await app.acall("tasks.mail.add", "任务-1")
    job = await app.acall("tasks.mail.get", id)

    expected = {"id": id, "status": "WAITING", "current": 0, "total": 0, "message": "", "response": None}
    assert {name: job[name] for name in expected} == expected


async def test_a_queue_that_holds_its_size_answers_zero_at_once_and_takes_more_later(open_app: OpenApp) -> None:
    app = open_app(GATE, size=3)
    async with app.running():
        running = await app.acall("tasks.mail.add")
        assert await app.acall("scripts.mail.Entered")
        waiting = [await app.acall("tasks.mail.add") for _ in range(3)]
        refused = await app.acall("tasks.mail.add")
        await app.acall("scripts.mail.Open")
        for id in (running, *waiting):
            await ended(app, id)
        later = await app.acall("tasks.mail.add")
        job = await ended(app, later)

    assert all(waiting)
    assert refused == 0
    assert (await app.alist("mail", page=1))["total"] == 5
    assert job["status"] == "SUCCESS"


# --- running -----------------------------------------------------------------------------------------


async def test_the_handler_is_given_the_id_and_then_the_arguments_untouched(open_app: OpenApp) -> None:
    given = ["任务-1", {"列表": [1, 2.5, None, True, {"深": []}]}, 9007199254740991, -0.1, "", "1"]
    app = open_app(ECHO)
    async with app.running():
        id = await app.acall("tasks.mail.add", *given)
        await ended(app, id)
        seen = await app.acall("scripts.mail.Calls")

    assert seen == [[id, *given]]
    assert [type(value) for value in seen[0][1:]] == [type(value) for value in given]


async def test_a_job_in_its_middle_shows_how_far_it_is(open_app: OpenApp) -> None:
    script = GATE.replace(
        "entered.set()",
        "process('tasks.mail.progress', task_id, 1, 2, f'Progress {1}/{2}'); entered.set()",
    ).replace("import threading", "import threading\n    from yaotask import process")
    app = open_app(script)
    async with app.running():
        id = await app.acall("tasks.mail.add")
        assert await app.acall("scripts.mail.Entered")
        job = await reaches(app, id, "RUNNING")
        while not job["total"]:
            job = await app.aget(f"mail.{id}")
        await app.acall("scripts.mail.Open")
        done = await ended(app, id)

    assert [job[name] for name in ("status", "current", "total", "message")] == ["RUNNING", 1, 2, "Progress 1/2"]
    assert [done[name] for name in ("status", "current", "total", "message")] == ["SUCCESS", 1, 2, "Progress 1/2"]


HALFWAY = """
    from yaotask import process

    told = []

    def Send(task_id, fails):
        process("tasks.mail.progress", task_id, 1, 100, "Progress 1/100")
        if fails:
            raise ValueError("no such address: 地址")
        return {"message": "ok", "发": [1, None]}

    def OnSuccess(*args):
        told.append(args)

    def OnError(id, error):
        told.append((id, str(error), error.message, error.type, "ValueError" in error.traceback))

    def Told():
        return told
"""


async def test_success_keeps_the_response_and_the_last_progress_and_tells_both(open_app: OpenApp) -> None:
    app = open_app(HALFWAY, event="success error")
    async with app.running():
        id = await app.acall("tasks.mail.add", False)
        job = await ended(app, id)
        calls = await told(app, 1)

    assert (job["status"], job["response"]) == ("SUCCESS", {"message": "ok", "发": [1, None]})
    assert (job["current"], job["total"], job["message"]) == (1, 100, "Progress 1/100")
    assert calls == [(id, job["response"])]


async def test_failure_keeps_the_error_and_the_last_progress_and_tells_of_it(open_app: OpenApp) -> None:
    app = open_app(HALFWAY, event="success error")
    async with app.running():
        id = await app.acall("tasks.mail.add", True)
        job = await ended(app, id)
        calls = await told(app, 1)

    text = "no such address: 地址"
    assert (job["status"], job["response"], job["error"], job["error_type"]) == ("FAILURE", None, text, "ValueError")
    assert (job["current"], job["total"], job["message"]) == (1, 100, "Progress 1/100")
    assert calls == [(id, text, text, "ValueError", True)]


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


# --- hooks -------------------------------------------------------------------------------------------


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


async def test_a_definition_in_the_format_of_yao_works_as_it_is(open_app: OpenApp) -> None:
    app = open_app(ECHO)
    text = """
    {
      // comments and a trailing comma are fine
      "name": "示例任务",
      "worker_nums": 10, "attempts": 3, "attempt_after": 200, "timeout": 2, "size": 1000,
      "process": "scripts.mail.Send",
      "event": { "success": "scripts.mail.OnSuccess", },
    }
    """
    (app.root / "tasks" / "example.yao").write_text(text, encoding="utf-8")
    script = app.root / "scripts" / "mail.py"
    script.write_text(script.read_text() + "\ndef OnSuccess(*args):\n    told.append(args)\n")
    with App(app.root) as yao:
        async with yao.running():
            id = await yao.acall("tasks.example.add", "任务-1")
            calls = await told(yao, 1)

    assert calls == [(id, {"message": "ok"})]
