"""Adding and running jobs, as seed 002 has it: each test is named after what is promised there."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
from runtime_support import ended
from seed_support import ECHO, OpenApp, reaches, told

from yaotask import App

pytest_plugins = ["seed_fixtures"]

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
