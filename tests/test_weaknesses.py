"""What weakens a promise on a server is told, with what it means for jobs and what to do."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pymysql
import pytest
from fleet_folders import folder
from own_server import HONEST, Housing, OwnServer
from pymysql.constants import COMMAND
from replica_support import Pair
from run_support import command, until
from server_fixtures import Database
from servers import SERVERS
from sqlalchemy import make_url
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError
from store_support import Bench, EvenChance, ManualClock, connected

from yaotask.doctor import place as doctor
from yaotask.doctor.finding import Finding
from yaotask.store import checkup
from yaotask.store.dialects import mysql_weaknesses, weaknesses
from yaotask.store.opening import Place, open_store, place

pytest_plugins = ["own_server_fixtures", "store_fixtures"]

# Which setting of the tests' servers, that need not keep anything, is told by which words.
LOOSE: Mapping[str, set[str]] = {
    "postgresql": {"fsync is off", "full_page_writes is off", "synchronous_commit is off", "autovacuum is off"},
    "mariadb": {"innodb_flush_log_at_trx_commit is 0", "innodb_doublewrite is off"},
}
NOTHING = "nothing can be stored there"
STRICT: Mapping[str, Mapping[str, str]] = {
    "postgresql": {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "autovacuum": "on"},
    "mariadb": {"innodb-flush-log-at-trx-commit": "1", "innodb-doublewrite": "1"},
}


def found(there: Place) -> list[str]:
    """What is told of a store's server."""
    with checkup.looking(there) as connection:
        assert connection is not None
        return [weakness.what for weakness in checkup.weaknesses(there, connection)]


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that are begun from now on keep all; of their settings for crashes too these are what counts."""
    for kind, options in STRICT.items():
        monkeypatch.setattr(SERVERS[kind], "options", {**SERVERS[kind].options, **options})
        monkeypatch.setitem(HONEST, kind, options)


@pytest.mark.only_on("sqlite")
def test_a_file_has_no_server_that_could_be_weak(bench: Bench, here: Place) -> None:
    bench.add()

    assert found(here) == []


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_server_that_loses_commits_is_told(bench: Bench, here: Place, database: Database) -> None:
    bench.add()

    assert {what.partition(":")[0] for what in found(here)} == LOOSE[database.kind]


@pytest.mark.parametrize("server", list(SERVERS), indirect=True)
def test_of_a_server_that_keeps_all_nothing_is_told(tmp_path: Path, strict: None, server: OwnServer) -> None:
    root = folder(tmp_path, "a", server.database())
    assert command(root, "add", "hold").returncode == 0
    told = [line for line in command(root, "doctor").stdout.splitlines() if " server: " in line]

    assert told == ["ok     server: what it has committed it keeps"]


@pytest.fixture(params=[("3", []), ("2", ["innodb_flush_log_at_trx_commit is 2"])], ids=lambda param: param[0])
def flushing(strict: None, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> list[str]:
    """MariaDB writes commits to the disk in this way; what is told of it."""
    how, told = request.param
    monkeypatch.setitem(HONEST, "mariadb", {**HONEST["mariadb"], "innodb-flush-log-at-trx-commit": how})
    return list(told)


@pytest.mark.parametrize("server", ["mariadb"], indirect=True)
def test_both_ways_in_which_mariadb_flushes_each_commit_are_well(
    tmp_path: Path, flushing: list[str], server: OwnServer
) -> None:
    there = place(tmp_path, server.database().url)
    open_store(there, ManualClock(), EvenChance()).close()

    assert [what.partition(":")[0] for what in found(there)] == flushing


def test_commits_that_wait_for_no_replica_are_told_though_one_is_named(tmp_path: Path, housing: Housing) -> None:
    with housing("postgresql") as folder:
        pair = Pair(folder)
        try:
            there = place(tmp_path, pair.database.url)
            open_store(there, ManualClock(), EvenChance()).close()
            with connected(there) as connection:
                connection.exec_driver_sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
                connection.exec_driver_sql("SELECT pg_reload_conf()")
            until(lambda: pair.ask("SHOW synchronous_standby_names") == "*")

            assert any("1 replica may lag behind" in what for what in found(there))
        finally:
            pair.close()


@pytest.fixture
def overturning(strict: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """MariaDB ends whole transactions for the sake of one row."""
    monkeypatch.setitem(HONEST, "mariadb", {**HONEST["mariadb"], "innodb-rollback-on-timeout": "ON"})


@pytest.mark.parametrize("server", ["mariadb"], indirect=True)
def test_a_server_that_undoes_more_than_what_is_locked_is_told(
    tmp_path: Path, overturning: None, server: OwnServer
) -> None:
    root = folder(tmp_path, "a", server.database())
    assert command(root, "add", "hold").returncode == 0
    told = [line for line in command(root, "doctor").stdout.splitlines() if " server: " in line]

    assert len(told) == 1
    assert "innodb_rollback_on_timeout is on" in told[0]


@pytest.mark.only_on("mariadb")
def test_a_server_that_only_finds_torn_pages_is_told(
    bench: Bench, here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.add()
    # Of MySQL, as of 8.0.30.
    settings = mysql_weaknesses._SETTINGS.replace("@@innodb_doublewrite", "'DETECT_ONLY'")
    monkeypatch.setattr(mysql_weaknesses, "_SETTINGS", settings)

    assert any(what.startswith("innodb_doublewrite is DETECT_ONLY: a crash") for what in found(here))


@pytest.fixture
def logging(strict: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """MariaDB has what replicas read."""
    monkeypatch.setitem(HONEST, "mariadb", {**STRICT["mariadb"], "log-bin": "log", "sync-binlog": "1"})


@contextmanager
def replica(there: Place) -> Iterator[None]:
    """Somebody reads the log of the server, and waits for more."""
    with closing(pymysql.connect(unix_socket=str(there.url.query["unix_socket"]), user="root")) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SET @master_binlog_checksum = 'NONE', @mariadb_slave_capability = 4")
        driver: Any = connection
        driver._execute_command(COMMAND.COM_BINLOG_DUMP, struct.pack("<IHI", 4, 0, 77))
        with connected(there) as other:
            dumping = "SELECT count(*) FROM information_schema.processlist WHERE command = 'Binlog Dump'"
            until(lambda: other.exec_driver_sql(dumping).scalar() == 1)
        yield


@pytest.mark.parametrize("server", ["mariadb"], indirect=True)
def test_only_where_the_primary_waits_for_replicas_they_do_not_lag_behind(
    tmp_path: Path, logging: None, server: OwnServer
) -> None:
    there = place(tmp_path, server.database().url)
    open_store(there, ManualClock(), EvenChance()).close()
    told = []
    with replica(there), connected(there) as connection:
        for side in ("slave", "master"):
            connection.exec_driver_sql(f"SET GLOBAL rpl_semi_sync_{side}_enabled = ON")
            told.append(["replica" in what for what in found(there)])

    assert told == [[True], []]


@pytest.mark.only_on("postgresql")
def test_what_is_set_for_this_database_alone_counts(bench: Bench, here: Place) -> None:
    bench.add()
    with connected(here) as connection:
        name = connection.engine.url.database
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET synchronous_commit = on")

    assert not any("synchronous_commit" in what for what in found(here))


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_transaction_that_is_left_open_is_told(bench: Bench, here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.add()
    monkeypatch.setattr(weaknesses, "LONG", 0)
    with connected(here) as connection:
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql("SELECT * FROM yaotask_jobs").all()
        told = [what for what in found(here) if "has been open" in what]

    assert len(told) == 1
    assert told[0].endswith("has been open for 0 minutes: no dead row can be removed, and claims get slower")


@pytest.mark.only_on("postgresql")
def test_a_vacuum_is_no_transaction_that_was_left_open(
    bench: Bench, here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.add(1_000)
    monkeypatch.setattr(weaknesses, "LONG", 0)
    with connected(here) as connection, connected(here) as other:
        connection.exec_driver_sql("SET vacuum_cost_delay = 100; SET vacuum_cost_limit = 1")
        session = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        slow = threading.Thread(target=lambda: ended(connection, "VACUUM yaotask_jobs"))
        slow.start()
        until(lambda: other.exec_driver_sql("SELECT pid FROM pg_stat_progress_vacuum").scalar() == session)
        told = [what for what in found(here) if "has been open" in what]
        other.exec_driver_sql("SELECT pg_cancel_backend(pid) FROM pg_stat_progress_vacuum")
        slow.join()

    assert told == []


def ended(connection: Connection, statement: str) -> None:
    """Let it run until somebody ends it."""
    with pytest.raises(OperationalError, match="canceling"):
        connection.exec_driver_sql(statement)


@pytest.mark.only_on("postgresql", "mariadb")
def test_connections_that_run_out_are_told(bench: Bench, here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.add()
    monkeypatch.setattr(weaknesses, "MANY", 0.0)

    assert any("of 200 connections are in use" in what for what in found(here))


@pytest.mark.only_on("postgresql")
def test_dead_rows_that_stay_are_told(bench: Bench, here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weaknesses, "USUAL_DEAD", 0)
    bench.add(20)
    for claim in bench.claim(20):
        bench.finish(claim)
    bench.store.close()
    with connected(here) as connection:
        connection.exec_driver_sql("DELETE FROM yaotask_jobs")
        connection.exec_driver_sql("SELECT pg_stat_force_next_flush()")

    assert any("vacuum does not keep up" in what for what in found(here))


@pytest.fixture
def nobody(here: Place, bench: Bench) -> Iterator[Place]:
    """The store as a user has it who may use its tables and see nothing else."""
    bench.add()
    with connected(here) as connection:
        connection.exec_driver_sql("CREATE USER plain@localhost IDENTIFIED BY 'secret'")
        connection.exec_driver_sql(f"GRANT ALL ON {here.url.database}.* TO plain@localhost")
    url = make_url(here.url).set(username="plain", password="secret")
    yield place(here.state.parent, url.render_as_string(hide_password=False))
    with connected(here) as connection:
        connection.exec_driver_sql("DROP USER plain@localhost")


# Of each server how a new user comes in, how it gets a right, and what lets nobody write, with what is told of that.
USERS: Mapping[str, tuple[str, str, str, str]] = {
    "postgresql": (
        "CREATE ROLE plain LOGIN",
        "GRANT {right} ON ALL TABLES IN SCHEMA public TO plain; GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO plain",
        "ALTER DATABASE {name} SET default_transaction_read_only = on",
        "it can only be read: connect to the primary",
    ),
    "mariadb": (
        "CREATE USER plain@localhost IDENTIFIED BY 'secret'",
        "GRANT {right} ON {name}.* TO plain@localhost",
        "SET GLOBAL read_only = ON",
        "cannot be written",
    ),
}


@pytest.mark.only_on("postgresql")
def test_who_gets_no_new_keys_is_told_what_to_grant(bench: Bench, here: Place) -> None:
    user = f"plain_{here.url.database}"
    url = here.url.set(username=user)
    plain = place(here.state.parent, url.render_as_string(hide_password=False))
    with connected(here) as connection:
        connection.exec_driver_sql(f"CREATE ROLE {user} LOGIN")
        try:
            connection.exec_driver_sql(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {user}")
            told = faults(plain)
            connection.exec_driver_sql("GRANT " + told[0].advice.partition("GRANT ")[2])
            mended = faults(plain)
        finally:
            connection.exec_driver_sql(f"DROP OWNED BY {user}")
            connection.exec_driver_sql(f"DROP ROLE {user}")

    assert [finding.what for finding in told] == [NOTHING]
    assert "yaotask_jobs_key_seq" in told[0].advice
    assert mended == []


@pytest.mark.parametrize("server", list(SERVERS), indirect=True)
def test_who_can_store_nothing_there_is_told_why(tmp_path: Path, server: OwnServer) -> None:
    database = server.database()
    there = place(tmp_path, database.url)
    open_store(there, ManualClock(), EvenChance()).close()
    url = make_url(there.url).set(username="plain", password="secret")
    plain = place(tmp_path, url.render_as_string(hide_password=False))
    user, grant, close, says = USERS[database.kind]
    told = []
    with connected(there) as connection:
        connection.exec_driver_sql(user)
        for right in ("SELECT", "INSERT, UPDATE", "DELETE"):
            connection.exec_driver_sql(grant.format(right=right, name=url.database))
            told.append(faults(plain))
        connection.exec_driver_sql(close.format(name=url.database))
        told.append(faults(plain))

    assert [[finding.what for finding in some] for some in told] == [[NOTHING], [NOTHING], [], [NOTHING]]
    assert all("GRANT" in found.advice for found in (*told[0], *told[1]))
    assert says in told[3][0].advice


def faults(there: Place) -> list[Finding]:
    with checkup.looking(there) as connection:
        assert connection is not None
        return [finding for finding in doctor.server(there, connection) if finding.level == "fault"]


@pytest.mark.only_on("mariadb")
def test_what_a_user_may_not_see_is_said_to_be_unseen(nobody: Place) -> None:
    assert "long transactions could not be looked for: this user has not the right PROCESS" in found(nobody)


@pytest.mark.only_on("postgresql", "mariadb")
def test_doctor_tells_of_it_and_what_to_do(tmp_path: Path, database: Database) -> None:
    root = folder(tmp_path, "a", database)
    assert command(root, "add", "hold").returncode == 0
    told = command(root, "doctor").stdout.splitlines()
    about = [number for number, line in enumerate(told) if line.startswith("warn   server: ")]

    assert len(about) == len(LOOSE[database.kind])
    assert all(told[number + 1].strip().startswith("-> ") for number in about)


def test_replicas_that_nobody_waits_for_are_told() -> None:
    assert weaknesses.asynchronous_replicas(0) == []
    assert weaknesses.asynchronous_replicas(2)[0].what.startswith("2 replicas may lag behind")
