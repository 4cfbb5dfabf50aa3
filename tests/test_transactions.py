"""A handler's own transaction: it commits with the end of the attempt, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from run_support import until
from sqlalchemy import event, text
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session
from store_support import FAILED, INSERT, Bench, an_add, ledger

from yaotask.errors import OutcomeUnknown, StorageUnavailable, TransactionError
from yaotask.jobs import Claim, JobState
from yaotask.store.transactions import Transaction

pytest_plugins = ["store_fixtures"]


def test_effects_and_end_are_stored_together(bench: Bench, claim: Claim, transaction: Transaction) -> None:
    transaction.connection.execute(INSERT)
    before = ledger(bench), bench.state()
    won = transaction.finish(bench.end(claim), {"current": 7})

    assert won
    assert before == (0, JobState.RUNNING)
    assert (ledger(bench), bench.state(), bench.row()["current"]) == (1, JobState.SUCCESS, 7)


def test_a_failed_try_may_end_in_it_too(bench: Bench, claim: Claim, transaction: Transaction) -> None:
    transaction.finish(bench.end(claim, FAILED))

    assert bench.state() is JobState.FAILURE
    assert bench.value("SELECT worker FROM yaotask_attempts") == 1


def test_a_lost_claim_stores_nothing(bench: Bench, claim: Claim, transaction: Transaction) -> None:
    transaction.connection.execute(INSERT)
    stale = claim._replace(fence=claim.fence - 1)

    assert not transaction.finish(bench.end(stale), {"current": 7})
    assert (ledger(bench), bench.state(), bench.row()["current"]) == (0, JobState.RUNNING, None)


def test_a_lost_claim_is_seen_without_progress_as_well(bench: Bench, claim: Claim, transaction: Transaction) -> None:
    transaction.connection.execute(INSERT)

    assert not transaction.finish(bench.end(claim._replace(fence=9)))
    assert ledger(bench) == 0


def test_rollback_undoes_everything_and_may_be_repeated(bench: Bench, transaction: Transaction) -> None:
    transaction.connection.execute(INSERT)
    transaction.rollback()
    transaction.rollback()

    assert ledger(bench) == 0
    assert bench.state() is JobState.RUNNING
    assert not transaction.expired


def test_after_the_end_the_connection_does_nothing(bench: Bench, claim: Claim, transaction: Transaction) -> None:
    transaction.finish(bench.end(claim))

    with pytest.raises(TransactionError, match="has ended"):
        transaction.connection.execute(INSERT)
    assert ledger(bench) == 0


# MySQL has no END, which is another word for COMMIT elsewhere.
END = {"mysql": "COMMIT WORK"}
ENDINGS: dict[str, Callable[[Connection], object]] = {
    "commit": lambda connection: connection.commit(),
    "begin": lambda connection: connection.begin(),
    "transaction": lambda connection: connection.get_transaction().commit(),  # type: ignore[union-attr]
    "text": lambda connection: connection.execute(text("COMMIT")),
    "end": lambda connection: connection.exec_driver_sql(END.get(connection.dialect.name, "END")),
    "raw": lambda connection: connection.connection.commit(),
    "cursor": lambda connection: connection.connection.cursor().execute("commit"),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_handler_cannot_commit(bench: Bench, transaction: Transaction, name: str) -> None:
    transaction.connection.execute(INSERT)

    with pytest.raises(TransactionError, match="return to commit"):
        ENDINGS[name](transaction.connection)
    transaction.rollback()
    assert ledger(bench) == 0


@pytest.mark.only_on("sqlite")
def test_a_script_would_commit(transaction: Transaction) -> None:
    with pytest.raises(TransactionError, match="return to commit"):
        transaction.connection.connection.cursor().executescript("SELECT 1")


def test_a_refused_commit_does_not_spoil_the_attempt(bench: Bench, claim: Claim, transaction: Transaction) -> None:
    transaction.connection.execute(INSERT)
    with pytest.raises(TransactionError):
        transaction.connection.commit()
    transaction.connection.execute(INSERT)

    assert transaction.finish(bench.end(claim))
    assert ledger(bench) == 2


ROLLBACKS: dict[str, Callable[[Connection], object]] = {
    "rollback": lambda connection: connection.rollback(),
    "transaction": lambda connection: connection.get_transaction().rollback(),  # type: ignore[union-attr]
    "text": lambda connection: connection.execute(text("ROLLBACK")),
    "raw": lambda connection: connection.connection.rollback(),
}


@pytest.mark.parametrize("name", ROLLBACKS)
def test_what_a_handler_wanted_undone_is_never_stored(
    bench: Bench, claim: Claim, transaction: Transaction, name: str
) -> None:
    transaction.connection.execute(INSERT)
    with pytest.raises(TransactionError, match="raise an exception"):
        ROLLBACKS[name](transaction.connection)

    with pytest.raises(TransactionError, match="asked for a rollback"):
        transaction.finish(bench.end(claim))
    assert (ledger(bench), bench.state()) == (0, JobState.RUNNING)


def test_close_is_left_to_the_job(bench: Bench, claim: Claim, transaction: Transaction) -> None:
    with transaction.connection as connection:
        connection.execute(INSERT)
    transaction.connection.close()

    assert transaction.finish(bench.end(claim))
    assert ledger(bench) == 1


def test_savepoints_are_the_handlers_own(bench: Bench, claim: Claim, transaction: Transaction) -> None:
    transaction.connection.execute(INSERT)
    with transaction.connection.begin_nested() as savepoint:
        transaction.connection.execute(INSERT)
        savepoint.rollback()

    assert transaction.finish(bench.end(claim))
    assert ledger(bench) == 1


def test_a_session_joins_it(bench: Bench, claim: Claim, transaction: Transaction) -> None:
    with Session(transaction.connection) as session:
        session.execute(INSERT)
        session.commit()

    assert ledger(bench) == 0
    assert transaction.finish(bench.end(claim))
    assert ledger(bench) == 1


def test_jobs_are_added_in_it(bench: Bench, claim: Claim, transaction: Transaction) -> None:
    with bench.store.borrow(transaction.connection) as cycle:
        added = cycle.add(an_add(2, size=10))
    before = bench.value("SELECT count(*) FROM yaotask_jobs")
    transaction.finish(bench.end(claim))

    assert (added, before) == ([2, 3], 1)
    assert [claim.id for claim in bench.claim()] == [2, 3]


@pytest.mark.only_on("sqlite", "postgresql")
def test_a_broken_rule_of_the_tables_refuses_the_commit(bench: Bench, claim: Claim) -> None:
    bench.write("CREATE TABLE child (parent BIGINT REFERENCES yaotask_jobs (key) DEFERRABLE INITIALLY DEFERRED)")
    if bench.store.dialect.name == "sqlite":
        engine = bench.store._guarded
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys = ON"))
    transaction = bench.store.transaction()
    transaction.connection.exec_driver_sql("INSERT INTO child VALUES (99)")

    with pytest.raises(TransactionError, match=r"(?i)foreign key"):
        transaction.finish(bench.end(claim))
    assert bench.state() is JobState.RUNNING
    assert bench.add_one() == 2


@pytest.mark.timeout(60)
@pytest.mark.only_on("postgresql", "mariadb")
def test_who_stands_still_in_a_transaction_is_parted_from_the_rows_it_has_only_read(
    open_bench: Callable[[], Bench], bench: Bench, claim: Claim, transaction: Transaction
) -> None:
    def free(table: str) -> list[Any]:
        with other.store.writer.engine.connect() as connection:
            return list(connection.execute(text(f"SELECT * FROM {table} FOR UPDATE SKIP LOCKED")))  # noqa: S608

    def stand_still(connection: Connection) -> None:
        connection.execute(text("SELECT * FROM yaotask_jobs FOR UPDATE")).close()
        locked.append(not free("yaotask_jobs") and not free("ledger"))
        until(lambda: free("yaotask_jobs") and free("ledger"))

    other, locked = open_bench(), list[bool]()
    bench.write("INSERT INTO ledger VALUES (1)")
    transaction.connection.execute(text("SELECT * FROM ledger FOR UPDATE")).close()

    with pytest.raises(OutcomeUnknown):
        bench.store.writer.write(stand_still)
    with pytest.raises(StorageUnavailable):
        transaction.finish(bench.end(claim))
    assert locked == [True]
    assert bench.state() is JobState.RUNNING
    bench.add()
