"""A process's way to its store: opening, closing at the wrong moment, and forks."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from textwrap import dedent

import anyio
import pytest
from server_fixtures import Database

from yaotask import App, QueueFull, StorageFull, StorageUnavailable, TransactionError
from yaotask.store.ledger import Ledger
from yaotask.store.protocol import Harvest, Mailbox, Ticket
from yaotask.store.sql import SqlStore

TASK = {"mail": "name: Mail\nprocess: scripts.mail.Send\nsize: 1000000\n"}
SCRIPT = {"mail": "def Send(task_id, *args, **payload):\n    return 1\n"}


@pytest.fixture
def project(project: Callable[..., Path], database: Database) -> Callable[..., Path]:
    return partial(project, settings=database.setting)


@pytest.fixture
def app(project: Callable[..., Path]) -> Iterator[App]:
    with App(project(tasks=TASK, scripts=SCRIPT)) as app:
        yield app


def test_nothing_is_opened_before_the_first_use(project: Callable[..., Path]) -> None:
    root = project(tasks=TASK)

    with App(root) as app:
        assert "mail" in app.tasks
    assert not (root / ".yaotask").exists()


async def test_the_first_call_on_a_loop_opens_the_store(app: App) -> None:
    assert await app.tasks["mail"].aadd("Hello") == 1


def test_a_closed_app_refuses_every_call(app: App) -> None:
    app.tasks["mail"].add("Hello")
    app.close()
    app.close()

    with pytest.raises(StorageUnavailable, match="was closed"):
        app.tasks["mail"].add("Hello")
    with pytest.raises(StorageUnavailable, match="was closed"):
        app.get("mail.1")


async def test_a_closed_app_refuses_every_call_on_a_loop(app: App) -> None:
    await app.aclose()

    with pytest.raises(StorageUnavailable, match="was closed"):
        await app.tasks["mail"].aadd("Hello")


def test_calls_made_while_it_closes_are_done_or_refused_but_never_left_waiting(project: Callable[..., Path]) -> None:
    root = project(tasks=TASK, scripts=SCRIPT)
    for _ in range(10):
        app = App(root)
        added: list[int] = []
        refused: list[Exception] = []
        start = threading.Barrier(5)

        def call(app: App = app, added: list[int] = added, refused: list[Exception] = refused) -> None:
            start.wait()  # noqa: B023 - it is the barrier of this round
            try:
                while True:
                    added.append(app.tasks["mail"].add("Hello"))
            except StorageUnavailable as error:
                refused.append(error)

        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        start.wait()
        app.close()
        for thread in threads:
            thread.join()

        assert len(refused) == 4
        with App(root) as again:
            assert len(again.status("mail", added)) == len(added)


def test_when_the_ledger_dies_whoever_waits_is_told(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    def turn(ledger: Ledger) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(Ledger, "turn", turn)
    for _ in range(2):
        with pytest.raises(StorageUnavailable, match=r"has stopped: no room"):
            app.tasks["mail"].add("Hello")


def test_more_than_a_cycle_takes_is_refused_when_the_ledger_is_over(app: App) -> None:
    ledger = app._access.opened.ledger  # the state of a process whose ledger died
    ledger.poke = lambda: None
    outcomes: list[str] = []

    def ask() -> None:
        ticket = Ticket(settle=lambda: outcomes.append(str(ticket.error)))
        ledger.errand(lambda cycle: None, ticket)

    for _ in range(5_000):
        ask()
    ledger.refuse(StorageUnavailable("gone"))

    assert outcomes == ["gone"] * 5_000


def test_a_failure_half_way_through_many_tells_the_ids_of_those_stored(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_cycle, cycles = SqlStore.run_cycle, list[int]()

    def fail_later(store: SqlStore, mailbox: Mailbox) -> Harvest:
        cycles.append(len(mailbox.adds))
        if sum(cycles) > 1:
            raise StorageFull("the disk is full")
        return run_cycle(store, mailbox)

    monkeypatch.setattr(SqlStore, "run_cycle", fail_later)
    with pytest.raises(StorageFull) as full:
        app.tasks["mail"].add_many([number] for number in range(2_500))

    assert list(full.value.ids) == list(range(1, 1_001))


def test_each_asker_gets_an_error_of_its_own(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    error = StorageUnavailable("no disk")

    def fail(*_: object) -> None:
        raise error

    app.tasks["mail"].add("Hello")
    monkeypatch.setattr(type(app._access.opened.store), "run_cycle", fail)
    with pytest.raises(StorageUnavailable, match="no disk") as seen:
        app.tasks["mail"].add("Hello")

    assert seen.value is not error


async def test_an_add_whose_caller_is_cancelled_is_stored_all_the_same(app: App) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await app.tasks["mail"].aadd("Hello")
    id = await app.tasks["mail"].aadd("again")

    assert (await app.astatus("mail", range(1, id + 1)))[id] == "WAITING"


def test_threads_that_add_at_once_lose_nothing(app: App) -> None:
    ids: list[int] = []

    def add() -> None:
        for number in range(200):
            ids.append(app.tasks["mail"].add(number))

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(ids)) == 1_600
    assert len(app.status("mail", ids)) == 1_600


async def test_tasks_that_add_at_once_lose_nothing(app: App) -> None:
    ids: list[int] = []

    async def add() -> None:
        ids.append(await app.tasks["mail"].aadd("Hello"))

    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(add)

    assert len(set(ids)) == 100
    assert len(await app.astatus("mail", ids)) == 100


def test_size_is_exact_when_many_add_at_once(project: Callable[..., Path]) -> None:
    root = project(tasks={"mail": TASK["mail"].replace("1000000", "50")}, scripts=SCRIPT)
    stored: list[int] = []
    with App(root) as app:

        def add() -> None:
            for _ in range(20):
                try:
                    stored.append(app.tasks["mail"].add())
                except QueueFull:
                    return

        threads = [threading.Thread(target=add) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(stored) == len(set(stored)) == 50


def test_a_connection_is_refused_under_the_name_that_its_class_has_in_scripts(project: Callable[..., Path]) -> None:
    script = "class Line: ...\ndef Open(): return Line()\n"
    with App(project(tasks=TASK, scripts={"mail": script})) as app:
        line = app.call("scripts.mail.Open")
        with pytest.raises(TransactionError, match=r"not scripts\.mail\.Line;"):
            app.tasks["mail"].options(connection=line).add()


# --- processes ---------------------------------------------------------------------------------------------


def _run(root: Path, program: str) -> str:
    """Run a program in a process of its own: forks of the test's process would inherit pytest."""
    begin = "import os, sys, threading\nfrom yaotask import *\napp = App(sys.argv[1])\nmail = app.tasks['mail']\n"
    command = [sys.executable, "-W", "ignore", "-c", begin + dedent(program), str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=18, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


FORK = """
def in_child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            print(type(error).__name__, error, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def test_processes_that_add_at_once_lose_nothing(project: Callable[..., Path]) -> None:
    root = project(tasks=TASK, scripts=SCRIPT)
    program = "from yaotask import *\nimport sys\nwith App(sys.argv[1]) as app:\n"
    program += "    print(*(app.tasks['mail'].add(number) for number in range(200)))\n"
    started = [
        subprocess.Popen([sys.executable, "-c", program, str(root)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    ids = [int(word) for process in started for word in process.communicate()[0].split()]

    assert len(ids) == len(set(ids)) == 800
    with App(root) as app:
        assert len(app.status("mail", ids)) == 800


def test_a_child_adds_and_gets_and_its_parent_goes_on(project: Callable[..., Path]) -> None:
    said = _run(
        project(tasks=TASK, scripts=SCRIPT),
        FORK
        + """
first = mail.add("parent")
def work():
    assert app.get(f"mail.{first}")["args"] == ["parent"]
    assert app.get(f"mail.{mail.add('child')}")["args"] == ["child"]
    app.close()
print(in_child(work))
print(app.get(f"mail.{mail.add('again')}")["args"], app.list("mail")["items"][1]["args"])
app.close()
""",
    )

    assert said.splitlines() == ["0", "['again'] ['child']"]


def test_children_that_are_forked_while_the_parent_writes_and_reads_can_add(project: Callable[..., Path]) -> None:
    said = _run(
        project(tasks=TASK, scripts=SCRIPT),
        FORK
        + """
mail.add("first")
stop = threading.Event()
def write():
    while not stop.is_set():
        mail.add("busy")
def read():
    while not stop.is_set():
        app.get("mail.1")
threads = [threading.Thread(target=work) for work in (write, write, read)]
for thread in threads: thread.start()
def work():
    assert app.get(f"mail.{mail.add('child')}")["args"] == ["child"]
print([in_child(work) for _ in range(10)])
stop.set()
for thread in threads: thread.join()
app.close()
""",
    )

    assert said == f"{[0] * 10}\n"


def test_a_child_that_outlives_its_worker_does_not_hold_the_lock_that_proves_it_alive(tmp_path: Path) -> None:
    program = """
        import os, signal, sys
        from pathlib import Path
        from yaotask.store.locks import Lock

        lock = Lock.take(Path(sys.argv[1]), "worker")
        heard, said = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(said, b".")
            signal.pause()
        os.read(heard, 1)
        print(child, flush=True)
        signal.pause()
    """
    command = [sys.executable, "-c", dedent(program), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        child = int(worker.stdout.readline())
        with (tmp_path / "worker.lock").open() as lock:
            with pytest.raises(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            worker.kill()
            worker.wait()

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.kill(child, signal.SIGKILL)


def test_a_child_of_a_closed_app_finds_it_closed(project: Callable[..., Path]) -> None:
    said = _run(
        project(tasks=TASK, scripts=SCRIPT),
        FORK + "mail.add()\napp.close()\nprint(in_child(mail.add))\n",
    )

    assert said == "StorageUnavailable this app was closed\n1\n"


def test_a_child_that_is_forked_inside_a_transaction_is_refused_and_harms_nothing(
    project: Callable[..., Path],
) -> None:
    script = """
        import os
        from yaotask import current_job, process

        def Send(task_id, *args):
            with current_job().transaction():
                pid = os.fork()
                if pid == 0:
                    try:
                        process("tasks.mail.add", "child")
                    except Exception as error:
                        print(type(error).__name__, flush=True)
                    os._exit(0)
                os.waitpid(pid, 0)
            return "done"
    """
    said = _run(
        project(tasks=TASK, scripts={"mail": script}),
        """
import anyio
async def main():
    async with app.running():
        id = await mail.aadd()
        async for job in app.afollow(f"mail.{id}"):
            pass
        print(job["status"], (await app.alist("mail"))["items"][1:])
anyio.run(main)
app.close()
""",
    )

    assert said == "StorageUnavailable\nSUCCESS []\n"


@pytest.mark.parametrize("needs", ["fork", "look"])
def test_a_transaction_does_not_wait_for_a_fork_that_waits_for_its_end(
    project: Callable[..., Path], needs: str
) -> None:
    script = f"""
        import os
        from threading import Event, Thread
        from yaotask import current_app, current_job
        from yaotask.store.forks import forks

        ready, begun, waits = Event(), Event(), Event()

        def fork():
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)

        def look():
            thread = Thread(target=current_app().list, args=["mail"])
            thread.start()
            thread.join()

        def Send(task_id):
            ready.wait()
            with current_job().transaction():
                begun.set()
                waits.wait()
                {needs}()

        def Fork(task_id):
            ready.set()
            begun.wait()
            changed = forks._gate._changed
            wait = changed.wait
            changed.wait = lambda timeout=None: waits.set() or wait(timeout)
            fork()
    """
    fork = {"fork": "name: Fork\nprocess: scripts.mail.Fork\n"}
    said = _run(
        project(tasks=TASK | fork, scripts={"mail": script}),
        """
import anyio
async def main():
    async with app.running():
        for name in ("mail", "fork"):
            await app.acall(f"tasks.{name}.add")
        for name in ("mail", "fork"):
            async for job in app.afollow(f"{name}.1"):
                pass
            print(job["status"], job["error"])
anyio.run(main)
app.close()
""",
    )

    assert said == "SUCCESS None\n" * 2
