"""What is PostgreSQL's alone: its statements' plans, its errors, joined connections and guarded transactions."""

from __future__ import annotations

import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest
from servers import Missing, Servers
from sqlalchemy import URL, create_engine, make_url, text
from sqlalchemy.engine import Connection
from sqlalchemy.pool import NullPool
from store_support import INSERT, Bench, EvenChance, ManualClock, an_add, answer, connected, in_thread, ledger

from yaotask.chance import SystemChance
from yaotask.clock import SystemClock
from yaotask.errors import (
    OutcomeUnknown,
    QueueFull,
    StorageBusy,
    StorageError,
    StorageUnavailable,
    TransactionError,
    TransactionTooLong,
)
from yaotask.jobs import Claim, JobState
from yaotask.store import checkup, migrations, scripting, statements
from yaotask.store.dialects import postgresql, postgresql_database
from yaotask.store.dialects import postgresql_statements as sql
from yaotask.store.dialects.choice import dialect_of
from yaotask.store.dialects.postgresql_endings import ending_in
from yaotask.store.dialects.weaknesses import Unsound
from yaotask.store.direct import execute, in_style
from yaotask.store.moving.move import move
from yaotask.store.opening import Place, open_store, place
from yaotask.store.sql import SqlStore
from yaotask.store.transactions import Transaction

pytest_plugins = ["store_fixtures"]

# Keeps a test from waiting for ever.
PATIENCE = 20


@pytest.fixture
def url(servers: Servers) -> Iterator[URL]:
    """An empty database."""
    try:
        servers.url("postgresql")
    except Missing as missing:
        pytest.skip(str(missing))
    with servers.database("postgresql") as url:
        yield url


@pytest.fixture
def here(tmp_path: Path, url: URL) -> Place:
    return place(tmp_path, _text(url))


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)


