"""What only MySQL and MariaDB have: their texts, their ways to end a transaction, their errors and plans."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest
import transitions
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import Connection
from sqlalchemy.engine.url import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from store_support import INSERT, Bench, EvenChance, ManualClock, an_add, in_thread, ledger

from yaotask.chance import SystemChance
from yaotask.errors import (
    DuplicateJobId,
    StorageBusy,
    StorageError,
    StorageFull,
    StorageUnavailable,
    TransactionError,
    TransactionTooLong,
)
from yaotask.events import ADD_BIT, CANCEL_BIT, EventKind
from yaotask.jobs import Claim, Failed, Failure, JobState, Succeeded
from yaotask.store import migrations, statements
from yaotask.store.dialects import mysql_address, mysql_creating, mysql_database
from yaotask.store.dialects import mysql_statements as sql
from yaotask.store.dialects.mysql import MysqlDialect
from yaotask.store.dialects.mysql_endings import ending_in
from yaotask.store.dialects.mysql_errors import MysqlErrors, index_of
from yaotask.store.direct import Answer, execute, in_style
from yaotask.store.opening import Place, open_store, place
from yaotask.store.scripting import script
from yaotask.store.sql import SqlStore
from yaotask.store.transactions import Transaction
from yaotask.values import loads

pytest_plugins = ["store_fixtures"]
pytestmark = pytest.mark.only_on("mariadb")

ODD = '{"b": 1.0, "a": "q\\"uote \\\\ \\u0000 \\n é 😀 \' % :x",  "b2": 12345678901234567890123}'


@pytest.fixture
def engine(here: Place) -> Iterator[Engine]:
    """Somebody's own, to the same database."""
    engine = create_engine(here.url.set(drivername="mysql+pymysql"), connect_args={"ssl_disabled": True})
    yield engine
    engine.dispose()


# --- texts and names -----------------------------------------------------------------------------------


def test_texts_are_stored_byte_for_byte(bench: Bench) -> None:
    bench.add(args=f"[{ODD}]", created_by='it\'s \\ "me" 😀')
    claim = bench.claim_one()
    bench.finish(claim, Succeeded(ODD))

    assert bench.row()["args"] == f"[{ODD}]"
    assert bench.row()["result"] == ODD
    assert (claim.args, claim.created_by) == ([loads(ODD)], 'it\'s \\ "me" 😀')


def test_an_error_may_hold_anything(bench: Bench) -> None:
    bench.add()
    bench.finish(bench.claim_one(), Failed(Failure("E", "a\x00b 😀 '\\", "x" * 100_000)))

    assert (bench.row()["error"], len(bench.row()["traceback"])) == ("a\x00b 😀 '\\", 100_000)


def test_names_are_compared_by_their_bytes(bench: Bench) -> None:
    for task in ("mail", "Mail", "mail ", "maíl"):
        bench.adds(an_add(task=task, id=1, key="k"))
    for key in ("key", "KEY", "key "):
        bench.add(key=key)

    assert bench.value("SELECT count(*) FROM yaotask_jobs") == 7
    assert [len(bench.claim(task=task)) for task in ("Mail", "mail ", "MAIL", "mail")] == [1, 1, 0, 4]


def test_a_taken_id_and_a_used_key_are_told_apart(bench: Bench) -> None:
    bench.add(id=5, key="it's")
    with pytest.raises(DuplicateJobId):
        bench.add(id=5)

    assert bench.add(key="it's") == [5]
    error = pymysql.IntegrityError(
        1062, "Duplicate entry 'x'.y-'yaotask_jobs_id'' for key 'yaotask_jobs.yaotask_jobs_key'"
    )
    assert index_of(error) == "yaotask_jobs_key"


def test_a_used_key_is_known_however_much_of_it_the_server_quotes() -> None:
    error = pymysql.IntegrityError(1062, f"Duplicate entry 'mail-{'k' * 400}' for key 'yaotask_jobs.yaotask_jobs_key'")

    assert index_of(error) == "yaotask_jobs_key"


# --- sessions ------------------------------------------------------------------------------------------


