"""`app.running()` in somebody else's program."""

from __future__ import annotations

import logging
import sys
import threading
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import anyio
import anyio.to_thread
import pytest
from runtime_support import PATIENCE, StageApp, break_down, ended

from yaotask import App
from yaotask.errors import StorageUnavailable
from yaotask.store.protocol import Ticket

pytest_plugins = ["runtime_fixtures"]


def succeed(task_id: int) -> str:
    return "done"


def remove(store: Path) -> None:
    for file in store.parent.glob(f"{store.name}*"):
        file.unlink()


def state_of(root: Path) -> list[Path]:
    return sorted((root / ".yaotask").iterdir())


async def test_an_app_that_runs_jobs_is_not_closed(stage: StageApp) -> None:
    app = stage(succeed)
    async with app.running():
        with pytest.raises(RuntimeError, match=r"leave its `running\(\)` before"):
            await app.aclose()
        job = await ended(app, await app.acall("tasks.mail.add"))
    await app.aclose()

    assert job["status"] == "SUCCESS"


async def test_a_second_block_is_refused_and_changes_nothing_for_the_first(stage: StageApp) -> None:
    app = stage(succeed)
    with pytest.raises(StorageUnavailable, match="has stopped: no room for a page"):
        async with app.running():
            with pytest.raises(RuntimeError):
                async with app.running():
                    raise AssertionError
            app._access.opened.ledger.errand(break_down, Ticket())
            with anyio.fail_after(PATIENCE):
                await anyio.sleep_forever()


@pytest.mark.parametrize("grace", [0.5, "500ms", timedelta(seconds=0.5), None])
async def test_the_grace_is_any_length_of_time(stage: StageApp, grace: float | str | timedelta | None) -> None:
    app = stage(succeed)
    async with app.running(grace=grace):
        job = await ended(app, await app.acall("tasks.mail.add"))

    assert job["status"] == "SUCCESS"


async def test_a_grace_that_is_none_is_refused_at_the_call(stage: StageApp) -> None:
    with pytest.raises(ValueError, match=r'grace must be a number of seconds.*, got "soon"'):
        stage(succeed).running(grace="soon")


async def test_a_program_may_have_stores_of_its_own_beside_that_of_the_project(stage: StageApp, tmp_path: Path) -> None:
    root = stage(succeed).root
    for name in ("one", "two", "one"):
        async with App(root, settings={"store": f"sqlite:///{tmp_path / name}.db"}) as app:
            await app.acall("tasks.mail.add")
            (tmp_path / f"jobs-of-{name}").write_text(str((await app.alist(page=1))["total"]))
    async with App(root) as app:
        jobs_of_project = (await app.alist(page=1))["total"]

    assert [(tmp_path / f"jobs-of-{name}").read_text() for name in ("one", "two")] == ["2", "1"]
    assert jobs_of_project == 0


async def test_such_a_store_may_be_removed(stage: StageApp, tmp_path: Path) -> None:
    """As pytest does with those of earlier runs."""
    root, own = stage(succeed).root, {"store": f"sqlite:///{tmp_path / 'own.db'}"}
    for _ in range(2):
        async with App(root, settings=own) as app:
            await app.acall("tasks.mail.submit", {})
        remove(tmp_path / "own.db")

    assert [file.name for file in state_of(root)] == ["lock"]


async def test_what_a_block_raises_is_not_hidden_by_an_app_that_runs_jobs(
    stage: StageApp, caplog: pytest.LogCaptureFixture
) -> None:
    app = stage(succeed)
    running = app.running()
    with pytest.raises(ValueError, match="mine"):
        async with app:
            await running.__aenter__()
            raise ValueError("mine")
    await running.__aexit__(None, None, None)
    await app.aclose()

    assert "this app runs jobs, and is not closed" in caplog.text


async def test_what_cannot_be_run_is_told(stage: StageApp, caplog: pytest.LogCaptureFixture) -> None:
    root = stage(succeed).root
    (root / "tasks" / "lost.yml").write_text("name: Lost\nprocess: scripts.nowhere.Send\n")
    (root / "tasks" / "wrong.yml").write_text("name: Wrong\nprocess: scripts.nowhere.Send\nattemps: 3\n")
    async with App(root) as app:
        with caplog.at_level(logging.WARNING, "yaotask"):
            async with app.running():
                pass

    assert "jobs of lost have to wait: tasks/lost.yml:2:10: process: there is no " in caplog.text
    assert "tasks/wrong.yml:3:1: attemps: unknown key" in caplog.text


async def test_the_loop_turns_while_scripts_are_imported(stage: StageApp, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = SimpleNamespace(asked=threading.Event(), turned=threading.Event(), seen=[])
    monkeypatch.setitem(sys.modules, "gate_of_the_test", gate)
    root = stage(succeed).root
    (root / "scripts").mkdir(exist_ok=True)
    (root / "scripts" / "slow.py").write_text(
        "import gate_of_the_test as gate\ngate.asked.set()\n"
        f"gate.seen.append(gate.turned.wait({PATIENCE}))\ndef Send(task_id): ...\n"
    )
    (root / "tasks" / "slow.yml").write_text("name: Slow\nprocess: scripts.slow.Send\n")

    async def turn() -> None:
        assert await anyio.to_thread.run_sync(gate.asked.wait, PATIENCE)
        gate.turned.set()

    async with App(root) as app, anyio.create_task_group() as group:
        group.start_soon(turn)
        async with app.running():
            pass

    assert gate.seen == [True]