@pytest.fixture
def outside(url: URL) -> Iterator[Connection]:
    """A connection of somebody else, in autocommit."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


def pid(connection: Connection) -> int:
    return int(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())


# --- making a store -----------------------------------------------------------------------------------


def open_elsewhere(url: URL, root: Path) -> SqlStore:
    """As a node on another machine does, whose folder is another."""
    root.mkdir()
    return open_store(Place(url, root / ".yaotask"), ManualClock(), EvenChance())


def open_two(url: URL, root: Path) -> list[str | None]:
    """Two nodes open one store at the same time; the id that each finds."""
    found: list[str | None] = []

    def open_(name: str) -> None:
        store = open_elsewhere(url, root / name)
        with store.reading() as connection:
            found.append(migrations.store_id(connection))
        store.close()

    with ThreadPoolExecutor(2) as threads:
        for opening in [threads.submit(open_, name) for name in ("one", "other")]:
            opening.result(PATIENCE)
    return found


def test_two_nodes_that_create_at_once_make_one_store(url: URL, tmp_path: Path) -> None:
    one, other = open_two(url, tmp_path)

    assert one == other is not None


def test_they_do_without_advisory_locks_too(url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both, plain = threading.Barrier(2), migrations.create

    def create(connection: Connection, store_id: str, furnish: Callable[[Connection], None]) -> None:
        both.wait(PATIENCE)  # both have seen that there is nothing yet
        plain(connection, store_id, furnish)

    monkeypatch.setattr(postgresql_database, "ONE_CREATES", "SELECT no_such_lock()")
    monkeypatch.setattr(migrations, "create", create)
    one, other = open_two(url, tmp_path)

    assert one == other is not None


@pytest.fixture
def latin(url: URL, outside: Connection) -> Iterator[URL]:
    """An empty database that holds the letters of western Europe alone."""
    name = f"{url.database}_latin"
    outside.exec_driver_sql(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    yield url.set(database=name)
    outside.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


UNFIT = "LATIN1, which cannot hold every text"


def test_a_database_that_cannot_hold_every_text_is_refused(latin: URL, tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable, match=UNFIT):
        open_elsewhere(latin, tmp_path / "here")
    with pytest.raises(StorageUnavailable, match=UNFIT):
        scripting.script(Place(latin, tmp_path / "here"), EvenChance())


def test_so_is_a_store_that_somebody_has_made_in_one(latin: URL, tmp_path: Path) -> None:
    there = Place(latin, tmp_path / "here")
    dialect = there.dialect()
    with connected(there) as connection:
        for statement in ("BEGIN", *scripting.creation(dialect, connection.dialect, "made"), "COMMIT"):
            connection.exec_driver_sql(statement)

    with pytest.raises(StorageUnavailable, match=UNFIT):
        open_store(there, ManualClock(), EvenChance())
    with pytest.raises(StorageUnavailable, match=UNFIT), checkup.looking(there):
        pass
    old = place(tmp_path, "sqlite:///old.db")
    open_store(old, ManualClock(), EvenChance()).close()
    with pytest.raises(StorageUnavailable, match=UNFIT):
        move(old, there, SystemClock, SystemChance(), lambda step: None)


def test_what_is_between_may_keep_the_servers_encoding_to_itself(
    url: URL, latin: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psycopg.ConnectionInfo, "parameter_status", lambda _, name: None)
    monkeypatch.setattr(psycopg.ConnectionInfo, "server_version", 0)

    open_elsewhere(url, tmp_path / "there").close()
    with pytest.raises(StorageUnavailable, match=UNFIT):
        open_elsewhere(latin, tmp_path / "here")


LATIN = {
    "address": {"client_encoding": "latin1"},
    "options": {"options": "-c client_encoding=latin1"},
    "twice": {"client_encoding": "latin1", "options": "-c client_encoding=latin1"},
}


@pytest.mark.parametrize("said", LATIN)
def test_every_text_goes_through_whatever_encoding_somebody_has_set(
    said: str, url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "latin1")
    clock = ManualClock()
    store = open_store(place(tmp_path, _text(url.update_query_dict(LATIN[said]))), clock, EvenChance())
    notices = store.listen()
    assert notices is not None
    try:
        bench = Bench(store, clock)
        bench.add(created_by="世界")
        assert bench.row()["created_by"] == "世界"
        transaction = store.transaction()
        assert transaction.connection.exec_driver_sql("SELECT '世界'").scalar() == "世界"
        transaction.rollback()
        store.announce(["世界"])
        select.select([notices], [], [], PATIENCE)
        assert notices.heard() == frozenset({"世界"})
    finally:
        notices.close()
        store.close()


def test_arguments_are_stored_as_they_were_given(bench: Bench) -> None:
    given = '[ 1.0, "\\u00e9" ,{"b":1,  "a":2, "a":3}]'
    bench.add(args=given)
    bench.cycle(worker=1, demands={"mail": 1})

    assert bench.row()["args"] == given


def test_a_store_tells_its_size_and_its_server(bench: Bench) -> None:
    with bench.store.reading() as connection:
        facts = bench.store.dialect.database.facts(connection)

    assert facts["bytes"] > 100_000
    assert facts["engine"].startswith("PostgreSQL 1")


def test_an_index_that_is_not_valid_is_told(bench: Bench) -> None:
    def fault() -> Unsound | None:
        with bench.store.reading() as connection:
            return bench.store.dialect.database.fault(connection, None)

    sound = fault()
    bench.write("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'yaotask_jobs_due'::regclass")

    assert sound is None
    assert fault() == ("the index yaotask_jobs_due is not valid", "REINDEX INDEX yaotask_jobs_due")


def test_the_view_for_people_names_states_and_times(bench: Bench) -> None:
    bench.add()
    (row,) = bench.query("SELECT job, status, extract(epoch FROM created) AS created FROM yaotask_jobs_readable")

    assert (row["job"], row["status"], row["created"]) == ("mail.1", "WAITING", bench.clock.now() // 1_000_000)


def test_psycopg_is_imported_only_where_it_is_needed() -> None:
    program = (
        "import sys; from sqlalchemy import make_url; import yaotask.store.opening;"
        " from yaotask.store.dialects.choice import dialect_of; dialect_of(make_url('sqlite:///x.db'));"
        " sys.exit('psycopg' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_missing_driver_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaotask.store.dialects.postgresql", None)

    with pytest.raises(StorageUnavailable, match=r"yaotask\[postgres\]"):
        dialect_of(make_url("postgresql://localhost/jobs"))


# --- plans and settings -------------------------------------------------------------------------------


@pytest.fixture(params=["for its values", "for any values"])
def plan(request: pytest.FixtureRequest) -> Callable[..., str]:
    """How a cycle would execute a statement, behind a pooler and without."""

    def explain(bench: Bench, statement: str, **values: Any) -> str:
        if request.param == "for any values":
            return _prepared_plan(bench, statement, values)
        with bench.store.readers.connect() as connection:
            connection.exec_driver_sql(sql.BEGIN_PLANNED)
            explained = connection.exec_driver_sql("EXPLAIN " + in_style(statement, "postgresql"), values)
            lines = explained.scalars().all()
            connection.exec_driver_sql("ROLLBACK")
        return "\n".join(lines)

    return explain


def _prepared_plan(bench: Bench, statement: str, values: dict[str, Any]) -> str:
    numbers = {name: f"${number}" for number, name in enumerate(values, 1)}
    given = ", ".join(f"'{value}'" for value in values.values())
    lines: list[str] = []

    def work(connection: Connection) -> None:
        connection.exec_driver_sql(f"PREPARE asked AS {in_style(statement, 'postgresql') % numbers}")
        lines.extend(connection.exec_driver_sql(f"EXPLAIN EXECUTE asked({given})").scalars())
        connection.exec_driver_sql("DEALLOCATE asked")

    bench.store.write(work)
    return "\n".join(lines)


@pytest.fixture
def crowded(bench: Bench) -> Bench:
    """Many jobs of each kind that came since the statistics were made, which know of none."""
    bench.write("ANALYZE yaotask_jobs")
    bench.write("ALTER TABLE yaotask_jobs DISABLE TRIGGER USER")
    bench.write(
        "INSERT INTO yaotask_jobs (task, queue, state, events, counted, created_at, updated_at, priority, run_at,"
        " ready_at, due_at, worker, finished_at, id, args, payload)"
        " SELECT 'mail', 'mail', n % 3, 0, 0, n, n, 0, n, CASE n % 3 WHEN 0 THEN n END, NULL, CASE n % 3 WHEN 1 THEN 1"
        " END, CASE n % 3 WHEN 2 THEN n END, n, '[]', '{}' FROM generate_series(1, 9000) AS n"
    )
    return bench


ROWS = "[[1,1,1,1,1]]"


def test_a_claim_walks_the_index_of_ready_jobs_in_its_order(crowded: Bench, plan: Callable[..., str]) -> None:
    found = plan(crowded, sql.SELECT_CLAIMS, task="mail", most=1000, worker=1, now=1, fence=1)

    assert "LockRows" in found
    assert "Index Scan using yaotask_jobs_ready" in found
    assert "Index Scan using yaotask_jobs_pkey" in found
    assert found.count("Sort") <= 2  # of what was claimed alone
    assert "Seq Scan" not in found


FINISHES = {"finish": sql.FINISH_SUCCESS, "other": sql.FINISH_OTHER, "started": sql.STORE_STARTED}


@pytest.mark.parametrize("name", FINISHES)
def test_a_finish_goes_from_its_rows_to_the_keys(crowded: Bench, plan: Callable[..., str], name: str) -> None:
    found = plan(crowded, FINISHES[name], rows=ROWS)

    assert "Index Scan using yaotask_jobs_pkey" in found
    assert "yaotask_jobs_running" not in found
    assert "Seq Scan" not in found


def test_deliveries_are_taken_by_their_key(crowded: Bench, plan: Callable[..., str]) -> None:
    assert "Index Scan using yaotask_events_pkey" in plan(crowded, sql.TAKE_DELIVERIES, worker=1, seqs="[1]")


def test_the_claims_of_a_worker_are_found_by_it(crowded: Bench, plan: Callable[..., str]) -> None:
    assert "Index Scan using yaotask_jobs_running" in plan(crowded, statements.CLAIMS_OF, worker=2, most=500)


PREPARED = "SELECT count(*) FROM pg_prepared_statements"


def test_behind_a_pooler_nothing_outlives_a_transaction(
    open_bench: Callable[[], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "is_direct", lambda connection: False)
    bench = open_bench()
    within = []
    for _ in range(10):
        bench.add()
        bench.store.write(lambda connection: within.append(execute(connection, "SHOW enable_seqscan").scalar()))

    assert set(within) == {"off"}
    assert bench.store._look("SHOW enable_seqscan").scalar() == "on"
    assert bench.store._look(PREPARED).scalar() == 0


@pytest.mark.parametrize("is_direct", [True, False])
def test_no_statement_of_the_ledgers_is_compiled(
    open_bench: Callable[[], Bench],
    outside: Connection,
    url: URL,
    monkeypatch: pytest.MonkeyPatch,
    is_direct: bool,
) -> None:
    # As servers come, up to PostgreSQL 18.
    outside.exec_driver_sql(f"ALTER DATABASE {url.database} SET jit = on")
    monkeypatch.setattr(postgresql, "is_direct", lambda connection: is_direct)
    bench = open_bench()
    bench.add()
    within = bench.store.write(lambda connection: execute(connection, "SHOW jit").scalar())

    assert within == "off"


def test_a_pooler_is_known_by_its_not_knowing_who_serves(bench: Bench) -> None:
    class Pooled:
        """PgBouncer makes up what it tells a client of the other end."""

        def __init__(self, raw: Any) -> None:
            self.execute = raw.execute
            self.info = SimpleNamespace(backend_pid=raw.info.backend_pid + 1)

    with bench.store.reading() as connection:
        raw: Any = connection.connection.driver_connection

        assert postgresql.is_direct(raw)
        assert not postgresql.is_direct(Pooled(raw))


def test_without_a_pooler_statements_are_prepared(bench: Bench) -> None:
    for _ in range(10):
        bench.add()

    assert bench.store._look(PREPARED).scalar() > 2
    assert bench.store._look("SHOW plan_cache_mode").scalar() == "force_generic_plan"


def test_a_handlers_statements_are_planned_as_usual(transaction: Transaction) -> None:
    assert transaction.connection.exec_driver_sql("SHOW enable_seqscan").scalar() == "on"


def test_a_store_is_named_to_its_server(bench: Bench, url: URL, tmp_path: Path) -> None:
    named = open_elsewhere(url.update_query_dict({"application_name": "shop"}), tmp_path / "named")
    with named.reading() as connection:
        ours = connection.exec_driver_sql("SHOW application_name").scalar()
    named.close()

    assert bench.store._look("SHOW application_name").scalar() == "yaotask"
    assert ours == "shop"


PLAIN = "postgresql://host/db?options=-csearch_path%3Dours"
# Others that are not where these are.
PLACES = {
    "postgresql:///db?host=a": [
        "postgresql:///db?host=b",
        "postgresql:///db?hostaddr=10.0.0.1",
        "postgresql:///db?host=a&port=1",
        "postgresql:///db?host=a&dbname=other",
        "postgresql:///db?host=a&options=-csearch_path%3Dours",
        "postgresql:///db?host=a&options=-c%20search_path%3Dtheirs",
        "postgresql:///db?host=a&options=--search-path%3Danother",
    ],
    "postgresql:///db?service=a": ["postgresql:///db?service=b"],
}


@pytest.mark.parametrize("address", PLACES)
def test_a_place_is_told_from_others(address: str) -> None:
    every = [address, *PLACES[address]]

    assert len({dialect_of(make_url(one)).place for one in every}) == len(every)


@pytest.mark.parametrize(
    "other",
    [
        "postgresql://host/db?options=-c%20search_path%3Dours&application_name=shop&connect_timeout=5",
        "postgresql://me:secret@host/db?options=-csearch_path%3Dours&sslmode=require",
        "postgresql://host/db?options=-c%20lock_timeout%3D1%20-c%20search_path%3Dtheirs%20--search_path%3Dours",
    ],
)
def test_a_place_is_the_same_however_one_comes_there(other: str) -> None:
    assert dialect_of(make_url(other)).place == dialect_of(make_url(PLAIN)).place


# --- many writers -------------------------------------------------------------------------------------


def test_two_workers_never_get_the_same_job(open_bench: Callable[[], Bench]) -> None:
    one, other = open_bench(), open_bench()
    one.add(200)
    got: list[int] = []

    def claim(bench: Bench, worker: int) -> None:
        while claims := bench.claim(7, worker=worker):
            got.extend(claim.id for claim in claims)

    with ThreadPoolExecutor(2) as threads:
        for claiming in [threads.submit(claim, one, 1), threads.submit(claim, other, 2)]:
            claiming.result(PATIENCE)

    assert sorted(got) == list(range(1, 201))


def test_a_size_is_kept_by_many_that_add_at_once(open_bench: Callable[[], Bench]) -> None:
    benches = [open_bench(), open_bench()]

    def add(bench: Bench) -> int:
        stored = 0
        for _ in range(40):
            try:
                stored += len(bench.add(3, size=50))
            except QueueFull as full:
                stored += len(full.ids)
        return stored

    with ThreadPoolExecutor(2) as threads:
        stored = sum(adding.result(PATIENCE) for adding in [threads.submit(add, bench) for bench in benches])

    assert stored == 50 == benches[0].waiting() == benches[0].value("SELECT count(*) FROM yaotask_jobs")


# --- other people's transactions ----------------------------------------------------------------------


@pytest.fixture
def caller(url: URL) -> Iterator[Connection]:
    """A connection of the kind that users have."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


