"""Fixtures of the store tests, taken in with `pytest_plugins = ["store_fixtures"]`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from server_fixtures import Database
from store_support import Bench, EvenChance, ManualClock, an_add

from yaotask.jobs import Claim
from yaotask.store.opening import Place, open_store, place
from yaotask.store.protocol import Mailbox
from yaotask.store.sql import SqlStore
from yaotask.store.transactions import Transaction


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def here(tmp_path: Path, database: Database) -> Place:
    return place(tmp_path, database.url)


@pytest.fixture
def open_bench(here: Place, clock: ManualClock) -> Iterator[Callable[[], Bench]]:
    """Opens the store of the place `here`, as each process does for itself; all are closed at the end."""
    opened: list[SqlStore] = []

    def open_() -> Bench:
        opened.append(open_store(here, clock, EvenChance()))
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