@pytest.fixture
def open_with(here: Place, clock: ManualClock) -> Iterator[Callable[[str], Bench]]:
    """Opens the store as on a server that begins each session with these settings."""
    opened: list[SqlStore] = []

    def open_(settings: str) -> Bench:
        url = here.url.update_query_dict({"init_command": f"SET SESSION {settings}"})
        opened.append(open_store(Place(url, here.state), clock, EvenChance()))
        return Bench(opened[-1], clock)

    yield open_
    for store in opened:
        store.close()


SESSIONS = {
    "Oracle's words": "sql_mode = 'ORACLE'",
    "safe updates": "sql_safe_updates = 1",
    "chained": "completion_type = 'CHAIN'",
    "released": "completion_type = 'RELEASE'",
}


@pytest.mark.parametrize("name", SESSIONS)
def test_jobs_run_whatever_a_session_begins_with(open_with: Callable[[str], Bench], name: str) -> None:
    bench = open_with(SESSIONS[name])
    bench.write("CREATE TABLE ledger (amount INTEGER)")
    bench.add(2)
    claim, within = bench.claim(2)
    transaction = bench.store.transaction()
    transaction.connection.execute(INSERT)

    assert bench.finish(claim)
    assert transaction.finish(bench.end(within))
    assert (ledger(bench), bench.store.writer.connections) == (1, 1)


@pytest.mark.parametrize("name", SESSIONS)
def test_after_a_commit_no_transaction_is_left_open(open_with: Callable[[str], Bench], name: str) -> None:
    bench = open_with(SESSIONS[name])
    bench.add()

    assert bench.store._look("SELECT @@in_transaction").scalar() == 0


# --- many at once --------------------------------------------------------------------------------------


def test_claims_pass_over_what_others_are_taking(bench: Bench) -> None:
    bench.add(4)
    with bench.store.dialect.engine(writer=True).connect() as other:
        execute(other, "BEGIN")
        taken = execute(other, sql.SELECT_CLAIMS, {"task": "mail", "most": 2, "now": 1, "fence": 1}).all()
        ours = [claim.id for claim in bench.claim()]

    assert [row.key for row in taken] == [1, 2]
    assert ours == [3, 4]


def test_what_gives_way_is_done_again(bench: Bench, engine: Engine) -> None:
    bench.add(2)
    done: list[list[int]] = []
    with engine.connect() as other:
        other.execute(text("UPDATE yaotask_sizes SET waiting = waiting"))
        other.exec_driver_sql("INSERT INTO yaotask_ids VALUES ('other', 7)")
        thread = threading.Thread(target=lambda: done.append(bench.add(1, task="other")))
        thread.start()
        other.rollback()
        thread.join()

    assert done == [[1]]


def test_the_size_is_one_row_even_when_two_look_first(bench: Bench) -> None:
    ask = bench.store.dialect.statements.waiting
    first = bench.store.write(lambda connection: ask(connection, "new"))

    assert first == 0
    assert bench.query("SELECT task, waiting FROM yaotask_sizes") == [{"task": "new", "waiting": 0}]


def test_ids_are_reserved_in_blocks_that_follow_each_other(bench: Bench) -> None:
    reserve = bench.store.dialect.statements.reserve_ids
    with bench.store.reading() as connection:
        alone = [reserve(connection, "t", 1), reserve(connection, "t", 10)]
    within = bench.store.write(lambda connection: reserve(connection, "t", 5))

    assert [*alone, within] == [1, 2, 12]


# --- plans ---------------------------------------------------------------------------------------------


def plan(bench: Bench, statement: str, **values: Any) -> list[dict[str, Any]]:
    found = {name.lower(): value for name, value in values.items()}
    with bench.store.reading() as connection:
        rows = connection.exec_driver_sql(in_style(f"EXPLAIN {statement}", "mysql"), found).mappings()
        return [dict(row) for row in rows]


