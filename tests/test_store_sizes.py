"""`size` is exact, ids are never given out twice, and callers may store jobs in transactions of their own."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from server_fixtures import Database
from servers import Servers
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from store_support import FAILED, Bench, an_add, retry_after

from yaotask.errors import DuplicateJobId, QueueFull, StorageBusy, StorageUnavailable, TransactionError
from yaotask.jobs import Outcome
from yaotask.store import writer
from yaotask.store.cycle import SqlCycle
from yaotask.store.opening import Place
from yaotask.store.writer import Writer

pytest_plugins = ["store_fixtures"]


@pytest.fixture
def engine(bench: Bench, here: Place, database: Database) -> Iterator[Engine]:
    """A caller's own, as callers make it."""
    patience = {} if database.is_server else {"timeout": 0.05}
    engine = create_engine(here.url, poolclass=NullPool, connect_args=patience)
    yield engine
    engine.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection


def never_claimed(bench: Bench) -> int:
    return int(bench.value("SELECT count(*) FROM yaotask_jobs WHERE counted = 1 AND state = 0"))


# --- size ------------------------------------------------------------------------------------------


def test_what_was_claimed_once_counts_no_more(bench: Bench) -> None:
    bench.add(2, size=2)
    bench.finish(bench.claim_one(), retry_after(1))

    assert bench.add(1, size=2) == [3]
    with pytest.raises(QueueFull):
        bench.add(1, size=2)


def test_what_others_have_added_just_now_counts(open_bench: Callable[[], Bench]) -> None:
    one, other = open_bench(), open_bench()
    for bench in (one, other):
        bench.add(1, size=10)
    other.add(6, size=10)
    with pytest.raises(QueueFull) as refused:
        one.add(3, size=10)

    assert len(refused.value.ids) == 2
    assert one.waiting() == never_claimed(one) == 10