other_caller = caller


def add_on(bench: Bench, connection: Connection, key: str | None = None) -> list[int]:
    with bench.store.borrow(connection) as cycle:
        return cycle.add(an_add(key=key))


def test_a_job_is_stored_with_its_callers_commit(bench: Bench, caller: Connection) -> None:
    added = add_on(bench, caller), add_on(bench, caller)
    before = bench.value("SELECT count(*) FROM yaotask_jobs")
    caller.commit()

    assert (added, before) == (([1], [2]), 0)
    assert bench.value("SELECT count(*) FROM yaotask_jobs") == 2


def test_what_a_caller_rolls_back_was_never_there(bench: Bench, caller: Connection) -> None:
    add_on(bench, caller)
    caller.rollback()

    assert bench.value("SELECT count(*) FROM yaotask_jobs") == 0


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_who_cannot_see_that_a_key_was_used_is_to_begin_anew(bench: Bench, caller: Connection, level: str) -> None:
    caller.exec_driver_sql(f"SET TRANSACTION ISOLATION LEVEL {level}")
    caller.exec_driver_sql("SELECT count(*) FROM yaotask_jobs")
    bench.add(key="k")
    with pytest.raises(StorageBusy, match="'k' was used since this transaction began: roll it back"):
        add_on(bench, caller, "k")
    (other,) = add_on(bench, caller, "other")
    caller.rollback()

    assert other > 1
    assert add_on(bench, caller, "k") == [1]


