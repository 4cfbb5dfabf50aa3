"""What is no store of ours, or no store any more, is refused with advice and left as it is."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import inspect, make_url
from store_support import URL, EvenChance, ManualClock, an_add, change, connected, file_of, jobs

from yaotask.errors import StorageBusy, StorageFull, StorageUnavailable
from yaotask.store import migrations, mounts, opening, tables
from yaotask.store.dialects.sqlite_hold import FileHold
from yaotask.store.opening import Place, open_store, place
from yaotask.store.protocol import Mailbox
from yaotask.store.sql import SqlStore

pytest_plugins = ["store_fixtures"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "write it as in sqlite:///"),
        ("sqlite://", "memory is not durable"),
        ("sqlite:///:memory:", "memory is not durable"),
        ("oracle://user:secret@host/db", "oracle is not supported"),
        ("postgresql://user:p@w:secret@host/db", "in the password are %40"),
        ("postgresql://user:p@secret@host/db", "in the password are %40"),
        ("mysql://user:secret@host:33o6/db", "not a database address"),
        ("mysql://user:secret@host:99999/db", "not a database address"),
    ],
)
def test_an_address_that_is_no_file_is_refused(tmp_path: Path, url: str, said: str) -> None:
    with pytest.raises(StorageUnavailable, match=said) as refused:
        place(tmp_path, url)

    assert "secret" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("postgres://me:pw@host:1/db?sslmode=require", "postgresql://me:pw@host:1/db?sslmode=require"),
        ("postgres+psycopg://host/db", "postgresql+psycopg://host/db"),
        ("postgresql:///?host=here&dbname=db", "postgresql:///db?host=here"),
        ("postgresql://host/db?dbname=other", "postgresql://host/db?dbname=other"),
        ("postgresql://me:p%40w@%2Fvar%2Frun:5433/db", "postgresql://me:p%40w@/db?host=%2Fvar%2Frun&port=5433"),
        ("postgresql://%2fvar%2frun/db", "postgresql:///db?host=%2Fvar%2Frun"),
        ("mysql://host/db", "mysql://host/db"),
    ],
)
def test_an_address_may_be_written_as_others_write_it(tmp_path: Path, written: str, meant: str) -> None:
    assert place(tmp_path, written).url == make_url(meant)


def test_a_newer_schema_is_refused(used: Place, open_here: Callable[..., SqlStore]) -> None:
    change(used, "UPDATE yaotask_meta SET value = '99' WHERE name = 'schema'")

    with pytest.raises(StorageUnavailable, match=r"schema 99.*install the newer yaotask"):
        open_here(upgrade=True)


def test_a_foreign_database_is_refused_where_there_was_a_store(used: Place, open_here: Callable[..., SqlStore]) -> None:
    with connected(used) as connection:
        connection.exec_driver_sql("DROP VIEW yaotask_jobs_readable")
        tables.metadata.drop_all(connection)
    change(used, "CREATE TABLE orders (name TEXT)")

    with pytest.raises(StorageUnavailable, match="holds no yaotask store"):
        open_here()


@pytest.mark.only_on("sqlite", "postgresql")
def test_a_table_of_the_same_name_is_not_taken_for_ours(here: Place, open_here: Callable[..., SqlStore]) -> None:
    here.state.mkdir()
    change(here, "CREATE TABLE yaotask_meta (name TEXT, value TEXT)")

    with pytest.raises(StorageUnavailable, match="not ours"):
        open_here()


def test_a_table_of_another_shape_is_not_taken_for_ours(here: Place, open_here: Callable[..., SqlStore]) -> None:
    here.state.mkdir()
    change(here, "CREATE TABLE yaotask_meta (a INTEGER)")

    with pytest.raises(StorageUnavailable, match="not ours"):
        open_here()


def test_tables_of_an_application_can_live_beside_ours(here: Place, open_here: Callable[..., SqlStore]) -> None:
    here.state.mkdir()
    change(here, "CREATE TABLE orders (name TEXT)")

    assert jobs(open_here()) == 0


def test_a_store_of_another_project_is_refused(used: Place, open_here: Callable[..., SqlStore]) -> None:
    change(used, "UPDATE yaotask_meta SET value = 'other' WHERE name = 'store'")

    with pytest.raises(StorageUnavailable, match="another project"):
        open_here()


@pytest.mark.parametrize("left", [None, b""])
@pytest.mark.only_on("sqlite")
def test_a_store_that_was_here_is_never_replaced_by_an_empty_one(
    used: Place, open_here: Callable[..., SqlStore], left: bytes | None
) -> None:
    file_of(used).unlink()
    if left is not None:
        file_of(used).write_bytes(left)

    with pytest.raises(StorageUnavailable, match=r"not there, or empty, .*restore it from a backup"):
        open_here()
    assert file_of(used).exists() is (left is not None)


@pytest.mark.only_on("sqlite")
def test_a_path_with_a_slip_is_not_made(used: Place) -> None:
    slip = place(used.state.parent, "sqlite:///elswhere/jobs.db")
    with pytest.raises(StorageUnavailable, match="correct `store` if it is elsewhere"):
        open_store(slip, ManualClock(), EvenChance())

    assert not file_of(slip).parent.exists()


@pytest.mark.parametrize(("text", "said"), [(b"\xff\xfe", "is the store of another project"), (None, "cannot be read")])
def test_a_marker_that_says_nothing_is_refused(
    used: Place, open_here: Callable[..., SqlStore], text: bytes | None, said: str
) -> None:
    used.marker.unlink()
    if text is None:
        used.marker.mkdir()
    else:
        used.marker.write_bytes(text)

    with pytest.raises(StorageUnavailable, match=said):
        open_here()


@pytest.mark.only_on("sqlite")
def test_an_empty_file_at_the_first_use_becomes_the_store(here: Place, open_here: Callable[..., SqlStore]) -> None:
    here.state.mkdir()
    file_of(here).touch()

    assert jobs(open_here()) == 0


@pytest.mark.parametrize("content", [b"this is no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5_000])
@pytest.mark.only_on("sqlite")
def test_a_file_that_is_no_database_is_refused_and_left_alone(
    here: Place, open_here: Callable[..., SqlStore], content: bytes
) -> None:
    here.state.mkdir()
    file_of(here).write_bytes(content)

    with pytest.raises(StorageUnavailable, match="not a sound SQLite database"):
        open_here()
    assert file_of(here).read_bytes() == content


@pytest.mark.only_on("sqlite")
def test_a_truncated_store_is_refused(used: Place, open_here: Callable[..., SqlStore]) -> None:
    os.truncate(file_of(used), 6_000)

    with pytest.raises(StorageUnavailable, match="not a sound SQLite database"):
        open_here()


@pytest.mark.only_on("sqlite")
def test_a_network_file_system_is_refused(
    here: Place, open_here: Callable[..., SqlStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "file_system", lambda path: "nfs4")

    with pytest.raises(StorageUnavailable, match=r"network file system .nfs4.*local disk"):
        open_here()
    assert not file_of(here).exists()


@pytest.mark.only_on("sqlite")
def test_an_sqlite_that_is_too_old_is_refused(
    here: Place, open_here: Callable[..., SqlStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 37, 2))

    with pytest.raises(StorageUnavailable, match=r"needs 3\.38\.0 or newer"):
        open_here()


def test_the_file_system_of_a_path_is_told(tmp_path: Path) -> None:
    assert mounts.file_system(Path("/proc/self")) == "proc"
    assert mounts.file_system(tmp_path) not in mounts.NETWORK_FILE_SYSTEMS


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / ".yaotask").write_text("a file in its place")

    with pytest.raises(StorageUnavailable, match=r"\.yaotask"):
        open_store(place(tmp_path, URL), ManualClock(), EvenChance())


@pytest.mark.parametrize(
    ("name", "said"), [("yaotask.db", "made: .*; the store lies there: .*correct `store`"), ("store", "written")]
)
def test_a_file_that_cannot_be_made_is_named(tmp_path: Path, name: str, said: str) -> None:
    state = tmp_path / ".yaotask"
    state.mkdir()
    (state / name).symlink_to(tmp_path / "nowhere" / "file")

    with pytest.raises(StorageUnavailable, match=rf"\.yaotask/{name} cannot be {said}"):
        open_store(place(tmp_path, URL), ManualClock(), EvenChance())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("name", ["lock", "yaotask.db", "store"])
def test_a_disk_without_room_for_a_file_is_said_to_be_full_and_then_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    here = place(tmp_path, URL)
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refusing(here.state / name, code))
        with pytest.raises(StorageFull, match=r"nothing was stored: make room"):
            open_store(here, ManualClock(), EvenChance())
    open_store(here, ManualClock(), EvenChance()).close()

    assert here.marker.read_text().strip()


def test_a_file_system_without_locks_is_said_to_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(StorageUnavailable, match=r"\.yaotask/lock cannot be locked: No locks available; yaotask keeps"):
        open_store(place(tmp_path, URL), ManualClock(), EvenChance())
    with pytest.raises(StorageUnavailable, match=r"/hold cannot be locked: No locks available; a move shows there"):
        FileHold.take(tmp_path / "hold")

    assert len(os.listdir("/dev/fd")) == before


def refusing(refused: Path, code: int) -> Callable[..., int]:
    """`os.open` for a system that would not make this file."""
    allow = os.open

    def refuse(path: Path, *more: int) -> int:
        if Path(path) == refused:
            raise OSError(code, os.strerror(code), str(path))
        return allow(path, *more)

    return refuse


@pytest.mark.only_on("sqlite")
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
    steps = {
        now + 1: ["CREATE TABLE yaotask_more (a INTEGER)"],
        now + 2: ["ALTER TABLE yaotask_more ADD COLUMN b INTEGER"],
    }
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


@pytest.mark.parametrize("is_half_done", [False, True])
def test_the_last_step_is_taken_on_each_database(
    used: Place, open_here: Callable[..., SqlStore], is_half_done: bool
) -> None:
    with connected(used) as connection:
        if not is_half_done:
            connection.exec_driver_sql("ALTER TABLE yaotask_events DROP COLUMN deaths")
        connection.exec_driver_sql("UPDATE yaotask_meta SET value = '3' WHERE name = 'schema'")
    store = open_here(upgrade=True)

    with store.reading() as connection:
        assert migrations.version(connection) == migrations.CURRENT
        assert connection.exec_driver_sql("SELECT count(deaths) FROM yaotask_events").scalar() == 0


@pytest.mark.only_on("postgresql", "mariadb")
@pytest.mark.timeout(30)
def test_an_upgrade_does_not_wait_long_for_a_session_that_stays(
    used: Place, open_here: Callable[..., SqlStore]
) -> None:
    found_by = {"postgresql": "pg_stat_activity", "mysql": "information_schema.innodb_trx"}
    with connected(used) as connection:
        connection.exec_driver_sql("ALTER TABLE yaotask_events DROP COLUMN deaths")
        connection.exec_driver_sql("UPDATE yaotask_meta SET value = '3' WHERE name = 'schema'")
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql("SELECT * FROM yaotask_events").all()
        with pytest.raises(StorageBusy, match=r"another session keeps a row or a table locked.*try again") as refused:
            open_here(upgrade=True)
        connection.exec_driver_sql("ROLLBACK")

    assert found_by[used.dialect().name] in str(refused.value)
    assert jobs(open_here(upgrade=True)) == 1


def test_two_that_upgrade_at_once_both_come_to_it(newer: Place, open_here: Callable[..., SqlStore]) -> None:
    start, failed = threading.Barrier(2), []

    def upgrade() -> None:
        start.wait()
        try:
            with connected(newer) as connection:
                opening._upgrade(newer.dialect(), connection)
        except Exception as error:  # noqa: BLE001 - the test says which
            failed.append(error)

    both = [threading.Thread(target=upgrade) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()

    assert failed == []
    assert jobs(open_here()) == 1


@pytest.mark.only_on("sqlite", "postgresql")
def test_an_upgrade_that_fails_changes_nothing(
    newer: Place, open_here: Callable[..., SqlStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = {**migrations.STEPS, migrations.CURRENT: ["ALTER TABLE nowhere ADD COLUMN b INTEGER"]}
    monkeypatch.setattr(migrations, "STEPS", steps)
    with pytest.raises(StorageUnavailable, match="nowhere"):
        open_here(upgrade=True)

    with connected(newer) as connection:
        assert not inspect(connection).has_table("yaotask_more")
