"""What the database cannot do is said in our words, and nothing of it was stored."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from broken_lines import commits_and_then_fails, fails_instead_of_committing
from store_support import FAILED, Bench, an_add, answer

from yaotask.errors import OutcomeUnknown, StorageBusy, StorageError, StorageFull, StorageUnavailable
from yaotask.events import ADD_BIT
from yaotask.jobs import Failed, JobState
from yaotask.store import doubt
from yaotask.store.cycle import SqlCycle
from yaotask.store.dialects.sqlite_errors import SqliteErrors
from yaotask.store.protocol import Mailbox, Progress, Started
from yaotask.store.work import Misfit

pytest_plugins = ["store_fixtures"]

MUCH = '["' + "x" * 100_000 + '"]'


@contextmanager
def held_by_another(bench: Bench, tmp_path: Path) -> Iterator[None]:
    """Another process has the write lock."""
    with closing(sqlite3.connect(tmp_path / ".yaotask" / "yaotask.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@pytest.mark.only_on("sqlite")
def test_nothing_is_stored_in_a_database_that_was_removed(bench: Bench, tmp_path: Path) -> None:
    database = tmp_path / ".yaotask" / "yaotask.db"
    bench.add()
    aside = database.rename(tmp_path / "aside")
    with pytest.raises(StorageUnavailable, match="gone while it is in use"):
        bench.cycle(adds=[an_add()])
    with pytest.raises(StorageUnavailable, match="cannot be opened"):
        bench.store.transaction()
    made_anew = database.exists()
    aside.rename(database)

    assert not made_anew
    assert bench.add() == [2]


@pytest.mark.only_on("sqlite")
def test_nothing_is_stored_in_a_database_that_was_replaced(bench: Bench, tmp_path: Path) -> None:
    database = tmp_path / ".yaotask" / "yaotask.db"
    bench.add()
    database.rename(tmp_path / "aside")
    database.touch()

    with pytest.raises(StorageUnavailable, match="was replaced"):
        bench.cycle(adds=[an_add()])
    with pytest.raises(StorageUnavailable, match="was replaced"):
        bench.store.changed()


@pytest.mark.only_on("sqlite")
def test_a_busy_store_is_waited_for_and_then_said_to_be_busy(bench: Bench, tmp_path: Path) -> None:
    bench.add()
    bench.store.writer.patience = 0.05
    add = an_add()
    with held_by_another(bench, tmp_path), pytest.raises(StorageBusy, match="try again"):
        bench.cycle(adds=[add])

    assert add.ticket.value is None
    assert bench.value("SELECT count(*) FROM yaotask_jobs") == 1
    assert bench.add() == [2]


@pytest.mark.only_on("sqlite")
def test_a_store_that_is_busy_for_a_moment_is_no_error(bench: Bench, tmp_path: Path) -> None:
    bench.add()
    with held_by_another(bench, tmp_path):
        waited: list[float] = []

        def pause(seconds: float) -> None:
            waited.append(seconds)
            if len(waited) == 3:
                raise TimeoutError  # by now it was asked for several times, a little apart

        bench.clock.pause = pause  # type: ignore[method-assign]
        with pytest.raises(TimeoutError):
            bench.add()

    assert all(0.000_2 <= seconds <= 0.002 for seconds in waited)


@pytest.mark.only_on("sqlite")
def test_a_full_disk_is_said_to_be_full_and_is_used_again_when_there_is_room(bench: Bench) -> None:
    bench.add()
    limit_pages(bench, bench.value("PRAGMA page_count"))
    add = an_add(args=MUCH)
    with pytest.raises(StorageFull, match="make room"):
        bench.cycle(adds=[add])
    before = bench.value("SELECT count(*) FROM yaotask_jobs")
    limit_pages(bench, 1_000_000)
    bench.cycle(adds=[add])

    assert before == 1
    assert answer(add.ticket) == [3]  # an id that was given out stays given out


def limit_pages(bench: Bench, pages: int) -> None:
    bench.store.writer.connected().exec_driver_sql(f"PRAGMA max_page_count = {pages}")


@pytest.mark.only_on("sqlite")
def test_a_full_disk_in_a_transaction_of_a_handler_stores_nothing(bench: Bench) -> None:
    bench.add()
    claim = bench.claim_one()
    transaction = bench.store.transaction()
    transaction.connection.exec_driver_sql(f"PRAGMA max_page_count = {bench.value('PRAGMA page_count')}")
    finish = bench.end(claim)._replace(outcome=Failed(FAILED.failure, MUCH))

    with pytest.raises(StorageFull):
        transaction.finish(finish)
    assert bench.state() is JobState.RUNNING
    assert bench.add() == [2]


def test_a_commit_that_fails_leaves_the_outcome_unknown_and_the_next_look_finds_it(bench: Bench) -> None:
    bench.add()
    claim = bench.claim_one()
    finishes = [bench.end(claim)]
    with commits_and_then_fails(bench), pytest.raises(OutcomeUnknown, match="may or may not"):
        bench.cycle(finishes=finishes)
    harvest = bench.cycle(finishes=finishes)

    assert harvest.lost == []
    assert bench.state() is JobState.SUCCESS
    assert bench.value("SELECT sum(jobs) FROM yaotask_rollups") == 1


def test_an_add_whose_commit_was_in_doubt_can_be_repeated_with_its_key(bench: Bench) -> None:
    add = an_add(key="k", size=5)
    with commits_and_then_fails(bench), pytest.raises(OutcomeUnknown):
        bench.cycle(adds=[add])
    bench.cycle(adds=[add])

    assert answer(add.ticket) == [1]
    assert bench.value("SELECT count(*) FROM yaotask_jobs") == 1


def test_progress_that_came_with_such_a_finish_is_not_taken_for_lost(bench: Bench) -> None:
    bench.add()
    claim = bench.claim_one()
    mail = {"progress": [Progress(claim.key, claim.fence, 1, {"current": 1})], "finishes": [bench.end(claim)]}
    with commits_and_then_fails(bench), pytest.raises(OutcomeUnknown):
        bench.cycle(**mail)

    assert bench.cycle(**mail).lost == []


def test_claims_that_nobody_was_given_go_back_in_the_next_cycle(bench: Bench) -> None:
    bench.add(2, size=2)
    with commits_and_then_fails(bench), pytest.raises(OutcomeUnknown):
        bench.claim()
    doubtful, fence = bench.state(), bench.row()["fence"]
    bench.cycle(adds=[an_add()])

    assert doubtful is JobState.RUNNING
    claims = bench.claim()
    assert [(claim.id, claim.attempt) for claim in claims] == [(1, 1), (2, 1), (3, 1)]
    assert all(claim.fence > fence for claim in claims[:2])


@pytest.mark.parametrize("asked", [False, True])
def test_claims_of_a_commit_that_did_not_happen_are_left_to_whoever_has_them(
    open_bench: Callable[[], Bench], asked: bool
) -> None:
    bench, other = open_bench(), open_bench()
    bench.add()
    bench.add(events=ADD_BIT)
    mail = {"worker": 1, "deliveries": 5, "delivery_tasks": ("mail",)}
    with fails_instead_of_committing(bench), pytest.raises(OutcomeUnknown):
        bench.cycle(demands={"mail": 1}, **mail)
    claim, delivery = other.claim_one(worker=2), other.cycle(**{**mail, "worker": 2}).deliveries
    if asked:
        other.cycle(started=[Started(claim.key, claim.fence, other.clock.now())])
        assert other.errand(lambda cycle: cycle.cancel("mail", claim.id)) is JobState.RUNNING
    bench.cycle()

    assert bench.state() is JobState.RUNNING
    assert other.finish(claim, worker=2)
    assert len(delivery) == 1
    assert bench.value("SELECT worker FROM yaotask_events") == 2


def test_deliveries_that_nobody_was_given_go_back_in_the_next_cycle(bench: Bench) -> None:
    bench.add(events=ADD_BIT)
    mail = {"worker": 1, "deliveries": 5, "delivery_tasks": ("mail",)}
    with commits_and_then_fails(bench), pytest.raises(OutcomeUnknown):
        bench.cycle(**mail)

    assert [delivery.id for delivery in bench.cycle(**mail).deliveries] == [1]


def has_trace(bench: Bench, mailbox: Mailbox) -> bool:
    """Whether a cycle left something by which it could be known, had its answer been lost."""
    return doubt.trace(mailbox, bench.store.run_cycle(mailbox), bench.clock.now()) is not None


def test_an_end_that_was_stored_before_is_no_trace_of_a_cycle(bench: Bench) -> None:
    bench.add(2)
    first, second = bench.claim(2)
    ends = [bench.end(first)]

    assert has_trace(bench, Mailbox(worker=1, finishes=ends))
    assert not has_trace(bench, Mailbox(worker=1, finishes=ends))
    assert has_trace(bench, Mailbox(worker=1, finishes=[*ends, bench.end(second)]))


def test_a_used_key_is_no_trace_of_a_cycle(bench: Bench) -> None:
    bench.add(key="used")

    assert not has_trace(bench, Mailbox(adds=[an_add(key="used")]))
    assert has_trace(bench, Mailbox(adds=[an_add(key="used"), an_add()]))


def test_what_a_savepoint_undoes_is_not_counted_and_has_nothing_done_afterwards(bench: Bench) -> None:
    id, done = bench.add_one(), []

    def undone(cycle: SqlCycle) -> None:
        with suppress(Misfit), cycle.savepoint():
            cycle.cancel("mail", id)
            cycle.harvest.afterwards.append(lambda: done.append(id))
            raise Misfit

    bench.errand(undone)

    assert bench.state(id) is JobState.WAITING
    assert bench.value("SELECT count(*) FROM yaotask_rollups") == 0
    assert done == []


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_commit_whose_answer_alone_was_lost_is_seen_to_be_stored(bench: Bench) -> None:
    with commits_and_then_fails(bench, for_good=False):
        ids = bench.add(2)
        claim, _ = bench.claim()
        won = bench.finish(claim)

    assert (ids, won) == ([1, 2], True)
    assert (bench.state(1), bench.state(2)) == (JobState.SUCCESS, JobState.RUNNING)


def test_an_error_of_a_reader_leaves_the_writer_alone(bench: Bench) -> None:
    bench.add()
    writer = bench.store.writer.connected()
    with pytest.raises(StorageUnavailable, match="nowhere"), bench.store.reading() as connection:
        connection.exec_driver_sql("SELECT * FROM nowhere")

    assert bench.store.writer.connected() is writer


def test_a_store_can_be_used_again_after_it_was_closed(bench: Bench) -> None:
    bench.add()
    bench.store.close()
    bench.store.close()

    assert bench.add() == [2]


@pytest.mark.parametrize(
    ("name", "kind", "advice"),
    [
        ("SQLITE_BUSY", StorageBusy, "try again"),
        ("SQLITE_BUSY_SNAPSHOT", StorageBusy, "begin it again"),
        ("SQLITE_LOCKED", StorageBusy, "try again"),
        ("SQLITE_FULL", StorageFull, "make room"),
        ("SQLITE_NOTADB", StorageUnavailable, "backup"),
        ("SQLITE_CORRUPT_INDEX", StorageUnavailable, "backup"),
        ("SQLITE_READONLY_DBMOVED", StorageUnavailable, "write access"),
        ("SQLITE_CANTOPEN", StorageUnavailable, "folder"),
        ("SQLITE_IOERR_SHMSIZE", StorageUnavailable, "make room"),
        ("SQLITE_IOERR_WRITE", StorageUnavailable, "see that it has room"),
        ("SQLITE_IOERR_FSYNC", StorageUnavailable, "disk I/O error, SQLITE_IOERR_FSYNC"),
    ],
)
def test_each_error_of_sqlite_has_its_advice(name: str, kind: type[StorageError], advice: str) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorname = name

    explained = SqliteErrors(Path("jobs.db")).explain(error)
    assert type(explained) is kind
    assert advice in str(explained)
    assert "jobs.db" in str(explained)


def test_a_limit_of_file_sizes_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (4_096, 4_096))
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorname = "SQLITE_IOERR_WRITE"

    explained = SqliteErrors(Path("jobs.db")).explain(error)
    assert isinstance(explained, StorageFull)
    assert "4,096 bytes (ulimit -f)" in str(explained)


def test_an_empty_mailbox_changes_nothing(bench: Bench) -> None:
    assert not Mailbox()
    assert bench.cycle().claims == {}
