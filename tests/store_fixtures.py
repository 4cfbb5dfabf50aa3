"""Fixtures of the store tests, taken in with `pytest_plugins = ["store_fixtures"]`.

Every store that is created while they are in use refuses each change of a job that is not in the
table of transitions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import transitions
from server_fixtures import Database
from sqlalchemy import URL
from sqlalchemy.engine import Connection
from store_support import Bench, EvenChance, ManualClock, an_add

from yaotask.jobs import Claim
from yaotask.store import migrations, opening
from yaotask.store.dialects import choice
from yaotask.store.dialects.base import Dialect
from yaotask.store.opening import Place, open_store, place
from yaotask.store.protocol import Mailbox
from yaotask.store.sql import SqlStore
from yaotask.store.transactions import Transaction


@pytest.fixture(autouse=True)
def no_other_transition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every new store raises on a change that is not in the table."""
    plain = migrations.create

    def create(connection: Connection, store_id: str, furnish: Callable[[Connection], None]) -> None:
        plain(connection, store_id, furnish)
        transitions.hold(connection)

    monkeypatch.setattr(migrations, "create", create)


@pytest.fixture(autouse=True)
def our_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server tells the time that the clock of its store shows, so that tests can move it."""

    def dialect_of(url: URL) -> Dialect:
        dialect = choice.dialect_of(url)
        monkeypatch.setattr(dialect, "now", lambda connection, clock: clock.now())
        return dialect

    monkeypatch.setattr(opening, "dialect_of", dialect_of)


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