@pytest.mark.only_on("postgresql")
def test_a_full_queue_is_found_full_by_the_database_once(
    open_bench: Callable[[], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = open_bench(), open_bench()
    one.add(1, size=10)
    other.add(9, size=10)
    refused, refuse = list[DBAPIError](), Writer._refusal

    def note(writer: Writer, error: DBAPIError) -> Exception:
        refused.append(error)
        return refuse(writer, error)

    monkeypatch.setattr(Writer, "_refusal", note)
    for _ in range(5):
        with pytest.raises(QueueFull):
            one.add(1, size=10)

    assert len(refused) == 1


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_full_queue_is_found_full_by_a_server_that_was_silent_for_long(
    open_bench: Callable[[], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "FRESH", 0.0)
    one, other = open_bench(), open_bench()
    one.add(1, size=10)
    other.add(8, size=10)
    with pytest.raises(QueueFull) as refused:
        one.add(2, size=10)

    assert len(refused.value.ids) == 1


def test_jobs_that_no_caller_added_do_not_count(bench: Bench) -> None:
    bench.add(5)

    assert bench.add(1, size=1) == [6]


def test_the_size_stays_exact_whatever_happens(bench: Bench, connection: Connection) -> None:
    chance = random.Random(7)  # noqa: S311 - which of the things happen
    for _ in range(150):
        happen(bench, connection, chance)
        bench.clock.advance(0.5)

        assert never_claimed(bench) <= 12
    bench.cycle(worker=1, others=True, demands={"none": 1})
    assert bench.waiting() == never_claimed(bench)


def happen(bench: Bench, connection: Connection, chance: random.Random) -> None:
    """One of the things that change how many jobs wait."""
    match chance.randrange(6):
        case 0 | 1:
            bench.adds(an_add(chance.randrange(1, 4), size=12))
        case 2:
            ends: list[Outcome] = [FAILED, retry_after(1)]
            for claim in bench.claim(chance.randrange(1, 3)):
                bench.finish(claim, chance.choice(ends))
        case 3:
            for id in some_id(bench, chance, "SELECT id FROM yaotask_jobs WHERE state IN (0, 5)"):
                bench.errand(partial(SqlCycle.cancel, task="mail", id=id))
        case 4:
            for id in some_id(bench, chance, "SELECT id FROM yaotask_jobs WHERE state = 3"):
                bench.errand(partial(SqlCycle.retry, task="mail", id=id))
        case _:
            with bench.store.borrow(connection) as cycle:
                try_to_add(cycle.add, chance.randrange(1, 4))
            chance.choice([connection.commit, connection.rollback])()


def some_id(bench: Bench, chance: random.Random, query: str) -> list[int]:
    """One of the ids that a query finds, if it finds any."""
    ids = [row["id"] for row in bench.query(query)]
    return [chance.choice(ids)] if ids else []


def try_to_add(add: Callable[..., object], count: int) -> None:
    try:
        add(an_add(count, size=12))
    except QueueFull:
        return  # as many as fit were stored


# --- a caller's own transaction --------------------------------------------------------------------


def test_a_job_is_stored_with_the_callers_commit(bench: Bench, connection: Connection) -> None:
    with bench.store.borrow(connection) as cycle:
        ids = cycle.add(an_add(2, size=10))
    before = bench.query("SELECT id FROM yaotask_jobs")
    connection.commit()

    assert (ids, before) == ([1, 2], [])
    assert [claim.id for claim in bench.claim()] == [1, 2]


def test_a_rollback_takes_job_and_size_along(bench: Bench, connection: Connection, database: Database) -> None:
    with bench.store.borrow(connection) as cycle:
        cycle.add(an_add(2, size=2))
    connection.rollback()

    # Ids as well, where nobody else could be given some meanwhile.
    assert bench.add(2, size=2) == ([3, 4] if database.is_server else [1, 2])


def test_what_was_stored_in_a_transaction_counts_for_the_next_add(bench: Bench, connection: Connection) -> None:
    with bench.store.borrow(connection) as cycle:
        cycle.add(an_add(2, size=2))
    connection.commit()

    with pytest.raises(QueueFull):
        bench.add(1, size=2)
    assert bench.waiting() == 2
    assert bench.query("SELECT * FROM yaotask_size_debts") == []


def test_a_full_queue_is_seen_from_within(bench: Bench, connection: Connection) -> None:
    bench.add(1, size=3)
    with bench.store.borrow(connection) as cycle:
        cycle.add(an_add(1, size=3))
        with pytest.raises(QueueFull) as refused:
            cycle.add(an_add(2, size=3))
    connection.commit()

    assert refused.value.ids == [3]
    assert never_claimed(bench) == 3


def test_a_taken_id_leaves_the_callers_transaction_as_it_was(bench: Bench, connection: Connection) -> None:
    bench.add(id=7)
    bench.write("CREATE TABLE orders (name TEXT)")
    connection.execute(text("INSERT INTO orders VALUES ('mine')"))
    with bench.store.borrow(connection) as cycle:
        with pytest.raises(DuplicateJobId):
            cycle.add(an_add(id=7, size=10))
        cycle.add(an_add(id=8, size=10))
    connection.commit()

    assert bench.value("SELECT count(*) FROM orders") == 1
    assert [row["id"] for row in bench.query("SELECT id FROM yaotask_jobs ORDER BY id")] == [7, 8]
    assert bench.value("SELECT sum(added) FROM yaotask_size_debts") == 1


def test_a_generated_id_that_is_taken_is_drawn_again(bench: Bench, connection: Connection) -> None:
    bench.adds(an_add(id=1), an_add(id=2))
    with bench.store.borrow(connection) as cycle:
        ids = cycle.add(an_add(2))
    connection.commit()

    assert ids == [3, 4]


def test_a_key_answers_the_first_job_there_too(bench: Bench, connection: Connection) -> None:
    (first,) = bench.add(key="k")
    with bench.store.borrow(connection) as cycle:
        again = cycle.add(an_add(key="k"))
    connection.commit()

    assert again == [first]


def test_a_transaction_that_the_caller_began_is_joined(bench: Bench, engine: Engine) -> None:
    bench.write("CREATE TABLE orders (name TEXT)")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO orders VALUES ('mine')"))
        with bench.store.borrow(connection) as cycle:
            cycle.add(an_add())

    assert bench.value("SELECT count(*) FROM yaotask_jobs") == 1


def test_a_job_can_be_cancelled_and_retried_in_it(bench: Bench, connection: Connection) -> None:
    bench.add(size=5)
    with bench.store.borrow(connection) as cycle:
        cycle.cancel("mail", 1)
        cycle.retry("mail", 1)
    connection.commit()
    bench.cycle(worker=1, others=True, demands={"none": 1})

    assert bench.row()["generation"] == 1
    assert bench.waiting() == 0


@pytest.mark.parametrize("name", ["/other.db", ""])
@pytest.mark.only_on("sqlite")
def test_another_database_is_refused_with_advice(bench: Bench, tmp_path: Path, name: str) -> None:
    other = create_engine(f"sqlite:///{tmp_path}{name}" if name else "sqlite://", poolclass=NullPool)
    said = pytest.raises(StorageUnavailable, match=r"other\.db" if name else "a database in memory")

    with other.connect() as connection, said, bench.store.borrow(connection):
        pass


@pytest.mark.only_on("sqlite")
def test_the_same_file_by_another_name_is_taken(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / ".yaotask" / "yaotask.db")
    other = create_engine(f"sqlite:///{tmp_path}/link.db", poolclass=NullPool)
    with other.begin() as connection, bench.store.borrow(connection) as cycle:
        cycle.add(an_add())

    assert bench.value("SELECT count(*) FROM yaotask_jobs") == 1


@pytest.mark.only_on("postgresql", "mariadb")
def test_another_database_of_the_server_is_refused_with_advice(
    bench: Bench, database: Database, servers: Servers
) -> None:
    with servers.database(database.kind) as url:
        other = create_engine(url, poolclass=NullPool)
        said = pytest.raises(StorageUnavailable, match=r"it is to .*a job can only be stored")
        with other.connect() as connection, said, bench.store.borrow(connection):
            pass


def test_autocommit_is_refused(bench: Bench, engine: Engine) -> None:
    said = pytest.raises(TransactionError, match="AUTOCOMMIT")
    at_once = engine.execution_options(isolation_level="AUTOCOMMIT")

    with at_once.connect() as connection, said, bench.store.borrow(connection):
        pass


@pytest.mark.only_on("sqlite")
def test_a_locked_store_is_busy_not_broken(bench: Bench, connection: Connection, engine: Engine) -> None:
    with engine.connect() as writer:
        writer.exec_driver_sql("BEGIN IMMEDIATE")
        with pytest.raises(StorageBusy), bench.store.borrow(connection):
            pass
        writer.rollback()
    connection.rollback()

    assert bench.add() == [1]


@pytest.mark.only_on("sqlite")
def test_a_transaction_that_read_before_another_wrote_must_begin_again(bench: Bench, connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
    connection.execute(text("SELECT count(*) FROM yaotask_jobs")).all()
    bench.add()

    with pytest.raises(StorageBusy, match="begin it again"), bench.store.borrow(connection) as cycle:
        cycle.add(an_add())
