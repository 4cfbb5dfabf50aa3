"""A handler's transaction can be cut off at any moment, and gives the write lock back."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Connection
from store_support import INSERT, Bench, in_thread, ledger

from yaotask.errors import StorageBusy, TransactionTooLong
from yaotask.jobs import Claim, JobState
from yaotask.store.transactions import Transaction

pytest_plugins = ["store_fixtures"]

# Run until they are interrupted, inside the database.
ENDLESS = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
    "postgresql": "SELECT pg_sleep(1000)",
    "mysql": "SELECT sleep(1000)",
}


def test_expiry_gives_the_write_lock_back_while_the_handler_computes(bench: Bench, transaction: Transaction) -> None:
    transaction.connection.execute(INSERT)
    in_thread(transaction.expire)

    assert transaction.expired
    assert bench.add(1) == [2]
    assert ledger(bench) == 0


def test_expiry_interrupts_a_statement(bench: Bench, transaction: Transaction) -> None:
    timer = threading.Timer(0.05, transaction.expire)
    timer.start()

    with pytest.raises(TransactionTooLong):
        transaction.connection.exec_driver_sql(ENDLESS[transaction.connection.dialect.name])
    timer.join()
    assert transaction.expired
    assert bench.add(1) == [2]


@pytest.mark.only_on("sqlite")
def test_expiry_does_not_wait_for_rows_that_were_not_fetched(bench: Bench, transaction: Transaction) -> None:
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000) SELECT i FROM n"
    transaction.connection.execute(INSERT)
    rows = transaction.connection.exec_driver_sql(numbers)
    rows.fetchone()
    in_thread(transaction.expire)

    with pytest.raises(TransactionTooLong):
        rows.fetchall()
    assert bench.add(1) == [2]


LATE: dict[str, Callable[[Connection], object]] = {
    "execute": lambda connection: connection.execute(INSERT),
    "many": lambda connection: connection.execute(text("INSERT INTO ledger VALUES (:a)"), [{"a": 1}, {"a": 2}]),
    "raw": lambda connection: connection.connection.cursor().execute("INSERT INTO ledger VALUES (1)"),
    "savepoint": lambda connection: connection.begin_nested(),
}


@pytest.mark.parametrize("name", LATE)
def test_nothing_runs_after_expiry(bench: Bench, transaction: Transaction, name: str) -> None:
    transaction.connection.execute(INSERT)
    in_thread(transaction.expire)

    with pytest.raises(TransactionTooLong):
        LATE[name](transaction.connection)
    assert ledger(bench) == 0


def test_a_cursor_from_before_does_nothing_after_expiry(bench: Bench, transaction: Transaction) -> None:
    cursor = transaction.connection.connection.cursor()
    cursor.execute("INSERT INTO ledger VALUES (1)")
    in_thread(transaction.expire)

    with pytest.raises(TransactionTooLong):
        cursor.execute("INSERT INTO ledger VALUES (1)")
    assert ledger(bench) == 0


def test_an_expired_attempt_cannot_finish(bench: Bench, claim: Claim, transaction: Transaction) -> None:
    in_thread(transaction.expire)

    with pytest.raises(TransactionTooLong):
        transaction.finish(bench.end(claim))
    assert bench.state() is JobState.RUNNING


def test_expiry_after_the_end_changes_nothing(bench: Bench, claim: Claim, transaction: Transaction) -> None:
    transaction.connection.execute(INSERT)
    transaction.finish(bench.end(claim))
    in_thread(transaction.expire)

    assert not transaction.expired
    assert ledger(bench) == 1


def test_many_races_between_expiry_and_the_handler_end_in_one_of_two_ways(bench: Bench, claim: Claim) -> None:
    for wait in range(30):
        transaction = bench.store.transaction()
        timer = threading.Timer(wait * 0.000_05, transaction.expire)
        timer.start()
        stored = ledger(bench)
        try:
            for _ in range(20):
                transaction.connection.execute(INSERT)
            transaction.finish(bench.end(claim._replace(fence=9)))
        except TransactionTooLong:
            pass  # this time the timer was first
        timer.join()

        assert ledger(bench) == stored == 0


# --- the lock --------------------------------------------------------------------------------------


@pytest.mark.only_on("sqlite")
def test_a_second_one_waits_and_then_is_refused(bench: Bench, transaction: Transaction) -> None:
    with pytest.raises(StorageBusy):
        bench.store.transaction(patience=0.05)


def test_others_can_read_meanwhile(bench: Bench, transaction: Transaction) -> None:
    transaction.connection.execute(INSERT)

    assert ledger(bench) == 0


@pytest.mark.only_on("sqlite")
def test_it_begins_when_the_other_writer_is_done(bench: Bench, claim: Claim) -> None:
    engine = create_engine(f"sqlite:///{bench.store.dialect.path}")  # type: ignore[attr-defined]
    with engine.connect() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")
        with pytest.raises(StorageBusy):
            bench.store.transaction(patience=0.01)
        other.rollback()
    engine.dispose()
    transaction = bench.store.transaction()

    assert transaction.finish(bench.end(claim))
