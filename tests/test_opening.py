"""The first use creates a store, once; whatever else is found there is understood or refused with advice."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from server_fixtures import Database
from sqlalchemy import create_engine
from sqlalchemy.engine import Connection
from store_support import URL, EvenChance, ManualClock, an_add, behind, file_of, jobs

from yaotask.errors import StorageUnavailable
from yaotask.store import migrations, opening
from yaotask.store.dialects.sqlite_database import SqliteDatabase
from yaotask.store.opening import Place, open_store, place
from yaotask.store.protocol import Mailbox
from yaotask.store.sql import SqlStore

pytest_plugins = ["store_fixtures"]

OPENER = """
import sys
from pathlib import Path
from yaotask.chance import SystemChance
from yaotask.clock import SystemClock
from yaotask.store.opening import open_store, place
from yaotask.store.protocol import Add, Mailbox, NewJob, Ticket
sys.stdin.read()
store = open_store(place(Path(sys.argv[1]), sys.argv[2]), SystemClock(), SystemChance())
ticket = Ticket()
store.run_cycle(Mailbox(adds=[Add("mail", [NewJob("[]", "{}")], 100, 0, ticket)]))
print(*ticket.value)
store.close()
"""


# --- creating --------------------------------------------------------------------------------------


def test_the_first_use_creates_an_empty_store_at_the_current_schema(
    here: Place, open_here: Callable[..., SqlStore]
) -> None:
    store = open_here()

    assert jobs(store) == 0
    with store.reading() as connection:
        assert opening.describe(here, connection)["schema"] == migrations.CURRENT


def test_many_processes_at_once_create_one_store(database: Database, tmp_path: Path) -> None:
    # Those of a server may be on several machines, where they share no file.
    roots = [tmp_path / (str(number) if database.is_server else "project") for number in range(5)]
    for root in roots:
        root.mkdir(exist_ok=True)
    command = [sys.executable, "-c", OPENER]
    processes = [
        subprocess.Popen([*command, str(root), database.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for root in roots
    ]
    for process in processes:  # all are waiting: off they go
        assert process.stdin is not None
        process.stdin.close()
    ids = []
    for process in processes:
        with process:
            assert process.stdout is not None
            ids.append(int(process.stdout.read()))

    assert sorted(ids) == [1, 2, 3, 4, 5]


def test_what_is_opened_again_is_as_it_was(used: Place, open_here: Callable[..., SqlStore]) -> None:
    assert jobs(open_here()) == 1


def test_one_that_stands_still_while_it_looks_keeps_nobody_from_opening(
    used: Place, open_here: Callable[..., SqlStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    look = opening.must_be_current

    def stand_still(connection: Connection) -> None:
        # As another process does that is stopped in here; `flock` is of each opening, and not of the process.
        if not opened:
            opened.append(0)
            with ThreadPoolExecutor(1) as thread:
                opened[0] = thread.submit(lambda: jobs(open_here())).result(20)
        look(connection)

    monkeypatch.setattr(opening, "must_be_current", stand_still)
    open_here()

    assert opened == [1]


@pytest.mark.only_on("sqlite")
def test_nobody_else_can_read_it_whatever_the_umask(here: Place, open_here: Callable[..., SqlStore]) -> None:
    umask = os.umask(0)
    try:
        open_here().run_cycle(Mailbox(adds=[an_add()]))
    finally:
        os.umask(umask)

    assert here.state.stat().st_mode & 0o777 == 0o700
    files = {path.name: path.stat().st_mode & 0o777 for path in here.state.iterdir()}
    assert {"yaotask.db", "yaotask.db-wal", "yaotask.db-shm", "store", "lock"} == set(files)
    assert set(files.values()) == {0o600}


def test_an_empty_file_that_was_there_is_closed_to_others_before_it_is_used(tmp_path: Path) -> None:
    file = tmp_path / "jobs.db"
    file.touch()
    file.chmod(0o644)
    store = open_store(place(tmp_path, f"sqlite:///{file}"), ManualClock(), EvenChance())
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("jobs.db*")}
    store.close()

    assert modes == dict.fromkeys(("jobs.db", "jobs.db-wal", "jobs.db-shm"), 0o600)


def test_a_database_that_holds_something_else_keeps_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "jobs.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE orders (name TEXT)")
    file.chmod(0o640)
    open_store(place(tmp_path, f"sqlite:///{file}"), ManualClock(), EvenChance()).close()

    assert file.stat().st_mode & 0o777 == 0o640


def test_a_database_elsewhere_gets_its_folder(tmp_path: Path) -> None:
    there = place(tmp_path, "sqlite:///data/deep/jobs.db")
    open_store(there, ManualClock(), EvenChance()).close()

    assert file_of(there) == tmp_path / "data/deep/jobs.db"
    assert file_of(there).exists()
    assert there.marker == tmp_path / ".yaotask/store"


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    odd = tmp_path / "a?b=c #d %20 ü"
    odd.mkdir()
    open_store(place(odd, URL), ManualClock(), EvenChance()).close()

    assert (odd / ".yaotask" / "yaotask.db").stat().st_size > 0


def test_the_readable_view_names_states(used: Place) -> None:
    assert behind(used, "SELECT job, status FROM yaotask_jobs_readable") == [("mail.1", "WAITING")]


def test_a_database_that_cannot_have_a_log_is_refused(tmp_path: Path) -> None:
    engine = create_engine("sqlite://")
    begun: list[object] = []
    with engine.connect() as connection, pytest.raises(StorageUnavailable, match="write-ahead log"):
        SqliteDatabase(tmp_path / "yaotask.db").create(connection, begun.append)
    engine.dispose()

    assert begun == []


@pytest.mark.only_on("sqlite")
def test_commits_are_synced(open_here: Callable[..., SqlStore]) -> None:
    store = open_here()

    assert store.write(lambda connection: connection.exec_driver_sql("PRAGMA synchronous").scalar()) == 2
    with store.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    transaction = store.transaction()
    assert transaction.connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    transaction.rollback()
