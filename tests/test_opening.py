"""The first use creates a store, once; whatever else is found there is understood or refused with advice."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from store_support import URL, EvenChance, ManualClock, an_add, jobs

from yaotask.store import migrations, opening
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
store = open_store(place(Path(sys.argv[1]), "sqlite:///.yaotask/yaotask.db"), SystemClock(), SystemChance())
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


def test_many_processes_at_once_create_one_store(here: Place, tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(5)
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


def test_a_database_elsewhere_gets_its_folder(tmp_path: Path) -> None:
    there = place(tmp_path, "sqlite:///data/deep/jobs.db")
    open_store(there, ManualClock(), EvenChance()).close()

    assert there.database == tmp_path / "data/deep/jobs.db"
    assert there.database.exists()
    assert there.marker == tmp_path / ".yaotask/store"


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    odd = tmp_path / "a?b=c #d %20 ü"
    odd.mkdir()
    open_store(place(odd, URL), ManualClock(), EvenChance()).close()

    assert (odd / ".yaotask" / "yaotask.db").stat().st_size > 0


def test_the_readable_view_names_states(used: Place) -> None:
    connection = sqlite3.connect(used.database)
    row = connection.execute("SELECT job, status FROM yaotask_jobs_readable").fetchone()
    connection.close()

    assert row == ("mail.1", "WAITING")


def test_commits_are_synced(open_here: Callable[..., SqlStore]) -> None:
    store = open_here()

    assert store.write(lambda connection: connection.exec_driver_sql("PRAGMA synchronous").scalar()) == 2
    with store.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    transaction = store.transaction()
    assert transaction.connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    transaction.rollback()