@pytest.fixture
def crowded(bench: Bench) -> Bench:
    """Beside a few that are ready, many that will be or have been."""
    bench.add(20)
    bench.add(1_000, run_at=bench.clock.now() + 10**12)
    bench.add(1_000, task="other")
    with bench.store.reading() as connection:
        transitions.release(connection)
        # At once: what had been in the index of workers would count there until it is purged.
        connection.exec_driver_sql("UPDATE yaotask_jobs SET state = 2, finished_at = 1 WHERE task = 'other'")
        connection.exec_driver_sql("ANALYZE TABLE yaotask_jobs").all()
    return bench


def test_a_claim_reads_only_what_is_ready_and_in_order(crowded: Bench) -> None:
    steps = plan(crowded, sql.SELECT_CLAIMS, task="mail", most=10, now=1, fence=1)
    (step,) = (step for step in steps if step["table"] == "yaotask_jobs")

    assert step["key"] == "yaotask_jobs_ready"
    assert int(step["rows"]) <= 20
    assert "filesort" not in step["Extra"]


LOOKS = {
    "ready": (statements.ANY_READY, "yaotask_jobs_ready"),
    "due": (statements.NEXT_DUE, "yaotask_jobs_due"),
    "before claims": (statements.BEFORE_CLAIMS, "yaotask_jobs_due"),
    "orphans": (statements.ORPHANS, "yaotask_jobs_cancelling"),
    "running": (statements.UNSETTLED[2], "yaotask_jobs_cancelling"),
    "retrying": (statements.UNSETTLED[1], "yaotask_jobs_unsuccessful"),
    "claims": (statements.CLAIMS_OF, "yaotask_jobs_cancelling"),
}


@pytest.mark.parametrize("name", LOOKS)
def test_looks_have_an_index(crowded: Bench, name: str) -> None:
    statement, index = LOOKS[name]
    steps = plan(crowded, statement, task="mail", worker=7, most=5)

    assert [step["key"] for step in steps if step["table"] == "yaotask_jobs"] == [index], steps


BATCHES = ["TAKE_CLAIMS", "FINISH_SUCCESS", "FINISH_OTHER", "STORE_STARTED", "LOCK_JOBS", "PROMOTE", "RELEASE_HELD"]


@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_goes_from_its_rows_to_the_keys(crowded: Bench, name: str) -> None:
    values = {"rows": "[]", "keys": "[1]", "worker": 1, "now": 1, "fence": 1, "most": 5}
    (step,) = (step for step in plan(crowded, getattr(sql, name), **values) if step["table"] == "jobs")

    assert (step["type"], step["key"]) == ("eq_ref", "PRIMARY")


# --- creating ------------------------------------------------------------------------------------------