def test_who_cannot_be_in_one_order_with_others_is_to_begin_anew(
    bench: Bench, caller: Connection, other_caller: Connection
) -> None:
    for connection in (caller, other_caller):
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        connection.exec_driver_sql("SELECT count(*) FROM yaotask_jobs")
    add_on(bench, other_caller, "k")
    other_caller.commit()

    with pytest.raises(StorageBusy, match="nothing of this one is stored: roll it back and do all of it again"):
        add_on(bench, caller, "k")


def test_a_connection_in_autocommit_is_refused(bench: Bench, outside: Connection) -> None:
    with pytest.raises(TransactionError, match="AUTOCOMMIT"):
        add_on(bench, outside)

    assert bench.value("SELECT count(*) FROM yaotask_jobs") == 0


@pytest.mark.parametrize("encoding", ["latin1", "win1252"])
def test_a_connection_that_cannot_hold_every_text_is_refused(bench: Bench, url: URL, encoding: str) -> None:
    engine = create_engine(url.update_query_dict({"client_encoding": encoding}), poolclass=NullPool)
    with engine.connect() as connection, pytest.raises(TransactionError, match=r"\?client_encoding=utf8"):
        add_on(bench, connection)


def test_a_transaction_begun_by_hand_is_joined(bench: Bench, outside: Connection) -> None:
    outside.exec_driver_sql("BEGIN")
    added = add_on(bench, outside)
    outside.exec_driver_sql("ROLLBACK")

    assert added == [1]
    assert bench.value("SELECT count(*) FROM yaotask_jobs") == 0


