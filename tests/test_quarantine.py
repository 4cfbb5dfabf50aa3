"""Hooks that may have ended a worker are called in child processes, and do no harm there."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import anyio
import pytest
from children_support import appears, children, until
from runtime_support import query

from yaotask import App
from yaotask.processes import Spawned, spawn

pytest_plugins = ["children_fixtures"]

Apart = Callable[..., App]

SUSPECT = "UPDATE yaotask_events SET next_at = 0, deaths = 1"

# Its hooks do what the file `what` says.
EVIL = """
    import os
    import signal
    import sys
    import time
    from pathlib import Path

    def note(*words):
        with open("witness", "a") as file:
            print(*words, file=file, flush=True)

    def Send(task_id):
        raise ValueError("bad")

    def hook(task_id, *args):
        note(os.getpid(), task_id, *args)
        exec(Path("what").read_text())

    async def ahook(task_id, *args):
        hook(task_id, *args)
"""


def write(app: App, statement: str) -> None:
    with closing(sqlite3.connect(app.root / ".yaotask" / "yaotask.db")) as connection, connection:
        connection.execute(statement)


async def suspect(app: App, what: str) -> None:
    """A job whose first event was in the hands of a worker that died, and what the hook does then."""
    (app.root / "what").write_text(what)
    await app.acall("tasks.mail.add")
    write(app, SUSPECT)


def outbox(app: App) -> list[tuple[Any, ...]]:
    return query(app, "SELECT state, tries, error, deaths FROM yaotask_events")


def witness(app: App) -> list[str]:
    file = app.root / "witness"
    return file.read_text().splitlines() if file.exists() else []


ENDED = "WorkerLost: its process ended"
HARM = [
    ("os._exit(7)", f"{ENDED} with exit status 7 while the hook was called"),
    ("os.kill(os.getpid(), signal.SIGKILL)", f"{ENDED} by SIGKILL, as when memory runs out while the hook was called"),
    ("time.sleep(600)", "the hook took longer than 0.5 s, and its process was ended"),
    ("sys.exit(3)", "SystemExit: 3"),
    ("raise KeyboardInterrupt", "KeyboardInterrupt: "),
    ("raise ValueError('no')", "ValueError: no"),
]


@pytest.mark.parametrize("hook", ["hook", "ahook"])
@pytest.mark.parametrize(("what", "error"), HARM)
async def test_what_it_does_is_told_as_it_was(apart: Apart, hook: str, what: str, error: str) -> None:
    app = apart(EVIL, settings="hook_timeout: 500ms\nhook_attempts: 1", event={"add": f"scripts.mail.{hook}"})
    await suspect(app, what)
    async with app.running():
        await until(lambda: outbox(app)[0][0] == 1)

    did_harm = error.endswith(("while the hook was called", "was ended"))
    assert outbox(app) == [(1, 1, error, int(did_harm))]
    assert len(witness(app)) == 1


async def test_one_that_does_no_harm_is_told_and_called_in_the_worker_after_that(apart: Apart) -> None:
    app = apart(EVIL, event={"add": "scripts.mail.hook"})
    await suspect(app, "")
    async with app.running():
        await until(lambda: len(witness(app)) == 1 and not outbox(app))
        await app.acall("tasks.mail.add")
        await until(lambda: len(witness(app)) == 2 and not outbox(app))

    first, second = (int(line.split()[0]) for line in witness(app))
    assert first != second == os.getpid()


async def test_it_is_told_the_same_as_in_the_worker(apart: Apart) -> None:
    app = apart(EVIL, event={"error": "scripts.mail.hook"})
    (app.root / "what").write_text("raise ValueError('not yet')")
    await app.acall("tasks.mail.add")
    async with app.running():
        await until(lambda: any(tries for _, tries, _, _ in outbox(app)))
    write(app, SUSPECT)
    (app.root / "what").write_text("note(args[0].type, args[0].message)")
    async with app.running():
        await until(lambda: not outbox(app))

    assert witness(app)[-1] == "ValueError bad"


async def test_it_keeps_no_other_hook_waiting(apart: Apart) -> None:
    app = apart(EVIL, event={"add": "scripts.mail.hook"})
    await suspect(app, "while task_id == 1 and not Path('gate').exists(): time.sleep(0.01)")
    async with app.running():
        await until(lambda: len(witness(app)) == 1)
        await app.acall("tasks.mail.add")
        await until(lambda: len(witness(app)) == 2)
        waiting = outbox(app)
        (app.root / "gate").touch()
        await until(lambda: not outbox(app))

    assert [deaths for _, _, _, deaths in waiting if deaths] == [1]


async def test_a_worker_that_stops_lets_it_come_to_its_end(apart: Apart) -> None:
    app = apart(EVIL, event={"add": "scripts.mail.hook"})
    await suspect(app, "while not Path('gate').exists(): time.sleep(0.01)\nnote('end')")
    async with anyio.create_task_group() as group, app.running():
        await until(lambda: len(witness(app)) == 1)
        group.start_soon(open_the_gate, app)

    assert witness(app)[1:] == ["end"]
    assert outbox(app) == []


async def open_the_gate(app: App) -> None:
    await appears(app.root / "witness")
    (app.root / "gate").touch()


async def test_one_that_has_no_time_left_is_for_the_next_worker(apart: Apart) -> None:
    app = apart(EVIL, settings="grace: 0s", event={"add": "scripts.mail.hook"})
    await suspect(app, "time.sleep(600)")
    async with app.running():
        await until(lambda: len(witness(app)) == 1)
    left = outbox(app), children()
    (app.root / "what").write_text("")
    async with app.running():
        await until(lambda: not outbox(app))

    # No call has failed of it.
    assert left == ([(0, 0, None, 1)], [])
    assert len(witness(app)) == 2


async def test_what_still_waits_when_a_worker_stops_starts_no_process(
    apart: Apart, monkeypatch: pytest.MonkeyPatch
) -> None:
    born: list[int] = []
    app = apart(EVIL, settings="grace: 0s", event={"add": "scripts.mail.hook"})
    await suspect(app, "time.sleep(600)")
    for _ in range(20):
        await app.acall("tasks.mail.add")
    write(app, SUSPECT)

    def counted(*args: Any) -> Spawned:
        born.append(len(born))
        return spawn(*args)

    monkeypatch.setattr("yaotask.runtime.children.spawn", counted)
    async with app.running():
        await until(lambda: len(witness(app)) == 2)

    assert len(born) == 2
    assert [deaths for _, _, _, deaths in outbox(app)] == [1] * 21