def test_what_was_left_half_made_is_made_anew(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    dialect = here.dialect()
    with dialect.engine(writer=True).connect() as connection:
        migrations.create(connection, "dead", dialect.database.furnish)
        connection.exec_driver_sql("DELETE FROM yaotask_meta")
    bench = Bench(open_store(here, ManualClock(), EvenChance()), ManualClock())
    bench.add()

    assert bench.value("SELECT count(*) FROM yaotask_jobs") == 1
    bench.store.close()


FOREIGN = {
    "empty": "CREATE TABLE yaotask_meta (name VARCHAR(255) PRIMARY KEY, value LONGTEXT NOT NULL)",
    "full": "CREATE TABLE yaotask_jobs AS SELECT 1 AS precious",
    "view": "CREATE VIEW yaotask_jobs_readable AS SELECT 1 AS precious",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_somebody_elses_is_never_dropped(here: Place, engine: Engine, name: str) -> None:
    with engine.connect() as other:
        other.exec_driver_sql(FOREIGN[name])
        before = other.exec_driver_sql("SHOW TABLES").all()
        with pytest.raises(StorageUnavailable, match=r"holds yaotask_.*, but no yaotask store: .*another database"):
            open_store(here, ManualClock(), EvenChance())

        assert other.exec_driver_sql("SHOW TABLES").all() == before


def test_a_store_that_lost_its_name_keeps_its_jobs(bench: Bench, here: Place) -> None:
    bench.add()
    bench.write("DELETE FROM yaotask_meta")
    here.marker.unlink()
    with pytest.raises(StorageUnavailable, match=r"yaotask_jobs, but no yaotask store: .*from a backup"):
        open_store(here, ManualClock(), EvenChance())

    assert bench.value("SELECT count(*) FROM yaotask_jobs") == 1


def test_who_comes_second_finds_the_store_of_the_first(here: Place) -> None:
    dialect = here.dialect()
    with dialect.engine(writer=True).connect() as one, dialect.engine(writer=True).connect() as two:
        dialect.database.create(one, lambda within: migrations.create(within, "first", dialect.database.furnish))
        dialect.database.create(two, lambda within: migrations.create(within, "second", dialect.database.furnish))

        assert migrations.store_id(two) == "first"


def test_without_locks_the_second_waits_for_the_first(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mysql_creating, "_ask_for_lock", lambda _: False)
    dialect = here.dialect()

    def while_first_makes(within: Connection) -> None:
        in_thread(lambda: open_store(here, ManualClock(), EvenChance()).close())
        migrations.create(within, "second", dialect.database.furnish)

    with dialect.engine(writer=True).connect() as connection:
        dialect.database.create(connection, while_first_makes)

        assert migrations.store_id(connection) == f"{1:032x}"


# --- a job's transaction -------------------------------------------------------------------------------

DEFINITIONS = [
    "CREATE TABLE x (a INT)",
    "ALTER TABLE ledger ADD b INT",
    "TRUNCATE ledger",
    "/*!50000 DROP */ TABLE ledger",
]


@pytest.mark.parametrize("statement", DEFINITIONS)
def test_what_would_commit_by_the_way_is_refused(
    bench: Bench, claim: Claim, transaction: Transaction, statement: str
) -> None:
    transaction.connection.execute(INSERT)
    with pytest.raises(TransactionError, match="commits whatever is under way"):
        transaction.connection.exec_driver_sql(statement)
    before = ledger(bench)

    assert transaction.finish(bench.end(claim))
    assert (before, ledger(bench)) == (0, 1)


def test_a_procedure_that_commits_is_found_out(bench: Bench, claim: Claim) -> None:
    bench.write("CREATE PROCEDURE sneak() COMMIT")
    transaction = bench.store.transaction()
    transaction.connection.execute(INSERT)
    transaction.connection.exec_driver_sql("CALL sneak()")

    with pytest.raises(TransactionError, match="behind its back"):
        transaction.connection.execute(INSERT)
    with pytest.raises(TransactionError, match="behind its back"):
        transaction.finish(bench.end(claim))
    assert bench.state() is JobState.RUNNING


def test_after_a_deadlock_nothing_of_the_handler_is_stored(bench: Bench, claim: Claim, engine: Engine) -> None:
    bench.write("CREATE TABLE rows_ (a INT PRIMARY KEY, b INT)")
    bench.write("INSERT INTO rows_ SELECT seq, 0 FROM seq_1_to_100")
    transaction = bench.store.transaction()
    transaction.connection.execute(INSERT)
    transaction.connection.exec_driver_sql("UPDATE rows_ SET b = 1 WHERE a = 1")
    with engine.connect() as other:
        # The one that has changed more is spared.
        other.exec_driver_sql("UPDATE rows_ SET b = 2 WHERE a > 1")
        waits = threading.Thread(target=lambda: other.exec_driver_sql("UPDATE rows_ SET b = 2 WHERE a = 1"))
        waits.start()
        with pytest.raises(DBAPIError, match="Deadlock"):
            transaction.connection.exec_driver_sql("UPDATE rows_ SET b = 1 WHERE a = 2")
        waits.join()
        other.rollback()

    with pytest.raises(TransactionError, match="rolled the job's transaction back"):
        transaction.connection.execute(INSERT)
    with pytest.raises(TransactionError, match="rolled the job's transaction back"):
        transaction.finish(bench.end(claim))
    assert ledger(bench) == 0


SLOW: dict[str, Callable[[Connection], Any]] = {
    "asleep": lambda connection: connection.exec_driver_sql("SELECT sleep(60)"),
    "busy": lambda connection: connection.exec_driver_sql(
        "SELECT count(*) FROM seq_1_to_100000 AS a, seq_1_to_100000 AS b WHERE a.seq * b.seq %% 7 = 1"
    ),
}


@pytest.mark.parametrize("name", SLOW)
def test_expiry_stops_a_statement_on_the_server(bench: Bench, transaction: Transaction, name: str) -> None:
    transaction.connection.execute(INSERT)
    timer = threading.Timer(0.1, transaction.expire)
    timer.start()
    with pytest.raises(TransactionTooLong):
        SLOW[name](transaction.connection)
    timer.join()

    assert transaction.expired
    assert ledger(bench) == 0


def test_expiry_does_not_read_what_still_streams(bench: Bench, transaction: Transaction) -> None:
    transaction.connection.execute(INSERT)
    rows = transaction.connection.execution_options(stream_results=True).exec_driver_sql(
        "SELECT seq, repeat('x', 1000) FROM seq_1_to_100000"
    )
    rows.fetchone()
    in_thread(transaction.expire)

    with pytest.raises(TransactionTooLong):
        rows.fetchall()
    assert ledger(bench) == 0


WORDS = {
    "COMMIT": "commit",
    " -- so\n# and so\n/* so */ commit work": "commit",
    "SELECT 1; COMMIT": "commit",
    "/*! COMMIT */": "commit",
    "/*M!100000 ROLLBACK */": "rollback",
    "SET @@session.autocommit = 1": "commit",
    "START TRANSACTION READ ONLY": "commit",
    "BEGIN": "commit",
    "ROLLBACK": "rollback",
    "ROLLBACK TO SAVEPOINT a": None,
    "ROLLBACK WORK TO a": None,
    "SAVEPOINT a": None,
    "RELEASE SAVEPOINT a": None,
    "SELECT 'a;COMMIT'": None,
    "SELECT 'it\\';COMMIT'": None,
    "SELECT `a;COMMIT`": None,
    "SELECT 1 /* ; COMMIT */": None,
    "UPDATE a SET begin = 1": None,
    "CREATE TEMPORARY TABLE a (b INT)": None,
    "DROP TEMPORARY TABLE a": None,
    "DROP TABLE a": "definition",
    "lock tables a write": "definition",
    "LOAD DATA INFILE 'x' INTO TABLE a": None,
    "SELECT * FROM a FOR UPDATE": None,
}


@pytest.mark.parametrize("statement", WORDS)
def test_endings_are_found_in_the_text(statement: str) -> None:
    assert ending_in(statement) == WORDS[statement]


def test_without_backslashes_a_text_ends_at_its_quote() -> None:
    assert ending_in("SELECT '\\'; COMMIT", plain_backslashes=True) == "commit"


# --- callers' own transactions -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode", ["", "ANSI,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH,HIGH_NOT_PRECEDENCE", "ORACLE"]
)
def test_a_job_belongs_to_its_callers_transaction(bench: Bench, engine: Engine, mode: str) -> None:
    with engine.connect() as caller:
        caller.exec_driver_sql(f"SET SESSION sql_mode = '{mode}'")
        caller.rollback()
        for end in (caller.rollback, caller.commit):
            with bench.store.borrow(caller) as cycle:
                cycle.add(an_add(2, size=10, args=f"[{ODD}]"))
            end()

    assert [claim.args for claim in bench.claim()] == [[loads(ODD)]] * 2


def test_a_key_that_was_used_since_its_callers_snapshot_is_found(bench: Bench, engine: Engine) -> None:
    with engine.connect() as caller:
        caller.exec_driver_sql("SELECT count(*) FROM yaotask_jobs")
        bench.add(key="k")
        with bench.store.borrow(caller) as cycle:
            added = cycle.add(an_add(key="k"))

    assert added == [1]


def test_what_a_callers_snapshot_does_not_let_it_have_is_to_be_begun_anew(bench: Bench, engine: Engine) -> None:
    with engine.connect() as caller:
        caller.exec_driver_sql("SET SESSION innodb_snapshot_isolation = ON")
        caller.exec_driver_sql("SELECT count(*) FROM yaotask_jobs")
        bench.add(key="k")
        with pytest.raises(StorageBusy, match="roll it back"), bench.store.borrow(caller) as cycle:
            cycle.add(an_add(key="k"))


def test_a_caller_whose_transaction_was_given_up_is_told_to_begin_anew(bench: Bench, engine: Engine) -> None:
    bench.write("CREATE TABLE rows_ (a INT PRIMARY KEY, b INT)")
    bench.write("INSERT INTO rows_ SELECT seq, 0 FROM seq_1_to_100")
    with engine.connect() as caller, engine.connect() as other:
        caller.exec_driver_sql("UPDATE rows_ SET b = 1 WHERE a = 1")
        with bench.store.borrow(other) as cycle:
            cycle.add(an_add(key="k"))
        # The one that has changed more is spared.
        other.exec_driver_sql("UPDATE rows_ SET b = 2 WHERE a > 1")
        waits = threading.Thread(target=lambda: other.exec_driver_sql("UPDATE rows_ SET b = 2 WHERE a = 1"))
        waits.start()
        refused = pytest.raises(StorageBusy, match="nothing of this one is stored: roll it back and do all of it again")
        with refused, bench.store.borrow(caller) as cycle:
            cycle.add(an_add(key="k"))
        waits.join()


def test_a_connection_in_autocommit_is_refused(bench: Bench, engine: Engine) -> None:
    caller = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    with caller, pytest.raises(TransactionError, match="AUTOCOMMIT"), bench.store.borrow(caller):
        pass


@pytest.mark.parametrize("charset", ["latin1", "utf8"])
def test_a_connection_that_cannot_hold_every_text_is_refused(bench: Bench, engine: Engine, charset: str) -> None:
    url = engine.url.update_query_dict({"charset": charset})
    caller = create_engine(url, connect_args={"ssl_disabled": True}, poolclass=NullPool).connect()
    with caller, pytest.raises(TransactionError, match=r"\?charset=utf8mb4"), bench.store.borrow(caller) as cycle:
        cycle.add(an_add(args='["😀"]'))


def test_a_connection_to_another_database_is_refused(bench: Bench, here: Place, engine: Engine) -> None:
    other = create_engine(engine.url.set(database="mysql"), connect_args={"ssl_disabled": True})
    caller = other.connect()
    with caller, pytest.raises(StorageUnavailable, match="another database"), bench.store.borrow(caller):
        pass
    other.dispose()


# --- the server ----------------------------------------------------------------------------------------


def test_it_says_what_it_is_and_that_it_is_sound(bench: Bench) -> None:
    with bench.store.reading() as connection:
        facts = bench.store.dialect.database.facts(connection)
        faults = [
            bench.store.dialect.database.fault(connection, tables) for tables in (None, ["yaotask_meta", "yaotask_ids"])
        ]

    assert str(facts["engine"]).startswith("MariaDB 1")
    assert facts["bytes"] > 10_000
    assert faults == [None, None]


FRESH = "SET SESSION information_schema_stats_expiry = 0"


@pytest.mark.parametrize(("version", "times"), [("8.4.3", 1), ("11.4.2-MariaDB", 0)])
def test_only_mysql_has_to_be_kept_from_saying_how_large_it_was(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, version: str, times: int
) -> None:
    asked: list[str] = []

    def answers(_: Connection, statement: str) -> Answer:
        asked.append(statement)
        return Answer([(version, 0) if "version" in statement else (asked.count(FRESH), 0)], ("a", "b"), 1)

    monkeypatch.setattr(mysql_database, "execute", answers)
    with bench.store.reading() as connection:
        facts = bench.store.dialect.database.facts(connection)

    assert (facts["bytes"], asked.count(FRESH)) == (times, times)


@pytest.mark.parametrize("looked_at", [None, ["yaotask_meta"]])
def test_tables_without_transactions_are_told_and_mended_as_is_advised(
    bench: Bench, looked_at: list[str] | None
) -> None:
    bench.write("ALTER TABLE yaotask_events ENGINE = Aria")
    bench.write("ALTER TABLE yaotask_size_debts ENGINE = Aria")
    database = bench.store.dialect.database
    with bench.store.reading() as connection:
        told = database.fault(connection, looked_at)
        assert told is not None
        for statement in told.advice.partition("then ")[2].split("; "):
            connection.exec_driver_sql(statement)
        mended = database.fault(connection, looked_at)

    assert told.what == "yaotask_events is kept by Aria, which has no transactions"
    assert mended is None


def test_the_clock_is_the_servers_and_goes_on_in_a_transaction(bench: Bench, here: Place) -> None:
    dialect = MysqlDialect(here.url)
    with bench.store.snapshot() as connection:
        times = [dialect.now(connection, bench.clock) for _ in range(3)]

    assert times == sorted(set(times))
    assert abs(times[0] - bench.value("SELECT unix_timestamp(now(6)) * 1000000")) < 10_000_000


def test_a_snapshot_is_of_one_moment(bench: Bench) -> None:
    count = "SELECT count(*) FROM yaotask_jobs"
    with bench.store.snapshot() as connection:
        before = connection.exec_driver_sql(count).scalar()
        bench.add(3)
        within = connection.exec_driver_sql(count).scalar()

    assert (before, within, bench.value(count)) == (0, 0, 3)


CODES: dict[int, type[StorageError]] = {
    **dict.fromkeys((1213, 1205, 1020), StorageBusy),
    **dict.fromkeys((1021, 1114, 28), StorageFull),
    **dict.fromkeys((1040, 1045, 1049, 1053, 1142, 1153, 1290, 1836, 2003, 2006, 2013, 1064), StorageUnavailable),
}


@pytest.mark.parametrize("code", CODES)
def test_errors_come_in_our_words(code: int) -> None:
    error = MysqlErrors("mysql://me:***@there/db").explain(pymysql.OperationalError(code, "x" * 5_000))

    assert type(error) is CODES[code]
    assert "mysql://me:***@there/db" in str(error)
    assert len(str(error)) < 600


@pytest.mark.parametrize("code", [1820, 1862])
def test_an_expired_password_is_told_as_that(code: int) -> None:
    error = MysqlErrors("mysql://me:***@there/db").explain(pymysql.OperationalError(code, "You must SET PASSWORD"))

    assert "the password of this user has expired: set another, by ALTER USER" in str(error)


def test_where_transactions_can_only_read_it_is_told_what_to_do(
    bench: Bench, open_with: Callable[[str], Bench]
) -> None:
    reader = open_with("TRANSACTION READ ONLY")

    with pytest.raises(StorageUnavailable, match="use the primary server, or make this one writable"):
        reader.add()


def test_who_cannot_be_let_in_is_told_why_without_the_password(here: Place) -> None:
    wrong = {
        "user or the password": here.url.set(username="nobody_known", password="se-cret"),
        "no such database": here.url.set(database="missing", password=""),
        "cannot be reached": make_url("mysql://me:se-cret@127.0.0.1:1/db"),
    }
    for said, url in wrong.items():
        with pytest.raises(StorageUnavailable, match=said) as caught:
            open_store(Place(url, here.state), ManualClock(), EvenChance())

        assert "se-cret" not in str(caught.value)


# What the driver does not take, or what would keep it from working as it must, and what is said of it.
NOT_TAKEN = {
    "sslmode=require": "sslmode is no option",
    "read_timeout=0": "read_timeout must be a whole number of seconds from 1",
    "read_timeout=abc": "read_timeout must be a whole number of seconds from 1",
    "write_timeout=-1": "write_timeout must be a whole number of seconds from 1",
    "connect_timeout=0": "connect_timeout must be a whole number of seconds from 1",
    "connect_timeout=1.5": "connect_timeout must be a whole number of seconds from 1",
    "connect_timeout=31536001": "connect_timeout must be a whole number of seconds from 1",
    "connect_timeout=5&connect_timeout=6": "connect_timeout is in the address twice",
    "unix_socket=one&unix_socket=other": "unix_socket is in the address twice",
    "port=3306": "the port stands behind the host",
    "client_flag=abc": "client_flag must be a whole number",
    "local_infile=abc": "local_infile must be true or false",
    "defer_connect=true": "defer_connect is no option",
    "ssl=true": "ssl is no option",
    "conv=1": "conv is no option",
    "compress=1": "compress is no option",
    "self=1": "self is no option",
}


@pytest.mark.parametrize("query", NOT_TAKEN)
def test_what_an_address_asks_that_the_driver_does_not_take_is_refused(tmp_path: Path, query: str) -> None:
    there = place(tmp_path, f"mysql://me:se-cret@127.0.0.1:1/db?{query}")
    for use in (lambda: open_store(there, ManualClock(), EvenChance()), lambda: script(there, SystemChance())):
        with pytest.raises(StorageUnavailable, match=NOT_TAKEN[query]) as caught:
            use()

        assert "se-cret" not in str(caught.value)


def test_so_is_a_host_that_can_be_none(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable, match="cannot be reached"):
        open_store(place(tmp_path, "mysql://me:se-cret@db..example/db"), ManualClock(), EvenChance())


def test_what_the_driver_makes_of_text_is_not_of_the_address(here: Place) -> None:
    said = Place(here.url.update_query_dict({"use_unicode": "0", "charset": "latin1"}), here.state)
    store = open_store(said, ManualClock(), EvenChance())
    with store.reading() as connection:
        assert connection.exec_driver_sql("SELECT '世界'").scalar() == "世界"
    store.close()


def test_who_says_how_to_verify_keeps_the_authority_to_verify_by(here: Place) -> None:
    url = here.url.set(host="there", query={"ssl_ca": "/ours.pem", "ssl_verify_identity": "true"})

    options = mysql_address.driver_options(url)

    assert (options["ssl_ca"], options["ssl_verify_identity"]) == ("/ours.pem", True)
    assert "ssl_ca" not in mysql_address.driver_options(url.set(query={"ssl_ca": "/ours.pem"}))


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("8.0.16", "MySQL 8.0.16"),
        ("10.5.29-MariaDB", "MariaDB 10.5.29"),
        ("5.5.5-10.4.1-MariaDB-log", "MariaDB 10.4.1"),
    ],
)
def test_a_server_that_is_too_old_is_refused(version: str, name: str) -> None:
    with pytest.raises(StorageUnavailable, match=name):
        mysql_address.refuse_old(version, "there")


