"""Time on a fleet is the server's; leases are kept and lapse by it; and a store that has moved on is not spoiled."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from anyio.to_thread import run_sync
from fleet_folders import BRISK, Skewed, all_succeed, folder, processes, statuses
from run_support import command, notes, running, until
from server_fixtures import Database
from store_support import EvenChance, behind

from yaotask import App
from yaotask.clock import SECOND, SystemClock
from yaotask.errors import StorageUnavailable
from yaotask.store import migrations
from yaotask.store.opening import open_store, place
from yaotask.store.protocol import Mailbox

pytestmark = [pytest.mark.only_on("postgresql", "mariadb"), pytest.mark.timeout(120)]

MINUTES = 600

TASKS = {
    "quick": "name: Q\nprocess: scripts.hold.Quick\n",
    "again": "name: A\nprocess: scripts.hold.Again\nattempts: 2\nattempt_after: 1s\n",
    "slow": "name: S\nprocess: scripts.hold.Slow\ntimeout: 500ms\n",
}
SCRIPTS = {
    "hold": """
    import anyio

    from yaotask import current_job
    from scripts.witness import note

    async def Quick(task_id):
        note("quick", task_id)

    async def Again(task_id):
        if current_job().attempt < 3:
            raise ValueError("not yet")

    async def Slow(task_id):
        await anyio.sleep(60)
"""
}


@pytest.fixture
def make(tmp_path: Path, database: Database) -> Callable[[str], Path]:
    """The folder of a machine."""
    return lambda name: folder(tmp_path, name, database, tasks=TASKS, scripts=SCRIPTS, settings=BRISK + "poll: 200ms\n")


@pytest.fixture
def app(make: Callable[[str], Path]) -> Iterator[App]:
    """A program that neither runs jobs nor has a wrong clock."""
    with App(make("c")) as app:
        app.store_status()
        yield app


async def soon(look: Callable[[], Any]) -> Any:
    """Like `until`, in a thread, so that the loop is free."""
    return await run_sync(until, look)


@asynccontextmanager
async def embedded(root: Path, ahead: float = 0) -> AsyncIterator[App]:
    async with App(root, clock=Skewed(ahead)) as app, app.running(grace=0):
        yield app


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


# --- clocks that are wrong ----------------------------------------------------------------------------


async def test_clocks_that_are_minutes_apart_change_nothing(
    make: Callable[[str], Path], app: App, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = make("a"), make("b")
    monkeypatch.chdir(a)
    begun = time.time()
    caplog.set_level(logging.WARNING)
    async with embedded(a, MINUTES) as early, embedded(b, -MINUTES) as late:
        ids = []
        for adder in (early, late, app):
            ids += [await adder.tasks["quick"].options(delay=1).aadd() for _ in range(3)]
            await adder.tasks["again"].aadd()
            await adder.tasks["slow"].aadd()
        entered = {process["key"]: process["renewed_at"] for process in await app.aworkers()}
        await soon(lambda: statuses(app) == {"SUCCESS": 12, "FAILURE": 3})
        # By now each could have judged the other for twice the time that a lease lasts.
        for _ in range(8):
            before = {process["key"]: process["renewed_at"] for process in await app.aworkers()}
            await soon(
                lambda before=before: all(process["renewed_at"] > before[process["key"]] for process in app.workers())  # type: ignore[misc]
            )
        jobs = [job for task in TASKS for job in (await app.alist(task))["items"]]
        left = [(process["key"], process["alive"]) for process in await app.aworkers()]
    ended = time.time()

    assert left == [(key, True) for key in entered]
    assert "was taken for dead" not in caplog.text
    for job in jobs:
        times = [moment(job[name]) for name in ("created_at", "run_at", "started_at", "finished_at")]
        assert times == sorted(times)
        assert begun - 1 < times[0] and times[-1] < ended + 1
        assert times[1] - times[0] >= (0.5 if job["task"] == "quick" else 0)
    again = [job for job in jobs if job["task"] == "again"]
    # Two retries, a second apart; the ones that time out have half a second, not minutes.
    assert all(2 <= moment(job["finished_at"]) - moment(job["created_at"]) < 60 for job in again)
    assert sorted(notes(a, "quick"), key=int) == [str(id) for id in sorted(ids)]


# --- the lease of a worker in another program ----------------------------------------------------------


async def test_an_embedded_workers_lease_is_renewed_while_its_loop_is_blocked(
    make: Callable[[str], Path], app: App
) -> None:
    async with embedded(make("a")):
        (before,) = await run_sync(processes, app, "embedded")
        # On the loop itself, which does nothing else meanwhile.
        store = place(app.root, app.settings.store)
        statement = "SELECT renewed_at, expires_at FROM yaotask_workers"
        ((renewed, _),) = behind(store, statement)
        for _ in range(5):
            ((renewed, expires),) = until(lambda seen=renewed: later(behind(store, statement), seen))  # type: ignore[misc]

    assert before["lease_ends_at"] is not None
    assert expires - renewed == 1.5 * SECOND


def later(rows: list[tuple[Any, ...]], renewed: int) -> list[tuple[Any, ...]]:
    return rows if rows and rows[0][0] > renewed else []


LAPSED = """
INSERT INTO yaotask_workers (key, incarnation, host, pid, kind, started_at, renewed_at, expires_at)
VALUES (1000000, 'theirs', 'elsewhere', 1, 'embedded', :then, :then, :until)
"""


def leave_behind(app: App) -> None:
    """A job that a worker of another host has claimed, whose lease has run out."""
    app.tasks["quick"].add()
    here = place(app.root, app.settings.store)
    store = open_store(here, SystemClock(), EvenChance())
    try:
        then = store.clock.now() - 60 * SECOND
        behind(here, LAPSED, then=then, until=then + SECOND)
        claims = store.run_cycle(Mailbox(worker=1_000_000, demands={"quick": 1})).claims["quick"]
    finally:
        store.close()
    assert len(claims) == 1


async def test_a_lease_that_lapsed_elsewhere_is_seen_by_an_embedded_worker(
    make: Callable[[str], Path], app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make("a")
    monkeypatch.chdir(root)
    await run_sync(leave_behind, app)
    async with embedded(root):
        await run_sync(all_succeed, app, 1)
        left = {process["incarnation"] for process in await app.aworkers()}

    assert notes(root, "quick") == ["1"]
    assert "theirs" not in left


def test_a_lease_that_lapsed_elsewhere_is_seen_by_a_node(make: Callable[[str], Path], app: App) -> None:
    root = make("a")
    leave_behind(app)
    with running(root):
        all_succeed(app, 1)

    assert notes(root, "quick") == ["1"]


# --- a schema that was raised -------------------------------------------------------------------------


def test_a_store_of_a_newer_version_is_refused_and_what_runs_already_runs_on(
    make: Callable[[str], Path], app: App, database: Database
) -> None:
    newer = migrations.CURRENT + 1
    with running(make("a")):
        app.tasks["quick"].add()
        all_succeed(app, 1)
        behind(place(app.root, database.url), "UPDATE yaotask_meta SET value = :v WHERE name = 'schema'", v=str(newer))
        app.tasks["quick"].add()
        until(lambda: app.get("quick.2")["status"] == "SUCCESS")
        with App(make("b")) as old, pytest.raises(StorageUnavailable, match=f"schema {newer}.*install the newer"):
            old.tasks["quick"].add()
        refused = command(make("b"), "run", "--drain")

    assert refused.returncode == 4
    assert f"the store is at schema {newer}" in refused.stderr