def test_another_database_is_refused_and_its_transaction_goes_on(
    bench: Bench, servers: Servers, tmp_path: Path
) -> None:
    with servers.database("postgresql") as other:
        engine = create_engine(other, poolclass=NullPool)
        with engine.connect() as connection:
            connection.exec_driver_sql("CREATE TABLE mine (a integer)")
            with pytest.raises(StorageUnavailable, match="its own database"):
                add_on(bench, connection)
            connection.commit()
            open_elsewhere(other, tmp_path / "other").close()
            with pytest.raises(StorageUnavailable, match="its own database"):
                add_on(bench, connection)

            assert connection.exec_driver_sql("SELECT count(*) FROM mine").scalar() == 0


def test_another_kind_of_database_is_refused(bench: Bench) -> None:
    with (
        create_engine("sqlite://", poolclass=NullPool).connect() as connection,
        pytest.raises(StorageUnavailable, match="it is to sqlite"),
    ):
        add_on(bench, connection)


# --- a handler's transaction --------------------------------------------------------------------------

COMMITS = (
    "COMMIT",
    "end",
    "SELECT 1; COMMIT",
    "commit and chain",
    "/* a /* nested */ one */ COMMIT",
    "-- said\nCOMMIT;",
    "SELECT ';' ; SELECT $$;$$; END TRANSACTION",
    r"SELECT E'\''; COMMIT; --'",
    "PREPARE TRANSACTION 'x'",
    ";;COMMIT",
)
ROLLBACKS = ("ROLLBACK", "abort", "SELECT 1; ROLLBACK WORK", "rollback/* to */", "ABORT AND CHAIN")
HARMLESS = (
    "SELECT CASE WHEN true THEN 1 END",
    "SELECT 'COMMIT; COMMIT'",
    'SELECT 1 AS "a; COMMIT"',
    "SELECT $tag$; COMMIT; $tag$",
    "DO $$ BEGIN PERFORM 1; END $$",
    "ROLLBACK TO SAVEPOINT a",
    "rollback work to a",
    "ROLLBACK TRANSACTION TO SAVEPOINT a",
    "PREPARE q AS SELECT 1",
    "INSERT INTO endings VALUES (1)",
    "SELECT 1 -- ; COMMIT",
    "/* ; COMMIT */ SELECT 1",
    r"SELECT 'a\'; SELECT 1 AS committed",
)


@pytest.mark.parametrize("statement", COMMITS)
def test_statements_that_commit_are_found(statement: str) -> None:
    assert ending_in(statement) == "commit"


@pytest.mark.parametrize("statement", ROLLBACKS)
def test_statements_that_roll_back_are_found(statement: str) -> None:
    assert ending_in(statement) == "rollback"


@pytest.mark.parametrize("statement", HARMLESS)
def test_statements_that_end_no_transaction_are_let_through(statement: str) -> None:
    assert ending_in(statement) is None


def test_backslashes_are_read_as_the_server_reads_them() -> None:
    hidden = r"SELECT 'a\'; COMMIT; --'"

    assert ending_in(hidden) == "commit"
    assert ending_in(hidden, plain_backslashes=False) is None


@pytest.mark.parametrize("statement", ["SELECT 1; COMMIT", b"COMMIT", "/* */ END"])
def test_the_drivers_own_cursor_cannot_commit(bench: Bench, transaction: Transaction, statement: Any) -> None:
    transaction.connection.execute(INSERT)
    raw: Any = transaction.connection.connection

    with pytest.raises(TransactionError, match="return to commit"):
        raw.cursor().execute(statement)
    with pytest.raises(TransactionError, match="return to commit"):
        raw.execute(statement)
    transaction.rollback()
    assert ledger(bench) == 0


def test_a_commit_that_slips_through_ends_the_connection(bench: Bench, claim: Claim, transaction: Transaction) -> None:
    raw: Any = transaction.connection.connection.driver_connection
    transaction.connection.execute(INSERT)
    with raw.lock:
        raw.pgconn.exec_(b"COMMIT")
    transaction.connection.exec_driver_sql("SELECT 1")

    with pytest.raises(TransactionError, match="behind its back"):
        transaction.finish(bench.end(claim))
    assert bench.state() is JobState.RUNNING


