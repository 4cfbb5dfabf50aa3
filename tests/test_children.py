"""`executor: process`: what a handler may do to its process, and what becomes of its job."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from children_support import appears, children, gone, losses, run, until
from runtime_support import PATIENCE, ended, query, reaches

from yaotask import App

pytest_plugins = ["children_fixtures"]

Apart = Callable[..., App]

# Does what its argument says.
EVIL = """
    import ctypes, os, signal, sys

    def Send(task_id, what=""):
        exec(what)
        return "done"
"""

SOCKETS = "[n for n in range(3, 200) if 'socket' in os.path.realpath(f'/proc/self/fd/{n}')]"
BABBLE = f"for n in {SOCKETS}: os.write(n, b'?' + os.linesep.encode())\nsignal.pause()"

DEATHS = [
    ("ctypes.string_at(0)", "by SIGSEGV"),
    ("os.abort()", "by SIGABRT"),
    ("os.kill(os.getpid(), signal.SIGKILL)", "by SIGKILL, as when memory runs out"),
    ("os._exit(0)", "with exit status 0"),
    ("os._exit(3)", "with exit status 3"),
    (BABBLE, "with its channel closed or written to by users' code"),
]


@pytest.mark.parametrize(("what", "how"), DEATHS)
async def test_the_death_of_a_process_is_told_as_it_was(apart: Apart, what: str, how: str) -> None:
    app = apart(EVIL, settings="losses: 1")
    async with app.running():
        job = await run(app, what)

    assert (job["status"], job["error_type"]) == ("FAILURE", "PoisonedJob")
    assert job["error"] == f"its process ended {how} while it ran the job"


async def test_the_third_death_ends_the_job(apart: Apart) -> None:
    app = apart(EVIL, attempts=5)
    async with app.running():
        job = await run(app, "os._exit(1)")

    died = "its process ended with exit status 1 while it ran the job"
    assert (job["status"], job["error_type"], job["attempt"]) == ("FAILURE", "PoisonedJob", 1)
    assert job["error"] == f"3 processes died while they had the job; the last: {died}"
    tries = query(app, "SELECT outcome, error_type FROM yaotask_attempts ORDER BY fence")
    assert tries == [("lost", "WorkerLost"), ("lost", "WorkerLost"), ("failure", "PoisonedJob")]


async def test_neighbours_of_a_job_that_kills_its_process_succeed(apart: Apart) -> None:
    app = apart(EVIL, worker_nums=3)
    async with app.running():
        bad = await app.acall("tasks.mail.add", "os._exit(1)")
        good = [await app.acall("tasks.mail.add") for _ in range(30)]
        jobs = [await ended(app, id) for id in good]
        culprit = await ended(app, bad)

    assert {job["status"] for job in jobs} == {"SUCCESS"}
    assert culprit["error_type"] == "PoisonedJob"
    assert query(app, "SELECT id FROM yaotask_jobs WHERE losses > 0") == [(bad,)]


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("raise ValueError('bad')", "ValueError"),
        ("sys.exit(0)", "SystemExit"),
        ("raise MemoryError", "MemoryError"),
        ("global Send; Send.missing", "AttributeError"),
    ],
)
async def test_what_does_not_kill_the_process_is_a_try_that_failed(apart: Apart, what: str, error: str) -> None:
    app = apart(EVIL)
    async with app.running():
        job = await run(app, what)

    assert (job["status"], job["error_type"], losses(app, 1)) == ("FAILURE", error, 0)


async def test_a_result_that_is_no_json_fails_the_job(apart: Apart) -> None:
    app = apart("def Send(task_id):\n    return {1, 2}\n")
    async with app.running():
        job = await run(app)

    assert (job["status"], job["error_type"]) == ("FAILURE", "ResultNotJson")


async def test_long_arguments_and_results_pass_whole(apart: Apart) -> None:
    app = apart("def Send(task_id, text):\n    return text * 4\n")
    text = "ä" * 100_000
    async with app.running():
        job = await run(app, text)

    assert job["response"] == text * 4


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_a_handler_runs_in_the_main_thread_of_another_process(apart: Apart, kind: str) -> None:
    app = apart(f"""
    import os, threading
    from yaotask import current_job

    {kind} Send(task_id, *args, **payload):
        main = threading.current_thread() is threading.main_thread()
        return [os.getpid(), main, current_job().name, args, payload]
    """)
    async with app.running():
        id = await app.acall("tasks.mail.add", 1, a=2)
        pid, *seen = (await ended(app, id))["response"]

    assert seen == [True, "mail.1", [1], {"a": 2}]
    assert pid != os.getpid()


async def test_a_handler_may_add_jobs_and_look_at_them(apart: Apart) -> None:
    app = apart("""
    from yaotask import process

    def Send(task_id, again=True):
        return process("tasks.mail.get", process("tasks.mail.add", False))["args"] if again else None
    """)
    async with app.running():
        job = await run(app)
        await ended(app, 2)

    assert job["response"] == [False]


@pytest.mark.parametrize(
    ("script", "more", "has_all"),
    [("import sys", {}, False), ("import sys", {"transaction": True}, True), ("import sys, yaotask.ambient", {}, True)],
)
async def test_what_only_a_store_needs_is_imported_by_who_may_need_one_and_in_no_jobs_time(
    apart: Apart, script: str, more: dict[str, Any], has_all: bool
) -> None:
    app = apart(
        f"""
    {script}

    def Send(task_id):
        return "sqlalchemy" in sys.modules
    """,
        **more,
    )
    async with app.running():
        job = await run(app)

    assert (job["status"], job["response"]) == ("SUCCESS", has_all)


async def test_a_definition_is_checked_again_only_if_it_has_changed(apart: Apart) -> None:
    app = apart(
        """
    import sys

    def Send(task_id):
        return "jsonschema" in sys.modules
    """,
        settings="max_jobs_per_child: 1",
        input={"type": "object"},
    )
    file = app.root / "tasks" / "mail.yml"
    async with app.running():
        seen = [(await run(app))["response"]]
        file.write_text(file.read_text().replace("Mail", "Mails"))
        seen += [(await run(app))["response"]]

    assert seen == [False, True]


async def test_threads_of_a_handler_share_the_app_that_none_needed_before(apart: Apart) -> None:
    app = apart("""
    import contextvars
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier
    from yaotask import current_app, process

    def Send(task_id):
        barrier = Barrier(4)

        def call(number):
            barrier.wait()
            # Its own job's, which goes to its worker, and not to the store.
            process("tasks.mail.progress", task_id, number, 4)
            return id(current_app())

        with ThreadPoolExecutor(4) as threads:
            inside = [contextvars.copy_context() for _ in range(4)]
            return len(set(threads.map(lambda number: inside[number].run(call, number), range(4))))
    """)
    async with app.running():
        job = await run(app)

    assert (job["status"], job["response"], job["total"]) == ("SUCCESS", 1, 4)


async def test_a_process_that_a_handler_forks_has_no_job(apart: Apart) -> None:
    """Its words would be taken for those of the job that runs when it says them."""
    app = apart("""
    import os
    from yaotask import NoCurrentJob, current_job

    def Send(task_id):
        job, wrong = current_job(), []
        pid = os.fork()
        if not pid:
            for say in (current_job, lambda: job.progress(1, 2)):
                try:
                    say()
                    wrong.append(say)
                except NoCurrentJob:
                    pass
            os._exit(len(wrong))
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    """)
    async with app.running():
        job = await run(app)

    assert (job["response"], job["current"]) == (0, 0)


async def test_a_handler_may_fork_while_its_thread_calls_for_the_first_time(apart: Apart) -> None:
    app = apart("""
    import contextvars, os, signal, sys, threading
    from yaotask import context

    class Finder:
        # Keeps the import of the store under way for a second, or until there was a fork.
        begun, forked = threading.Event(), threading.Event()

        def find_spec(self, name, path, target=None):
            if name == "yaotask.store.access":
                self.begun.set()
                self.forked.wait(1)

    def Send(task_id):
        sys.meta_path.insert(0, Finder())
        thread = threading.Thread(target=contextvars.copy_context().run, args=(lambda: context.owner.get().app,))
        thread.start()
        Finder.begun.wait()
        pid = os.fork()
        if not pid:
            signal.alarm(8)
            context.owner.get().app
            os._exit(0)
        Finder.forked.set()
        thread.join()
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    """)
    async with app.running():
        job = await run(app)

    assert job["response"] == 0


# --- the end of an attempt from outside -----------------------------------------------------------------------

HOLD = """
    import os, signal, subprocess, sys, time
    from pathlib import Path
    from yaotask import current_job

    def Send(task_id):
        job = current_job()
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path("pids").write_text(f"{os.getpid()} {child.pid}\\n")
        while True:
            time.sleep(600)
