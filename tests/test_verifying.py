"""What must hold between the rows: each fault is found, and what is advised mends it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moving_support import filled, opened
from server_fixtures import Database
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from yaotask.store import verifying
from yaotask.store.opening import Place, place
from yaotask.store.sql import SqlStore
from yaotask.store.tables import attempts, events, ids, jobs, sizes, workers
from yaotask.store.verifying import Fault

# Every id of these is given by the store.
GENERATED = ("mail", "media.video")

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def no_other_transition() -> None:
    """Faults are no transitions."""


@pytest.fixture
def here(tmp_path: Path, database: Database) -> Place:
    return filled(place(tmp_path, database.url), 60)


@pytest.fixture
def store(here: Place) -> Iterator[SqlStore]:
    with opened(here) as store:
        yield store


def write(store: SqlStore, *statements: Any) -> None:
    for statement in statements:
        if isinstance(statement, str):
            store.write(lambda connection, text=statement: connection.exec_driver_sql(text))  # type: ignore[misc]
        else:
            store.write(lambda connection, clause=statement: connection.execute(clause))  # type: ignore[misc]


def faults(here: Place) -> list[Fault]:
    found = verifying.verify(here, GENERATED)
    assert found is not None
    return found


def mend(store: SqlStore, fault: Fault) -> None:
    """Do as is advised: the statement at the end of it."""
    starts = [
        at for word in ("UPDATE ", "DELETE ", "INSERT ", "CREATE ", "ALTER ") if (at := fault.advice.find(word)) >= 0
    ]
    write(store, fault.advice[min(starts) :].removesuffix(";"))


def test_a_sound_store_has_no_faults(here: Place) -> None:
    assert faults(here) == []


def test_where_there_is_no_store_there_is_nothing_to_verify(tmp_path: Path) -> None:
    assert verifying.verify(place(tmp_path, "sqlite:///none.db"), ()) is None


FAULTS: dict[str, list[Any]] = {
    "ended, but not when": [update(jobs).where(jobs.c.id == 3).values(finished_at=None)],
    "run by no worker": [update(jobs).where(jobs.c.id == 2).values(worker=None)],
    "not running, but with a worker": [update(jobs).where(jobs.c.id == 3).values(worker=7)],
    "waiting for nothing": [update(jobs).where(jobs.c.id == 11).values(ready_at=None, due_at=None)],
    "1 event of jobs that are not there": [update(events).where(events.c.job == 1).values(job=999)],
    "1 try of jobs that are not there": [update(attempts).where(attempts.c.job == 5).values(job=999)],
    "in no known state": [update(events).where(events.c.job == 1).values(state=9)],
    "are counted, ": [update(sizes).where(sizes.c.task == "mail").values(waiting=99)],
    " counted, ": [sizes.delete()],
    "an add tries one after the other": [update(ids).where(ids.c.task == "mail").values(next=3)],
    "the next id of mail is 1": [ids.delete()],
}


@pytest.mark.parametrize("what", FAULTS)
def test_what_does_not_fit_is_found_and_mended_as_is_advised(here: Place, store: SqlStore, what: str) -> None:
    write(store, *FAULTS[what])
    found = faults(here)
    for fault in found:
        mend(store, fault)

    assert [fault for fault in found if what in fault.what]
    assert faults(here) == []


def test_jobs_of_a_worker_that_is_gone_are_for_the_next_node(here: Place, store: SqlStore) -> None:
    write(store, workers.delete())
    found = {(fault.about, fault.advice) for fault in faults(here)}

    assert found == {("claims", "start a node: it takes them back"), ("events", "start a node: it delivers them")}


def test_a_state_that_nobody_knows_is_told_with_its_jobs(here: Place, store: SqlStore) -> None:
    write(store, update(jobs).where(jobs.c.id.in_([3, 4, 13, 14])).values(state=4))
    (fault,) = faults(here)

    assert fault.what == "4 jobs (Mail.3, mail.4, mail.13, …) in no known state"
    assert "0 WAITING" in fault.advice


@pytest.mark.parametrize("name", ["yaotask_jobs_ready", "yaotask_jobs_due", "yaotask_jobs_key"])
def test_an_index_that_is_missing_is_made_as_is_advised(here: Place, store: SqlStore, name: str) -> None:
    on = " ON yaotask_jobs" if store.dialect.name == "mysql" else ""
    write(store, f"DROP INDEX {name}{on}")
    (fault,) = faults(here)
    mend(store, fault)

    assert name in fault.what
    assert faults(here) == []


def test_what_an_index_would_have_kept_out_is_told_with_it(here: Place, store: SqlStore) -> None:
    on = " ON yaotask_jobs" if store.dialect.name == "mysql" else ""
    write(store, f"DROP INDEX yaotask_jobs_key{on}")
    write(store, update(jobs).where(jobs.c.task == "mail", jobs.c.id.in_([1, 31])).values(idempotency_key="once"))
    missing, doubled = faults(here)

    assert "yaotask_jobs_key" in missing.what
    assert doubled.what.endswith("with the same task, idempotency_key: mail, once")
    with pytest.raises(IntegrityError):
        mend(store, missing)


def test_it_changes_nothing(here: Place, store: SqlStore) -> None:
    write(store, ids.delete())
    faults(here)
    with store.reading() as connection:
        left = connection.execute(select(ids)).all()

    assert left == []


def test_what_is_under_way_is_no_fault(here: Place, store: SqlStore) -> None:
    """A job and its count are stored by one transaction: seen between the two, they would not fit."""
    seen: list[list[Fault]] = []

    def halfway(connection: Any) -> None:
        connection.execute(update(sizes).where(sizes.c.task == "mail").values(waiting=sizes.c.waiting + 1))
        seen.append(faults(here))

    store.write(halfway)

    assert seen == [[]]