def test_a_failed_statement_spoils_the_transaction_and_says_how_not(
    bench: Bench, claim: Claim, transaction: Transaction
) -> None:
    transaction.connection.execute(INSERT)
    with pytest.raises(Exception, match="division by zero"):
        transaction.connection.exec_driver_sql("SELECT 1 / 0")

    with pytest.raises(TransactionError, match="begin_nested"):
        transaction.finish(bench.end(claim))
    assert (ledger(bench), bench.state()) == (0, JobState.RUNNING)


def test_a_failed_statement_in_a_savepoint_spoils_nothing(bench: Bench, claim: Claim, transaction: Transaction) -> None:
    transaction.connection.execute(INSERT)
    with pytest.raises(Exception, match="division by zero"), transaction.connection.begin_nested():
        transaction.connection.exec_driver_sql("SELECT 1 / 0")

    assert transaction.finish(bench.end(claim))
    assert ledger(bench) == 1


def test_a_rule_that_is_looked_at_last_refuses_the_commit(bench: Bench, claim: Claim) -> None:
    bench.write("CREATE TABLE child (parent bigint REFERENCES yaotask_jobs (key) DEFERRABLE INITIALLY DEFERRED)")
    transaction = bench.store.transaction()
    transaction.connection.exec_driver_sql("INSERT INTO child VALUES (99)")

    with pytest.raises(TransactionError, match="foreign key"):
        transaction.finish(bench.end(claim))
    assert bench.state() is JobState.RUNNING


def test_rows_still_on_the_server_are_not_fetched_after_expiry(transaction: Transaction) -> None:
    numbers = text("SELECT generate_series(1, 100000)").execution_options(stream_results=True)
    rows = transaction.connection.execute(numbers)
    rows.fetchone()
    in_thread(transaction.expire)

    with pytest.raises(TransactionTooLong):
        rows.fetchall()


def test_a_handler_that_streams_cannot_hold_its_transaction_open(transaction: Transaction, outside: Connection) -> None:
    session = pid(transaction.connection)
    raw: Any = transaction.connection.connection.driver_connection
    rows = raw.cursor().stream("SELECT generate_series(1, 10000000)")
    next(rows)
    in_thread(transaction.expire)

    assert transaction.expired
    with pytest.raises(TransactionTooLong):
        raw.execute("SELECT 1")
    with pytest.raises(Exception, match=r"too long|connection|cancel"):
        for _ in rows:
            pass
    alive = text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid AND state <> 'idle'")
    while outside.execute(alive, {"pid": session}).scalar():
        pass  # it ends by itself; the time limit of the test sees that it does


def test_a_connection_that_was_lost_ends_the_transaction(
    bench: Bench, claim: Claim, transaction: Transaction, outside: Connection
) -> None:
    transaction.connection.execute(INSERT)
    kill(outside, pid(transaction.connection))

    with pytest.raises(StorageUnavailable):
        transaction.finish(bench.end(claim))
    assert (ledger(bench), bench.state()) == (0, JobState.RUNNING)


# --- errors -------------------------------------------------------------------------------------------


def kill(outside: Connection, session: int) -> None:
    """End a session of the server, and see it ended."""
    ended = outside.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": session}).scalar()
    assert ended


def test_a_connection_that_was_lost_while_idle_is_made_anew(bench: Bench, outside: Connection) -> None:
    bench.add()
    kill(outside, int(bench.store._look("SELECT pg_backend_pid()").scalar()))
    added = bench.add_one()
    with bench.store.reading() as connection:
        reader = pid(connection)
    kill(outside, reader)

    assert bench.row(added)["id"] == 2