"""


async def test_a_timeout_kills_the_process_and_what_it_started(apart: Apart) -> None:
    app = apart(HOLD, timeout="3s")
    async with app.running():
        job = await run(app)
        pids = list(map(int, (await appears(Path("pids"))).split()))
        assert await gone(*pids)

    assert (job["status"], job["error_type"], losses(app, 1)) == ("FAILURE", "TimeoutError", 0)


async def test_a_cancelled_job_is_killed_after_the_grace(apart: Apart) -> None:
    app = apart(HOLD, settings="cancel_grace: 10ms")
    async with app.running():
        id = await app.acall("tasks.mail.add")
        pids = list(map(int, (await appears(Path("pids"))).split()))
        await reaches(app, id, "RUNNING")
        await app.acancel("mail.1")
        job = await ended(app, id)
        assert await gone(*pids)

    assert job["status"] == "CANCELLED"


async def test_a_handler_hears_that_its_job_is_cancelled(apart: Apart) -> None:
    app = apart("""
    import threading
    from pathlib import Path
    from yaotask import current_job

    def Send(task_id):
        job, called = current_job(), threading.Event()
        job.on_cancel(called.set)
        Path("entered").write_text("\\n")
        called.wait()
        return job.cancelled
    """)
    async with app.running():
        id = await app.acall("tasks.mail.add")
        await appears(Path("entered"))
        await reaches(app, id, "RUNNING")
        await app.acancel("mail.1")
        job = await ended(app, id)

    assert (job["status"], job["response"]) == ("SUCCESS", True)


async def test_the_end_of_the_worker_hands_the_job_back_and_leaves_no_process(apart: Apart) -> None:
    app = apart(HOLD)
    async with app.running(grace=0):
        await app.acall("tasks.mail.add")
        pids = list(map(int, (await appears(Path("pids"))).split()))

    assert children() == []
    assert await gone(*pids)
    assert ((await app.aget("mail.1"))["status"], losses(app, 1)) == ("WAITING", 0)


@pytest.mark.parametrize(("what", "is_used_again"), [("sleep(3600)", True), ("to_thread(time.sleep, 3600)", False)])
async def test_an_async_handler_is_cancelled_with_its_job_and_no_other_runs_beside_its_threads(
    apart: Apart, what: str, is_used_again: bool
) -> None:
    app = apart(f"""
    import asyncio, os, time
    from pathlib import Path

    async def Send(task_id):
        if task_id > 1:
            return os.getpid()
        try:
            Path("begun").write_text(f"{{os.getpid()}}\\n")
            await asyncio.{what}
        finally:
            Path("cleaned").touch()
    """)
    async with app.running():
        await app.acall("tasks.mail.add")
        pid = await appears(app.root / "begun")
        await reaches(app, 1, "RUNNING")
        await app.acancel("mail.1")
        job, after = await ended(app, 1), await run(app)

    assert (job["status"], job["error"]) == ("CANCELLED", None)
    assert (app.root / "cleaned").exists()
    assert (after["response"] == int(pid)) == is_used_again
    assert is_used_again or await gone(int(pid))


async def test_a_host_that_is_cancelled_leaves_no_process(apart: Apart) -> None:
    app = apart(HOLD)
    with anyio.CancelScope() as scope:
        async with app.running():
            await app.acall("tasks.mail.add")
            await appears(Path("pids"))
            scope.cancel()

    assert children() == []
    assert (await app.aget("mail.1"))["status"] == "WAITING"


async def test_a_job_that_waits_for_its_child_is_handed_back_when_the_worker_stops(apart: Apart) -> None:
    app = apart(EVIL)
    with anyio.fail_after(PATIENCE):
        async with app.running(grace=PATIENCE * 2):
            await app.acall("tasks.mail.add")
            await until(lambda: bool(children()))

    assert (await app.aget("mail.1"))["status"] == "WAITING"
    assert losses(app, 1) == 0


# --- forks ----------------------------------------------------------------------------------------------------


async def test_a_copy_that_the_handler_forks_ends_with_it(apart: Apart) -> None:
    app = apart("""
    import os

    def Send(task_id):
        pid = os.fork()
        return "copy" if pid == 0 else os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    """)
    async with app.running():
        job = await run(app)

    assert (job["status"], job["response"]) == ("SUCCESS", 0)


async def test_a_death_is_noticed_though_a_copy_holds_the_channel_open(apart: Apart) -> None:
    app = apart(
        """
    import os, signal
    from pathlib import Path

    def Send(task_id):
        if os.fork() == 0:
            os.setsid()
            Path("copy").write_text(f"{os.getpid()}\\n")
            signal.pause()
        while not Path("copy").exists():
            pass
        os._exit(3)
    """,
        settings="losses: 1",
    )
    async with app.running():
        job = await run(app)
        os.kill(int(await appears(Path("copy"))), 9)

    assert job["error"] == "its process ended with exit status 3 while it ran the job"


# --- what jobs say --------------------------------------------------------------------------------------------

TELL = """
    from yaotask import current_job

    {kind} Send(task_id):
        job = current_job()
        job.extra["seen"] = 1
        for n in range(1, 4):
            job.progress(n, 3, f"step {{n}}")
        job.count(success=2, failure=1)
        return "done"

    {kind} OnProgress(task_id, *progress):
        with open("told", "a") as file:
            print(task_id, *progress, file=file)

    def OnSuccess(task_id, response):
        with open("told", "a") as file:
            print("success", response, file=file)
