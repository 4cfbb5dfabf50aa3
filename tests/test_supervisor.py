"""What a supervisor does when its store does not do what it should."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from children_support import until
from runtime_support import PATIENCE, change, query
from watch_support import out_of_reach

from yaotask import App
from yaotask.errors import StorageBusy
from yaotask.plan import Plan
from yaotask.store import locks, presence, reads

Project = Callable[..., Path]

OURS = "SELECT key FROM yaotask_workers WHERE kind = 'supervisor'"
Row = namedtuple("Row", ("host", "lock_path", "lock_device", "lock_inode", "boot_id"))
LOCKS = f"SELECT {', '.join(Row._fields)} FROM yaotask_workers"  # noqa: S608


async def test_who_had_to_enter_anew_judges_others_in_its_new_name(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    judges: list[int] = []

    def nobody_is_dead(connection: object, worker: int, *how: object) -> bool:
        judges.append(worker)
        return False

    monkeypatch.setattr(presence, "any_dead", nobody_is_dead)
    with App(project(settings="heartbeat: 0.1s\nlease: 1s\n")) as app, anyio.fail_after(PATIENCE):
        app.upgrade_store()
        supervisor = app.works.supervisor(Plan(app.root, 0))
        async with anyio.create_task_group() as group:
            group.start_soon(supervisor.run)
            await until(lambda: bool(judges))
            change(app, "DELETE FROM yaotask_workers WHERE kind = 'supervisor'")
            await until(lambda: bool(query(app, OURS)))
            await until(lambda: [(judges[-1],)] == query(app, OURS))
            supervisor.stop()

    assert len(set(judges)) == 2


@pytest.mark.parametrize("how", ["embedded", "node"])
async def test_who_runs_jobs_removes_what_the_dead_have_left(project: Project, how: str) -> None:
    with App(project()) as app, anyio.fail_after(PATIENCE):
        app.upgrade_store()
        workers = app.root / ".yaotask" / presence.FOLDER
        others, left = (presence.Lock.take(workers, name) for name in ("others", "gone"))
        others.tell("another store")
        for lock in (others, left):
            lock.abandon()
        ear = workers / "gone-worker1.hint"
        ear.touch()
        if how == "embedded":
            async with app.running():
                await until(lambda: not left.path.exists())
        else:
            supervisor = app.works.supervisor(Plan(app.root, 0))
            async with anyio.create_task_group() as group:
                group.start_soon(supervisor.run)
                await until(lambda: not left.path.exists())
                supervisor.stop()

    assert list(workers.iterdir()) == [others.path]


@pytest.mark.parametrize("how", ["embedded", "node"])
async def test_a_lock_tells_of_the_store_in_which_its_rows_are(project: Project, how: str) -> None:
    def told() -> list[str]:
        return [path.read_text() for path in (app.root / ".yaotask" / presence.FOLDER).glob("*.lock")]

    with App(project()) as app, anyio.fail_after(PATIENCE):
        app.upgrade_store()
        store = [value for (value,) in query(app, "SELECT value FROM yaotask_meta WHERE name = 'store'")]
        if how == "embedded":
            async with app.running():
                assert told() == store
        else:
            supervisor = app.works.supervisor(Plan(app.root, 0))
            async with anyio.create_task_group() as group:
                group.start_soon(supervisor.run)
                await until(lambda: told() == store)
                supervisor.stop()


async def test_who_could_not_leave_the_store_is_found_dead_at_once(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with App(project(settings="lease: 1h\n")) as app, anyio.fail_after(PATIENCE):
        app.upgrade_store()
        supervisor = app.works.supervisor(Plan(app.root, 0))
        monkeypatch.setattr(presence, "leave", lambda *whatever: out_of_reach())

        async def end() -> None:
            await until(lambda: len(query(app, LOCKS)) == 2)
            supervisor.hurry()

        with pytest.RaisesGroup(StorageBusy, flatten_subgroups=True):
            async with anyio.create_task_group() as group:
                group.start_soon(end)
                await supervisor.run()
        left = query(app, LOCKS)

    assert left
    assert all(locks.is_dead(Row(*row)) for row in left)


async def test_a_node_that_cannot_enter_the_store_leaves_no_lock(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with App(project()) as app, anyio.fail_after(PATIENCE):
        app.upgrade_store()
        monkeypatch.setattr(presence, "register", lambda *whatever, **more: out_of_reach())
        with pytest.RaisesGroup(StorageBusy, flatten_subgroups=True):
            await app.works.supervisor(Plan(app.root, 0)).run()

    assert not list((app.root / ".yaotask" / "workers").glob("*.lock"))


async def test_a_drain_outlasts_a_store_that_cannot_be_read_for_a_while(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([out_of_reach, out_of_reach])
    monkeypatch.setattr(reads, "unsettled", lambda *whatever: next(looks, lambda: False)())
    with App(project()) as app, anyio.fail_after(PATIENCE):
        app.upgrade_store()
        await app.works.supervisor(Plan(app.root, 1)).run(drain=True)

    assert next(looks, None) is None