def test_a_connection_that_is_lost_within_a_transaction_stores_nothing(bench: Bench, outside: Connection) -> None:
    def work(connection: Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE made (a integer)")
        kill(outside, pid(connection))
        execute(connection, "SELECT 1")

    with pytest.raises(StorageUnavailable):
        bench.store.write(work)
    assert bench.value("SELECT to_regclass('made')") is None
    assert bench.add_one() == 1


def test_a_commit_that_is_lost_leaves_the_outcome_unknown(bench: Bench, outside: Connection) -> None:
    with pytest.raises(OutcomeUnknown):
        bench.store.write(lambda connection: kill(outside, pid(connection)))

    assert bench.add_one() == 1


def refusal(url: URL, root: Path) -> StorageError:
    with pytest.raises(StorageError) as caught:
        open_elsewhere(url, root)
    return caught.value


def test_what_cannot_be_opened_says_why_and_what_to_do(url: URL, tmp_path: Path) -> None:
    password = "s3cret-word"
    refusals = {
        "nobody": refusal(URL.create("postgresql", "me", password, "127.0.0.1", 1, "jobs"), tmp_path / "nobody"),
        "database": refusal(url.set(database="nowhere"), tmp_path / "database"),
        "user": refusal(url.set(username="nobody", password=password), tmp_path / "user"),
        "option": refusal(url.update_query_dict({"sslmode": "perhaps", "password": password}), tmp_path / "option"),
        "prepare": refusal(url.update_query_dict({"prepare_threshold": "some"}), tmp_path / "prepare"),
    }

    assert "nobody answers there" in str(refusals["nobody"])
    assert "create it, or correct the address" in str(refusals["database"])
    assert "the user or the password is wrong" in str(refusals["user"])
    assert "sslmode" in str(refusals["option"])
    assert "whole number" in str(refusals["prepare"])
    assert not [refused for refused in refusals.values() if password in str(refused)]
    assert all(isinstance(refused, StorageUnavailable) for refused in refusals.values())


def test_an_address_is_told_with_what_libpq_knows_to_be_harmless() -> None:
    harmless = "postgresql://me@/db?host=%2Fa+b&options=-c+search_path%3Da&prepare_threshold=5&sslmode=require"

    assert dialect_of(make_url(harmless)).label == harmless
    assert dialect_of(make_url(f"{harmless}&user_passwrd=hidden")).label == f"{harmless}&user_passwrd=***"


NOT_TAKEN = {
    "host=a,b&port=1,2,3": "as many ports as hosts",
    "port=abc": "as many ports as hosts",
    "connect_timeout=abc": "connect_timeout must be a number of seconds",
    "connect_timeout=5&connect_timeout=6": "connect_timeout is in the address twice",
    "sslmode=require&sslmode=disable": "sslmode is in the address twice",
    "row_factory=abc": "row_factory is no option",
    "context=abc": "context is no option",
}


@pytest.mark.parametrize("query", NOT_TAKEN)
def test_what_an_address_asks_that_the_driver_does_not_take_is_refused(tmp_path: Path, query: str) -> None:
    there = place(tmp_path, f"postgresql://me:se-cret@127.0.0.1:1/db?{query}")
    for use in (
        lambda: open_store(there, ManualClock(), EvenChance()),
        lambda: scripting.script(there, SystemChance()),
    ):
        with pytest.raises(StorageUnavailable, match=NOT_TAKEN[query]) as caught:
            use()

        assert "se-cret" not in str(caught.value)


def test_so_is_a_host_that_can_be_none(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable, match="connection failed"):
        open_store(place(tmp_path, "postgresql://me:se-cret@db..example/db"), ManualClock(), EvenChance())


@pytest.mark.parametrize("hosts", [["/nowhere,{here}"], ["/nowhere", "{here}"]], ids=["listed", "repeated"])
def test_one_port_may_be_that_of_all_hosts(url: URL, tmp_path: Path, hosts: list[str]) -> None:
    here = [host.format(here=url.query["host"]) for host in hosts]
    there = url.update_query_dict({"host": here if len(here) > 1 else here[0], "port": "5432"})
    store = open_elsewhere(there, tmp_path / "here")
    notices = store.listen()
    assert notices is not None
    notices.close()
    store.close()


def test_who_has_used_up_what_its_user_may_have_is_not_told_of_passwords(
    url: URL, outside: Connection, tmp_path: Path
) -> None:
    user = f"few_{url.database}"
    outside.exec_driver_sql(f"CREATE ROLE {user} LOGIN CONNECTION LIMIT 0")
    try:
        refused = str(refusal(url.set(username=user), tmp_path / "here"))
    finally:
        outside.exec_driver_sql(f"DROP ROLE {user}")

    assert "too many connections for role" in refused
    assert "CONNECTION LIMIT" in refused
    assert "password" not in refused


def test_a_connection_that_was_ended_because_it_was_idle_is_told_as_that(bench: Bench) -> None:
    """As the server says it: whether libpq hands that on, or only that it has hung up, is chance."""
    idle = psycopg.errors.IdleSessionTimeout("terminating connection due to idle-session timeout")

    assert "longer than idle_session_timeout" in str(bench.store.dialect.errors.explain(idle))


def test_who_listens_is_not_ended_for_being_idle(url: URL, outside: Connection, tmp_path: Path) -> None:
    outside.exec_driver_sql(f"ALTER DATABASE {url.database} SET idle_session_timeout = '1h'")
    store = open_elsewhere(url, tmp_path / "here")
    notices = cast("Any", store.listen())
    with store.reading() as connection:
        assert connection.exec_driver_sql("SHOW idle_session_timeout").scalar() == "1h"
    row = notices._connection.execute("SHOW idle_session_timeout").fetchone()
    notices.close()
    store.close()

    assert row == ("0",)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (psycopg.errors.AdminShutdown("terminating connection"), "it shuts down, or somebody has ended the session"),
        (psycopg.errors.CannotConnectNow("the database system is starting up"), "shutting down or starting"),
        (
            psycopg.OperationalError("connection failed: server does not support SSL, but SSL was required"),
            "the server has no TLS: switch `ssl` on there",
        ),
        (psycopg.ProgrammingError('invalid connection option "sslmod"'), "an option behind the `?`"),
        (psycopg.OperationalError('connection is bad: invalid sslmode value: "foo"'), "an option behind the `?`"),
        (
            psycopg.OperationalError('connection is bad: definition of service "a" not found'),
            "no service file has this service",
        ),
        (psycopg.OperationalError("connection failed: fe_sendauth: no password supplied"), "the password is wrong"),
        (psycopg.OperationalError("failed to resolve host 'nowhere'"), "nobody answers there"),
        (psycopg.OperationalError("server closed the connection unexpectedly"), "has hung up: see its log"),
        (
            psycopg.errors.ProtocolViolation("transaction blocks not allowed in statement pooling mode"),
            "set its pool_mode to transaction",
        ),
        (psycopg.errors.ProtocolViolation("query_wait_timeout"), "let its pool (default_pool_size) be larger"),
        (psycopg.errors.ProtocolViolation("database removed"), "try again when it is up"),
        (psycopg.errors.ProtocolViolation("invalid message format"), "invalid message format"),
    ],
)
def test_errors_say_what_to_do(bench: Bench, error: psycopg.Error, advice: str) -> None:
    assert advice in str(bench.store.dialect.errors.explain(error))