"""


def told() -> str:
    return Path("told").read_text()


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_progress_is_kept_and_its_hook_called_in_order_before_the_end(apart: Apart, kind: str) -> None:
    hooks = {"progress": "scripts.mail.OnProgress", "success": "scripts.mail.OnSuccess"}
    app = apart(TELL.format(kind=kind), event=hooks)
    async with app.running():
        job = await run(app)
        await until(lambda: "success" in told())

    assert (job["current"], job["total"], job["message"], job["extra_data"]) == (3, 3, "step 3", {"seen": 1})
    assert (job["success_count"], job["fail_count"], job["status"]) == (2, 1, "PARTIAL")
    assert told().splitlines() == ["1 1 3 step 1", "1 2 3 step 2", "1 3 3 step 3", "success done"]


async def test_counts_of_a_try_that_was_killed_are_those_that_it_told(apart: Apart) -> None:
    app = apart(
        """
    import time
    from yaotask import current_job

    def Send(task_id):
        current_job().count(success=current_job().attempt)
        time.sleep(600)
    """,
        timeout="1s",
        attempts=1,
        attempt_after=0,
    )
    async with app.running():
        job = await run(app)

    assert (job["attempt"], job["success_count"]) == (2, 2)


# --- transactions ---------------------------------------------------------------------------------------------

BOOK = """
    import os
    from yaotask import current_job

    def Send(task_id, what=""):
        with current_job().transaction() as connection:
            connection.exec_driver_sql("INSERT INTO book VALUES (?)", (task_id,))
        current_job().progress(1, 1, "booked")
        exec(what)
        return "booked"
