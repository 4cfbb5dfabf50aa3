"""The lives of child processes: shared, kept warm, replaced, and started although that may fail."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest
from children_support import children, losses, run, until
from runtime_support import PATIENCE, a_job, change, ended

from yaotask import App, processes
from yaotask.channel import Channel
from yaotask.child import Limit
from yaotask.clock import SystemClock
from yaotask.jobs import Cancelled, Claim, Failed, Failure, Ignored, Interrupted, Outcome, RetryAfter, Succeeded
from yaotask.processes import Spawned
from yaotask.runtime import children as module
from yaotask.runtime import wire
from yaotask.runtime.attempt import Attempt
from yaotask.runtime.childprocess import ChildProcess

pytest_plugins = ["children_fixtures"]

Apart = Callable[..., App]

PID = "import os\n\ndef Send(task_id, *args):\n    return os.getpid()\n"

# Notes when it begins and ends, and says in which process it was.
ALONE = """
    import os, time
    from pathlib import Path

    {kind} Send(task_id):
        inside = Path("inside")
        alone = not inside.exists()
        inside.touch()
        time.sleep(0.05)
        inside.unlink(missing_ok=True)
        return [os.getpid(), alone]
"""

# Whether the other one of two ran at the same time.
MEET = """
    import time
    from pathlib import Path

    def Send(task_id, seconds):
        mine, other = Path(f"inside{task_id}"), Path(f"inside{3 - task_id}")
        mine.touch()
        end = time.monotonic() + seconds
        while not other.exists() and time.monotonic() < end:
            time.sleep(0.01)
        met = other.exists()
        if not met:
            mine.unlink()
        return met
"""


async def pids(app: App, count: int) -> list[int]:
    """The processes that ran so many jobs, one after the other."""
    return [(await run(app))["response"] for _ in range(count)]


async def test_a_process_is_used_again(apart: Apart) -> None:
    app = apart(PID)
    async with app.running():
        assert len(set(await pids(app, 5))) == 1


async def test_a_process_is_replaced_after_so_many_jobs(apart: Apart) -> None:
    app = apart(PID, settings="max_jobs_per_child: 2")
    async with app.running():
        first, second, third, fourth = await pids(app, 4)

    assert first == second != third == fourth


async def test_tasks_share_their_processes(apart: Apart, project: Callable[..., Path]) -> None:
    project(tasks={"other": "name: Other\nprocess: scripts.mail.Send\nexecutor: process\n"})
    app = apart(PID)
    async with app.running():
        mine = await run(app)
        other = await app.acall("tasks.other.add")
        with anyio.fail_after(PATIENCE):
            async for job in app.afollow(f"other.{other}"):
                last = job

    assert last["response"] == mine["response"]


# What it keeps belongs to the loop on which it was first waited for, as the connections of a client do.
ON_A_LOOP = """
    import asyncio, sys

    gate = asyncio.Semaphore(1)

    async def pass_the_gate():
        async with gate:
            await asyncio.sleep(0)

    async def Send(task_id, what="pass"):
        loop = asyncio.get_running_loop()
        if what != "pass":
            exec(what)
            await asyncio.sleep(0)
        await asyncio.gather(pass_the_gate(), pass_the_gate())
