"""The time that counts is that of the store: a server's own, which several machines share."""

from __future__ import annotations

from pathlib import Path

import pytest
from server_fixtures import Database
from sqlalchemy.engine import Connection
from store_support import EvenChance, ManualClock, connected

from yaotask.clock import Clock, SystemClock
from yaotask.store import opening
from yaotask.store.dialects import choice
from yaotask.store.direct import execute
from yaotask.store.opening import place


@pytest.fixture(autouse=True)
def its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests of the store let servers tell a time that they can move."""
    monkeypatch.setattr(opening, "dialect_of", choice.dialect_of)


@pytest.mark.only_on("sqlite")
def test_a_file_goes_by_the_clock_of_whoever_opens_it(tmp_path: Path, database: Database) -> None:
    there, clock = place(tmp_path, database.url), ManualClock()
    with connected(there) as connection:
        assert there.dialect().now(connection, clock) == clock.now()


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_server_tells_its_own_time_whatever_zone_it_is_in(tmp_path: Path, database: Database) -> None:
    there = place(tmp_path, database.url)
    with connected(there) as connection:
        before = SystemClock().now()
        told = there.dialect().now(connection, ManualClock())
        after = SystemClock().now()

    assert before <= told <= after


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_servers_time_goes_on_inside_a_transaction(tmp_path: Path, database: Database) -> None:
    there = place(tmp_path, database.url)
    dialect = there.dialect()
    with connected(there) as connection:
        execute(connection, dialect.begin)
        times = [dialect.now(connection, ManualClock()) for _ in range(3)]
        execute(connection, "ROLLBACK")

    assert times == sorted(set(times))


@pytest.mark.only_on("postgresql", "mariadb")
def test_the_look_of_an_idle_node_tells_the_time_as_well(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, asked = ManualClock(), list[int]()
    store = opening.open_store(place(tmp_path, database.url), clock, EvenChance())
    tell = store.dialect.now

    def now(connection: Connection, clock: Clock) -> int:
        asked.append(tell(connection, clock))
        return asked[-1]

    monkeypatch.setattr(store.dialect, "now", now)
    times = []
    for looks in (True, False):
        clock.advance(10)
        if looks:
            store.glance(1, ["mail"], [])
        store.write(store.now)
        times.append(len(asked))
    # Another server may have taken over.
    store.writer.disconnect()
    store.write(store.now)
    store.write(store.now)
    times.append(len(asked))
    store.close()

    assert times == [0, 1, 2]