"""


async def booked(app: App, what: str, **more: Any) -> tuple[dict[str, Any], int]:
    """A job of BOOK, once it has ended, and how many rows were written for it."""
    await app.alist()
    with app._access.reading() as connection:
        connection.exec_driver_sql("CREATE TABLE book (id INTEGER)")
        connection.commit()
    async with app.running():
        job = await run(app, what)
    return job, query(app, "SELECT count(*) FROM book")[0][0]


async def test_a_transaction_commits_with_the_success_and_once(apart: Apart) -> None:
    job, rows = await booked(apart(BOOK), "")

    assert (job["status"], job["response"], job["message"], rows) == ("SUCCESS", "booked", "booked", 1)


@pytest.mark.parametrize("what", ["raise ValueError", "os._exit(1)"])
async def test_a_transaction_is_undone_with_the_failure(apart: Apart, what: str) -> None:
    job, rows = await booked(apart(BOOK, settings="losses: 1"), what)

    assert (job["status"], rows) == ("FAILURE", 0)


async def test_a_whole_handler_may_be_a_transaction(apart: Apart) -> None:
    script = """
    from yaotask import process

    def Send(task_id, again=True):
        if again:
            process("tasks.mail.add", False)
            raise ValueError
    """
    app = apart(script, transaction=True)
    async with app.running():
        job = await run(app)

    assert (job["status"], (await app.alist())["items"][0]["id"]) == ("FAILURE", 1)


@pytest.mark.parametrize(("what", "status", "kept"), [("", "SUCCESS", 1), ("raise ValueError", "FAILURE", 0)])
async def test_a_transaction_that_the_definition_has_opened_is_handed_out(
    apart: Apart, what: str, status: str, kept: int
) -> None:
    job, rows = await booked(apart(BOOK, transaction=True), what)

    assert (job["status"], rows) == (status, kept)


SLOW = """
    import time

    time.sleep(1.5)

    def Send(task_id):
        return "done"
"""


async def test_the_import_of_scripts_is_not_of_a_jobs_time(apart: Apart) -> None:
    app = apart(SLOW, timeout=1)
    async with app.running():
        job = await run(app)

    assert (job["status"], job["attempt"]) == ("SUCCESS", 1)
