"""The rounds of a node's services: they go on whatever one of them meets."""

from __future__ import annotations

import logging
from typing import cast

import anyio
import pytest
from reach_support import Reach
from runtime_support import PATIENCE
from store_support import EVERY_EVENT, START, Bench, EvenChance, ManualClock

from yaotask.clock import Clock
from yaotask.errors import StorageBusy, StorageUnavailable
from yaotask.runtime.maintenance import BREATH, FOLD_EVERY, RELEASE_EVERY, Maintenance
from yaotask.store.access import Access
from yaotask.store.ledger import Ledger
from yaotask.store.sql import SqlStore
from yaotask.store.upkeep import DAY, MOST_FOLDED

pytest_plugins = ["store_fixtures"]
STALE = "UPDATE yaotask_events SET worker = 99"


@pytest.fixture
def reach(bench: Bench) -> Reach:
    return Reach(bench)


@pytest.fixture
def maintenance(reach: Reach, clock: ManualClock) -> Maintenance:
    return Maintenance(reach.access, clock, EvenChance())


async def test_a_round_folds_all_there_is_some_at_a_time(maintenance: Maintenance, reach: Reach, bench: Bench) -> None:
    bench.count_many(2 * MOST_FOLDED + 1, minute=START - 5 * DAY + 1)
    await maintenance.fold_rollups()

    assert reach.asked == 3
    assert bench.clock.elapsed == pytest.approx(3 * BREATH)
    assert bench.value("SELECT count(*) FROM yaotask_rollups WHERE minute % 3600000000 <> 0") == 0


async def test_nothing_is_written_where_there_is_nothing_to_do(maintenance: Maintenance, reach: Reach) -> None:
    await maintenance.fold_rollups()
    await maintenance.release_events()

    assert reach.asked == 0


async def test_events_that_are_given_out_again_are_told(
    maintenance: Maintenance, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.add(2, events=EVERY_EVENT)
    bench.write(STALE)
    with caplog.at_level(logging.WARNING):
        await maintenance.release_events()

    assert "2 events of workers that are gone" in caplog.text
    assert bench.value("SELECT count(worker) FROM yaotask_events") == 0


class Stopwatch:
    """A clock whose sleepers are noted, and sleep until they are cancelled, or for a number of times not at all."""

    def __init__(self, passes: int = 0) -> None:
        self.slept: list[float] = []
        self.all_sleep = anyio.Event()
        self._passes = passes

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if len(self.slept) == self._passes + 2:
            self.all_sleep.set()
        if len(self.slept) > self._passes:
            await anyio.sleep_forever()

    def now(self) -> int:
        return START


async def test_both_rounds_go_on_when_the_store_fails_and_that_is_told_once(
    reach: Reach, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> None:
        raise StorageBusy("database is locked")

    clock = Stopwatch(passes=4)
    maintenance = Maintenance(reach.access, cast(Clock, clock), EvenChance())
    monkeypatch.setattr(maintenance, "fold_rollups", fail)
    monkeypatch.setattr(maintenance, "release_events", fail)
    with anyio.fail_after(PATIENCE), caplog.at_level(logging.ERROR):
        async with anyio.create_task_group() as group:
            group.start_soon(maintenance.run)
            await clock.all_sleep.wait()
            group.cancel_scope.cancel()

    assert set(clock.slept) == {FOLD_EVERY, RELEASE_EVERY}
    assert len(caplog.messages) == 2


async def test_rounds_begin_while_the_store_is_out_of_reach(caplog: pytest.LogCaptureFixture) -> None:
    def open_store() -> SqlStore:
        raise StorageUnavailable("the server is starting up")

    def ledger_of(store: SqlStore) -> Ledger:
        raise AssertionError("there is no store")

    clock = Stopwatch(passes=4)
    maintenance = Maintenance(Access(open_store, ledger_of), cast(Clock, clock), EvenChance())
    with anyio.fail_after(PATIENCE), caplog.at_level(logging.ERROR):
        async with anyio.create_task_group() as group:
            group.start_soon(maintenance.run)
            await clock.all_sleep.wait()
            group.cancel_scope.cancel()

    assert ["starting up" in message for message in caplog.messages] == [True, True]
