"""What a supervisor does when its store does not do what it should."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from children_support import until
from runtime_support import PATIENCE, change, query
from watch_support import out_of_reach

from yaotask import App
from yaotask.plan import Plan
from yaotask.store import presence, reads

Project = Callable[..., Path]

OURS = "SELECT key FROM yaotask_workers WHERE kind = 'supervisor'"


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


async def test_a_drain_outlasts_a_store_that_cannot_be_read_for_a_while(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([out_of_reach, out_of_reach])
    monkeypatch.setattr(reads, "unsettled", lambda *whatever: next(looks, lambda: False)())
    with App(project()) as app, anyio.fail_after(PATIENCE):
        app.upgrade_store()
        await app.works.supervisor(Plan(app.root, 1)).run(drain=True)

    assert next(looks, None) is None
