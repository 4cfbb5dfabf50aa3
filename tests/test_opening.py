"""The first use creates a store, once; whatever else is found there is understood or refused with advice."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from store_support import URL, EvenChance, ManualClock, an_add

from yaotask.errors import StorageUnavailable
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


@pytest.fixture
def here(tmp_path: Path) -> Place:
    return place(tmp_path, URL)


@pytest.fixture
def open_here(here: Place) -> Iterator[Callable[..., SqlStore]]:
    opened: list[SqlStore] = []

    def open_(*, upgrade: bool = False) -> SqlStore:
        opened.append(open_store(here, ManualClock(), EvenChance(), upgrade=upgrade))
        return opened[-1]

    yield open_
    for store in opened:
        store.close()


@pytest.fixture
def used(here: Place, open_here: Callable[..., SqlStore]) -> Place:
    """A store that was there before, with a job in it."""
    store = open_here()
    store.run_cycle(Mailbox(adds=[an_add()]))
    store.close()
    return here


def change(database: Path, statement: str) -> None:
    connection = sqlite3.connect(database)
    with connection:
        connection.execute(statement)
    connection.close()


def jobs(store: SqlStore) -> int:
    with store.reading() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM yaotask_jobs").scalar_one())


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


# --- refusing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "write it as in sqlite:///"),
        ("sqlite://", "memory is not durable"),
        ("sqlite:///:memory:", "memory is not durable"),
        ("postgresql://user:secret@host/db", "postgresql is not supported"),
    ],
)
def test_an_address_that_is_no_file_is_refused(tmp_path: Path, url: str, said: str) -> None:
    with pytest.raises(StorageUnavailable, match=said) as refused:
        place(tmp_path, url)

    assert "secret" not in str(refused.value)


def test_a_newer_schema_is_refused(used: Place, open_here: Callable[..., SqlStore]) -> None:
    change(used.database, "UPDATE yaotask_meta SET value = '99' WHERE name = 'schema'")

    with pytest.raises(StorageUnavailable, match=r"schema 99.*install the newer yaotask"):
        open_here(upgrade=True)


def test_a_foreign_database_is_refused_where_there_was_a_store(used: Place, open_here: Callable[..., SqlStore]) -> None:
    used.database.unlink()
    change(used.database, "CREATE TABLE orders (name TEXT)")

    with pytest.raises(StorageUnavailable, match="holds no yaotask store"):
        open_here()


def test_a_table_of_the_same_name_is_not_taken_for_ours(here: Place, open_here: Callable[..., SqlStore]) -> None:
    here.state.mkdir()
    change(here.database, "CREATE TABLE yaotask_meta (name TEXT, value TEXT)")

    with pytest.raises(StorageUnavailable, match="not ours"):
        open_here()


def test_a_table_of_another_shape_is_not_taken_for_ours(here: Place, open_here: Callable[..., SqlStore]) -> None:
    here.state.mkdir()
    change(here.database, "CREATE TABLE yaotask_meta (a INTEGER)")

    with pytest.raises(StorageUnavailable, match="not ours"):
        open_here()


def test_tables_of_an_application_can_live_beside_ours(here: Place, open_here: Callable[..., SqlStore]) -> None:
    here.state.mkdir()
    change(here.database, "CREATE TABLE orders (name TEXT)")

    assert jobs(open_here()) == 0


def test_a_store_of_another_project_is_refused(used: Place, open_here: Callable[..., SqlStore]) -> None:
    change(used.database, "UPDATE yaotask_meta SET value = 'other' WHERE name = 'store'")

    with pytest.raises(StorageUnavailable, match="another project"):
        open_here()


@pytest.mark.parametrize("left", [None, b""])
def test_a_store_that_was_here_is_never_replaced_by_an_empty_one(
    used: Place, open_here: Callable[..., SqlStore], left: bytes | None
) -> None:
    used.database.unlink()
    if left is not None:
        used.database.write_bytes(left)

    with pytest.raises(StorageUnavailable, match="gone or empty: restore it from a backup"):
        open_here()
    assert used.database.exists() is (left is not None)


def test_an_empty_file_at_the_first_use_becomes_the_store(here: Place, open_here: Callable[..., SqlStore]) -> None:
    here.state.mkdir()
    here.database.touch()

    assert jobs(open_here()) == 0


@pytest.mark.parametrize("content", [b"this is no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5_000])
def test_a_file_that_is_no_database_is_refused_and_left_alone(
    here: Place, open_here: Callable[..., SqlStore], content: bytes
) -> None:
    here.state.mkdir()
    here.database.write_bytes(content)

    with pytest.raises(StorageUnavailable, match="not a sound SQLite database"):
        open_here()
    assert here.database.read_bytes() == content


def test_a_truncated_store_is_refused(used: Place, open_here: Callable[..., SqlStore]) -> None:
    os.truncate(used.database, 6_000)

    with pytest.raises(StorageUnavailable, match="not a sound SQLite database"):
        open_here()


def test_a_network_file_system_is_refused(
    here: Place, open_here: Callable[..., SqlStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "file_system", lambda path: "nfs4")

    with pytest.raises(StorageUnavailable, match=r"network file system .nfs4.*local disk"):
        open_here()
    assert not here.database.exists()


def test_the_file_system_of_a_path_is_told(tmp_path: Path) -> None:
    assert opening.file_system(Path("/proc/self")) == "proc"
    assert opening.file_system(tmp_path) not in opening.NETWORK_FILE_SYSTEMS


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / ".yaotask").write_text("a file in its place")

    with pytest.raises(StorageUnavailable, match=r"\.yaotask"):
        open_store(place(tmp_path, URL), ManualClock(), EvenChance())


def test_a_store_that_cannot_be_written_says_so(used: Place, open_here: Callable[..., SqlStore]) -> None:
    store = open_here()
    store.write(lambda connection: connection.exec_driver_sql("PRAGMA query_only = ON"))

    with pytest.raises(StorageUnavailable, match="cannot be written"):
        store.run_cycle(Mailbox(adds=[an_add()]))


# --- changing the schema -----------------------------------------------------------------------------


@pytest.fixture
def newer(used: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A store that a yaotask with two steps more comes to."""
    now = migrations.CURRENT
    steps = {now + 1: ["CREATE TABLE yaotask_more (a)"], now + 2: ["ALTER TABLE yaotask_more ADD COLUMN b"]}
    monkeypatch.setattr(migrations, "STEPS", steps)
    monkeypatch.setattr(migrations, "CURRENT", now + 2)
    return used


def test_an_older_schema_is_not_changed_by_just_anyone(newer: Place, open_here: Callable[..., SqlStore]) -> None:
    with pytest.raises(StorageUnavailable, match="yaotask db upgrade"):
        open_here()


def test_an_upgrade_takes_the_missing_steps_once(newer: Place, open_here: Callable[..., SqlStore]) -> None:
    open_here(upgrade=True)
    store = open_here(upgrade=True)

    with store.reading() as connection:
        assert connection.exec_driver_sql("SELECT a, b FROM yaotask_more").all() == []
        assert migrations.version(connection) == migrations.CURRENT
    assert jobs(store) == 1


def test_an_upgrade_that_fails_changes_nothing(
    newer: Place, open_here: Callable[..., SqlStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = {**migrations.STEPS, migrations.CURRENT: ["ALTER TABLE nowhere ADD COLUMN b"]}
    monkeypatch.setattr(migrations, "STEPS", steps)
    with pytest.raises(StorageUnavailable, match="nowhere"):
        open_here(upgrade=True)

    connection = sqlite3.connect(newer.database)
    names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master")]
    connection.close()
    assert "yaotask_more" not in names