"""


async def test_what_async_handlers_keep_is_good_for_the_next_one(apart: Apart) -> None:
    app = apart(ON_A_LOOP)
    async with app.running():
        ended_as = [(await run(app))["status"] for _ in range(3)]

    assert ended_as == ["SUCCESS"] * 3


@pytest.mark.parametrize(
    ("end", "error"),
    [("loop.stop()", "RuntimeError"), ("loop.call_soon(sys.exit)", "SystemExit"), ("raise SystemExit", "SystemExit")],
)
async def test_a_handler_that_ends_its_loop_leaves_a_loop_to_the_next_one(apart: Apart, end: str, error: str) -> None:
    app = apart(ON_A_LOOP.replace("gate = asyncio", "gate = None and asyncio").replace("async with gate:", "if True:"))
    async with app.running():
        first, second = await run(app, end), await run(app)

    assert (first["status"], first["error_type"], second["status"]) == ("FAILURE", error, "SUCCESS")


async def test_what_a_job_has_left_on_the_loop_fails_no_other(apart: Apart) -> None:
    app = apart("""
    import asyncio, sys

    left = []

    async def end(event):
        await event.wait()
        sys.exit()

    async def Send(task_id):
        if task_id == 1:
            event = asyncio.Event()
            left.extend([event, asyncio.create_task(end(event))])
        elif left:
            left[0].set()
            await asyncio.sleep(3600)
    """)
    async with app.running():
        first, second = await run(app), await run(app)

    assert (first["status"], second["status"], second["attempt"]) == ("SUCCESS", "SUCCESS", 1)
    assert losses(app, 2) == 1


def has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


async def test_a_process_that_died_while_it_was_idle_costs_no_job(apart: Apart) -> None:
    app = apart(PID)
    async with app.running():
        (pid,) = await pids(app, 1)
        os.kill(pid, 9)
        # Not by its state in /proc, which is its first thread's: others may be a moment longer.
        await until(lambda: pid not in children() or has_ended(pid))
        job = await run(app)

    assert (job["status"], losses(app, 2)) == ("SUCCESS", 0)


async def test_processes_that_are_not_needed_end(apart: Apart, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW", 0.01)
    monkeypatch.setattr(module, "LOOK", 0.01)
    app = apart(PID)
    async with app.running():
        await pids(app, 1)
        await until(lambda: not children())
        job = await run(app)

    assert job["status"] == "SUCCESS"


# --- starts that fail ---------------------------------------------------------------------------------------------


async def test_where_no_process_starts_jobs_wait_and_lose_nothing(
    apart: Apart, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(module, "MODULE", "yaotask.nothing_like_this")
    app = apart(PID)
    async with app.running():
        id = await app.acall("tasks.mail.add")
        await until(lambda: "no child process could be started" in caplog.text)
        monkeypatch.setattr(module, "MODULE", "yaotask.child")
        job = await ended(app, id)

    assert "it ended with exit status 1 before it was ready" in caplog.text
    assert (job["status"], job["attempt"], losses(app, id)) == ("SUCCESS", 1, 0)


async def test_a_system_that_refuses_a_process_is_asked_again(
    apart: Apart, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = processes.spawn

    def refuse_once(*args: Any, **named: Any) -> Any:
        monkeypatch.setattr(module, "spawn", plain)
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(module, "spawn", refuse_once)
    app = apart(PID)
    async with app.running():
        job = await run(app)

    assert "Too many open files" in caplog.text
    assert (job["status"], job["attempt"]) == ("SUCCESS", 1)


async def test_a_handler_that_a_new_process_does_not_find_is_looked_for_again(
    apart: Apart, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    app = apart(PID)
    script = app.root / "scripts" / "mail.py"
    async with app.running():
        script.write_text("def Other(task_id): ...\n")
        id = await app.acall("tasks.mail.add")
        await until(lambda: "a child process could not run mail.1" in caplog.text)
        script.write_text(PID)
        job = await ended(app, id)

    assert 'no function "Send"' in caplog.text
    assert (job["status"], job["attempt"], losses(app, id)) == ("SUCCESS", 1, 0)


async def test_a_job_that_is_cancelled_before_its_process_is_ready_does_not_keep_its_place(apart: Apart) -> None:
    app = apart("import time\n\ndef Send(task_id, seconds=0):\n    time.sleep(seconds)\n")
    async with app.running():
        await app.acall("tasks.mail.add", 600)
        await until(lambda: bool(children()))
        await app.acancel("mail.1")
        job = await run(app)

    assert job["status"] == "SUCCESS"
    assert (await app.aget("mail.1"))["status"] == "CANCELLED"


async def test_pauses_grow_while_nothing_starts_and_the_worker_can_stop_in_them(
    apart: Apart, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", PATIENCE * 2)
    monkeypatch.setattr(module, "MODULE", "yaotask.nothing_like_this")
    app = apart(PID)
    with anyio.fail_after(PATIENCE):
        async with app.running():
            await app.acall("tasks.mail.add")
            await until(lambda: "no child process could be started" in caplog.text)

    assert caplog.text.count("no child process could be started") == 1
    assert (await app.aget("mail.1"))["status"] == "WAITING"


# --- jobs with losses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("executor", "kind"), [("thread", "def"), ("async", "async def"), ("process", "def")])
async def test_a_job_whose_process_died_before_runs_in_one_of_its_own(apart: Apart, executor: str, kind: str) -> None:
    app = apart(ALONE.format(kind=kind), executor=executor)
    id = await app.acall("tasks.mail.add")
    change(app, "UPDATE yaotask_jobs SET losses = 1, state = 5")
    async with app.running():
        job = await ended(app, id)

    assert job["status"] == "SUCCESS"
    assert job["response"][0] != os.getpid()


@pytest.mark.parametrize(("executor", "kind"), [("thread", "def"), ("async", "async def"), ("process", "def")])
async def test_such_jobs_keep_to_the_worker_nums_of_their_task(apart: Apart, executor: str, kind: str) -> None:
    app = apart(ALONE.format(kind=kind), executor=executor)
    ids = [await app.acall("tasks.mail.add") for _ in range(6)]
    change(app, "UPDATE yaotask_jobs SET losses = 1, state = 5 WHERE id % 2")
    async with app.running():
        jobs = [await ended(app, id) for id in ids]

    assert [job["response"][1] for job in jobs] == [True] * 6


@pytest.mark.parametrize(("losses", "seconds", "together"), [(1, PATIENCE, True), (2, 2.0, False)])
async def test_after_a_while_those_with_one_loss_make_room_for_the_next(
    apart: Apart, monkeypatch: pytest.MonkeyPatch, losses: int, seconds: float, *, together: bool
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    app = apart(MEET, executor="thread", worker_nums=2, settings="losses: 3")
    ids = [await app.acall("tasks.mail.add", seconds) for _ in range(2)]
    for _ in range(losses):
        change(app, "UPDATE yaotask_jobs SET losses = losses + 1, state = 5")
    async with app.running():
        jobs = [await ended(app, id) for id in ids]

    assert [job["response"] for job in jobs] == [together] * 2


async def test_a_job_of_a_thread_that_runs_apart_ends_with_its_worker(apart: Apart) -> None:
    app = apart("import time\n\ndef Send(task_id):\n    time.sleep(600)\n", executor="thread")
    id = await app.acall("tasks.mail.add")
    change(app, "UPDATE yaotask_jobs SET losses = 1, state = 5")
    async with app.running(grace=0):
        await until(lambda: bool(children()))

    assert ((await app.aget(f"mail.{id}"))["status"], losses(app, id)) == ("RETRYING", 1)


# --- what parent and child say ------------------------------------------------------------------------------------

FAILURE = Failure("ValueError", "bad\nbad", None)


@pytest.mark.parametrize(
    "outcome",
    [
        Succeeded('{"a":"ä"}'),
        RetryAfter(FAILURE, 5, None),
        RetryAfter(Failure("ValueError", "bad", "line 1"), 5, 7),
        Failed(FAILURE, '"given"'),
        Failed(FAILURE),
        Ignored("nothing to do"),
        Cancelled(),
    ],
)
def test_an_outcome_passes_between_processes_whole(outcome: Outcome) -> None:
    assert wire.read(wire.written(outcome)) == outcome


def test_what_only_workers_say_does_not_pass() -> None:
    with pytest.raises(TypeError, match="Interrupted"):
        wire.written(Interrupted())


@asynccontextmanager
async def one_at_work(claim: Claim) -> AsyncIterator[tuple[ChildProcess, socket.socket, Channel]]:
    """A child that is told to run this, both ends of its channel, and at the end of the block that of its job."""
    near, far = socket.socketpair()
    with closing(Channel(near)) as channel, closing(Channel(far)) as heard, anyio.fail_after(PATIENCE):
        child = ChildProcess(cast(Spawned, SimpleNamespace(channel=channel)), SystemClock())
        async with anyio.create_task_group() as group:
            group.start_soon(child.run, claim, 0, print)
            await anyio.wait_all_tasks_blocked()
            yield child, near, heard


def fill(end: socket.socket) -> None:
    """Leave no room in what the other side has not read. What is sent has no meaning before a message."""
    with suppress(BlockingIOError):
        while True:
            end.send(b" ")


async def test_a_cancel_for_which_there_is_no_room_is_told_once_there_is_some() -> None:
    async with one_at_work(a_job().claim) as (child, near, heard):
        await heard.areceive()
        fill(near)
        child.cancel()

        assert await heard.areceive() == {"cancel": True}
        await heard.asend({"outcome": []})


async def test_a_cancel_is_told_after_all_of_the_order() -> None:
    long = a_job(args=["x" * 3_000_000]).claim
    async with one_at_work(long) as (child, _, heard):
        child.cancel()

        assert await heard.areceive() == {"run": list(long), "started": 0}
        assert await heard.areceive() == {"cancel": True}
        await heard.asend({"outcome": []})


async def test_a_process_may_die_before_there_was_room_to_tell_it_of_a_cancel() -> None:
    async with one_at_work(a_job().claim) as (child, near, heard):
        await heard.areceive()
        fill(near)
        child.cancel()
        await anyio.wait_all_tasks_blocked()
        heard.close()


def test_a_transaction_that_is_open_for_too_long_is_cut_off() -> None:
    cut, clock = Event(), SystemClock()
    opened = SimpleNamespace(transaction=SimpleNamespace(expire=cut.set))
    limit = Limit(clock)
    limit.attempt = cast(Attempt, SimpleNamespace(job=SimpleNamespace(open_transaction=opened)))
    limit.wake_by(clock.monotonic())

    assert cut.wait(PATIENCE)