@pytest.mark.parametrize("version", ["8.0.17", "8.4.3", "9.1.0-commercial", "10.6.0-MariaDB", "11.4.2-MariaDB-ubu2404"])
def test_newer_servers_are_fine(version: str) -> None:
    mysql_address.refuse_old(version, "there")


def test_one_server_by_either_name_is_one_place(here: Place) -> None:
    names = [here.url.set(drivername=name) for name in ("mysql", "mariadb", "mysql+pymysql")]

    assert len({place(here.state.parent, str(name)).dialect().place for name in names}) == 1


# --- events -------------------------------------------------------------------------------------------


def test_of_two_events_of_a_job_that_a_select_finds_at_once_the_first_is_taken(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.add(events=ADD_BIT | CANCEL_BIT)
    bench.errand(lambda cycle: cycle.cancel("mail", 1))
    # As where both were stored after the statement began: what it locks is newer than what it knows of earlier ones.
    blind = sql.SELECT_DELIVERIES.replace("earlier.seq < event.seq", "earlier.seq < 0")
    monkeypatch.setattr(sql, "SELECT_DELIVERIES", blind)
    found = bench.cycle(worker=1, deliveries=10, delivery_tasks=("mail",)).deliveries
    meanwhile = bench.cycle(worker=2, deliveries=10, delivery_tasks=("mail",)).deliveries

    assert [one.kind for one in found] == [EventKind.ADD]
    assert meanwhile == []


def test_the_second_look_goes_by_the_keys_of_what_was_found(bench: Bench) -> None:
    bench.adds(an_add(200, events=ADD_BIT))
    assert sql.SECOND_LOOK is not None
    with bench.store.reading() as connection:
        steps = execute(connection, "EXPLAIN " + sql.SECOND_LOOK, {"seqs": '["1", "2"]'}).all()

    assert [step.key for step in steps if step.table in ("event", "earlier")] == ["PRIMARY", "yaotask_events_job"]
