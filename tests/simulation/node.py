"""A simulated node: one incarnation after the other, each with its own ledger, pools, courier, lease and reaper."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import anyio
from sqlalchemy import event

from simulation.driving import TaskDriver
from simulation.world import START, Died, Place, World, here
from yaotask.app import App
from yaotask.chaos.facts import Fault
from yaotask.clock import SECOND
from yaotask.errors import StorageError
from yaotask.lifecycle import every
from yaotask.runtime import reaper
from yaotask.runtime.leases import Leases
from yaotask.store import opening, presence
from yaotask.store.access import Access
from yaotask.store.cycle import SqlCycle
from yaotask.store.ledger import Ledger
from yaotask.store.sql import SqlStore

STORE = "sqlite:///.yaotask/yaotask.db"
UNIX_EPOCH, DAY = 2440587.5, 86_400


@dataclass(frozen=True, slots=True)
class OtherMachine:
    """Stands in for a lock: of a worker of another machine its lease alone says whether it lives."""

    def row(self) -> dict[str, Any]:
        return {"lock_path": None, "lock_device": None, "lock_inode": None, "boot_id": None}


@asynccontextmanager
async def reaching(app: App, folder: Path, place: Place) -> AsyncIterator[Access]:
    """A process's way to its store. It lasts as long as the block, which is cancelled where the process dies."""
    here.set(place)
    access = Access(
        lambda: open_store(folder, place.world),
        lambda store: Ledger(store, place.world.time, place.world.dice, app.settings.poll.total_seconds()),
        lambda ledger: TaskDriver(ledger, place),
    )
    driver = cast(TaskDriver, access.opened.driver)
    try:
        async with anyio.create_task_group() as group:
            driver.died = group.cancel_scope.cancel
            group.start_soon(driver.run)
            yield access
            group.cancel_scope.cancel()
    except* (StorageError, Died):
        # Who died hears no answer, and cannot even say that it goes.
        pass
    finally:
        driver.close()


def open_store(folder: Path, world: World) -> SqlStore:
    """The store of a folder, whose triggers go by the time of the simulation."""
    store = opening.open_store(opening.place(folder, STORE), world.time, world.dice)

    def connected(connection: Any, _: object) -> None:
        connection.create_function("julianday", 1, lambda _: world.time.now() / SECOND / DAY + UNIX_EPOCH)

    event.listen(store.writer.engine, "connect", connected)
    return store


class Node:
    """Works, dies, is cut off and comes back, until `over` is set."""

    def __init__(self, world: World, app: App, folder: Path, name: str) -> None:
        self.over = anyio.Event()
        self._world = world
        self._app = app
        self._folder = folder
        self._name = name

    async def run(self) -> None:
        while not self.over.is_set():
            self._world.incarnations += 1
            place = Place(self._world, self._name, pid=1_000_000 + self._world.incarnations)
            async with reaching(self._app, self._folder, place) as access:
                await self._live(access, place)
            if not self.over.is_set():
                self._blow("kill-node", self._world.time.now(), place)
                await anyio.sleep(self._world.dice.uniform(0.1, 3))

    def _blow(self, kind: str, until: int, place: Place) -> None:
        # It is noted when all of it has ended, some of which may have been waiting for something.
        began = self._world.time.now() if place.died is None else place.died
        killed = [place.pid] if kind == "kill-node" and place.is_dead else []
        self._world.faults.append(Fault(kind, began, until, self._name, killed))

    async def _live(self, access: Access, place: Place) -> None:
        world, settings = self._world, self._app.settings
        works = replace(self._app.works, access=access, clock=world.time, chance=world.dice)
        leases = Leases(access, world.time, settings.lease)
        worker = await self._enter(access, place, leases)
        driver = cast(TaskDriver, access.opened.driver)
        watch = reaper.Reaper(access, worker, leases.lapsed_before, leases.see)

        async def renew() -> None:
            if driver.cut_off_until <= world.time.monotonic():
                await leases.renew({worker: "{}"})

        async def reap() -> None:
            if driver.cut_off_until <= world.time.monotonic():
                await watch.reap()

        keep = partial(every, clock=world.time, chance=world.dice)
        runner = works.runner(())
        async with runner.working(worker, lambda: 1.0, self._folder / "ear"), anyio.create_task_group() as group:
            group.start_soon(partial(keep, settings.heartbeat.total_seconds(), renew, what="renew"))
            group.start_soon(partial(keep, reaper.EVERY, reap, what="reap"))
            group.start_soon(self._suffer, driver, place)
            await self.over.wait()
            group.cancel_scope.cancel()

    async def _enter(self, access: Access, place: Place, leases: Leases) -> int:
        lock: Any = OtherMachine()

        def enter(cycle: SqlCycle) -> int:
            name = self._world.dice.uuid()
            return presence.register(cycle, name, lock, pid=place.pid, lease=leases.microseconds)

        while True:
            with suppress(StorageError):
                worker: int = await access.aask(lambda ledger, ticket: ledger.errand(enter, ticket))
                return worker
            await anyio.sleep(0.1)

    async def _suffer(self, driver: TaskDriver, place: Place) -> None:
        world, dice = self._world, self._world.dice
        while True:
            await anyio.sleep(dice.uniform(0.5, 8))
            if not world.rages:
                return
            if dice.random() < 0.4:
                driver.die()
                return
            driver.cut_off_until = world.time.monotonic() + dice.uniform(1, 9)
            self._blow("hold-line", START + round(driver.cut_off_until * SECOND), place)
