"""Fixtures of the store tests, taken in with `pytest_plugins = ["store_fixtures"]`.

Every store that is created while they are in use refuses each change of a job that is not in the
table of transitions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import Connection
from store_support import TRIGGERS, URL, Bench, EvenChance, ManualClock, an_add

from yaotask.jobs import Claim
from yaotask.store import migrations
from yaotask.store.opening import Place, open_store, place
from yaotask.store.protocol import Mailbox
from yaotask.store.sql import SqlStore
from yaotask.store.transactions import Transaction


@pytest.fixture(autouse=True)
def no_other_transition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every new store raises on a change that is not in the table."""
    plain = migrations.create

    def create(connection: Connection, store_id: str) -> None:
        plain(connection, store_id)
        for trigger in TRIGGERS:
            connection.exec_driver_sql(trigger)

    monkeypatch.setattr(migrations, "create", create)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def open_bench(tmp_path: Path, clock: ManualClock) -> Iterator[Callable[[], Bench]]:
    """Opens the store of `tmp_path`, as each process does for itself; all are closed at the end."""
    opened: list[SqlStore] = []

    def open_() -> Bench:
        opened.append(open_store(place(tmp_path, URL), clock, EvenChance()))
        return Bench(opened[-1], clock)

    yield open_
    for store in opened:
        store.close()


@pytest.fixture
def bench(open_bench: Callable[[], Bench]) -> Bench:
    return open_bench()


@pytest.fixture
def claim(bench: Bench) -> Claim:
    bench.write("CREATE TABLE ledger (amount INTEGER)")
    bench.add()
    return bench.claim_one()


@pytest.fixture
def transaction(bench: Bench, claim: Claim) -> Iterator[Transaction]:
    transaction = bench.store.transaction()
    yield transaction
    transaction.rollback()


@pytest.fixture
def here(tmp_path: Path) -> Place:
    return place(tmp_path, URL)


@pytest.fixture
def open_here(here: Place) -> Iterator[Callable[..., SqlStore]]:
    opened: list[SqlStore] = []

    def open_(*, upgrade: bool = False) -> SqlStore:
        opened.append(open_store(here, ManualClock(), EvenChance(), upgrade=upgrade))
        return opened[-1]

    yield open_
    for store in opened:
        store.close()


@pytest.fixture
def used(here: Place, open_here: Callable[..., SqlStore]) -> Place:
    """A store that was there before, with a job in it."""
    store = open_here()
    store.run_cycle(Mailbox(adds=[an_add()]))
    store.close()
    return here