REFUSED: dict[str, tuple[str, type[StorageError], str]] = {
    "read only": ("SET LOCAL transaction_read_only = on; DELETE FROM yaotask_ids", StorageUnavailable, "only be read"),
    "no right": (
        "CREATE ROLE guest; SET LOCAL ROLE guest; DELETE FROM yaotask_ids",
        StorageUnavailable,
        "lacks a right",
    ),
    "no table": ("DROP TABLE yaotask_ids; DELETE FROM yaotask_ids", StorageUnavailable, "a table is missing"),
    "too slow": ("SET LOCAL statement_timeout = 1; SELECT pg_sleep(10)", StorageBusy, "statement_timeout"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_server_refuses_says_what_to_do_without_the_statement(bench: Bench, name: str) -> None:
    refused, kind, words = REFUSED[name]

    def work(connection: Connection) -> None:
        for statement in refused.split("; "):
            connection.exec_driver_sql(statement)

    with pytest.raises(kind, match=words) as caught:
        bench.store.write(work)
    assert "FROM yaotask_ids" not in str(caught.value)


def test_a_locked_row_is_busy_after_lock_timeout(bench: Bench, caller: Connection) -> None:
    bench.add(size=1)
    bench.store.writer.patience = 0
    caller.exec_driver_sql("SELECT * FROM yaotask_sizes FOR UPDATE")

    def work(connection: Connection) -> int:
        connection.exec_driver_sql("SET LOCAL lock_timeout = 1")
        return bench.store.dialect.statements.waiting(connection, "mail")

    with pytest.raises(StorageBusy, match="lock_timeout"):
        bench.store.write(work)
    caller.rollback()


def test_who_has_to_give_way_is_done_once_more(bench: Bench, open_bench: Callable[[], Bench]) -> None:
    other = open_bench()
    bench.write("CREATE TABLE pair (name integer PRIMARY KEY, value integer)")
    bench.write("INSERT INTO pair VALUES (1, 0), (2, 0)")
    both = threading.Barrier(2)
    written = {1: threading.Event(), 2: threading.Event()}
    tries: list[int] = []

    def cross(store: SqlStore, first: int, second: int) -> None:
        def work(connection: Connection) -> None:
            again = first in tries
            tries.append(first)
            if again:  # or it could take its row before the other wakes, and cross it once more
                assert written[second].wait(PATIENCE)
            change = "UPDATE pair SET value = value + 1 WHERE name = %(name)s"
            connection.exec_driver_sql("SET LOCAL deadlock_timeout = '10ms'")
            connection.exec_driver_sql(change, {"name": first})
            if not again:
                both.wait(PATIENCE)
            connection.exec_driver_sql(change, {"name": second})

        store.write(work)
        written[first].set()

    with ThreadPoolExecutor(2) as threads:
        writing = [threads.submit(cross, bench.store, 1, 2), threads.submit(cross, other.store, 2, 1)]
        for one in writing:
            one.result(PATIENCE)

    assert len(tries) == 3
    assert [row["value"] for row in bench.query("SELECT value FROM pair")] == [2, 2]


def test_a_used_key_answers_its_first_job_though_two_add_at_once(open_bench: Callable[[], Bench]) -> None:
    benches = [open_bench(), open_bench()]
    both = threading.Barrier(2)

    def add(bench: Bench) -> list[list[int]]:
        both.wait(PATIENCE)
        return [bench.add(key=f"k{number}") for number in range(30)]

    with ThreadPoolExecutor(2) as threads:
        one, other = [adding.result(PATIENCE) for adding in [threads.submit(add, bench) for bench in benches]]

    assert one == other
    assert benches[0].value("SELECT count(*) FROM yaotask_jobs") == 30


def test_a_taken_id_is_told_from_a_used_key(bench: Bench) -> None:
    bench.add(id=7)
    taken, free = bench.adds(an_add(id=7), an_add(id=8))

    assert "mail.7 exists already" in str(taken.error)
    assert answer(free) == [8]
