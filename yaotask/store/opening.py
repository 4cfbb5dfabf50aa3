"""Opening a store: what is there is understood or refused, what is not there is made, once."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import inspect
from sqlalchemy.engine import Connection
from sqlalchemy.engine.url import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from yaotask.chance import Chance
from yaotask.clock import Clock
from yaotask.errors import StorageUnavailable
from yaotask.store import migrations
from yaotask.store.dialects.sqlite import SqliteDialect, explain
from yaotask.store.forks import forks
from yaotask.store.sql import SqlStore

# On these, locks and shared memory between processes do not work as SQLite needs them.
NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs"}
)


# The first SQLite that has all that our statements use.
OLDEST_SQLITE = (3, 38, 0)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a project keeps its state: the database, and the folder with the files beside it."""

    database: Path
    state: Path

    @property
    def marker(self) -> Path:
        """Holds the id of the store that belongs here, so that a lost database is not taken for a new one."""
        return self.state / "store"


def place(root: Path, url: str) -> Place:
    """Where the store of a project is. Raises StorageUnavailable for a database that is not supported."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StorageUnavailable(
            "store: not a database address; write it as in sqlite:///.yaotask/yaotask.db"
        ) from error
    if parsed.get_backend_name() != "sqlite":
        raise StorageUnavailable(
            f"store: {parsed.get_backend_name()} is not supported by this version; use sqlite:///PATH"
        )
    if not parsed.database or parsed.database == ":memory:":
        raise StorageUnavailable("store: give a file, as in sqlite:///.yaotask/yaotask.db; memory is not durable")
    return Place(root / parsed.database, root / ".yaotask")


def open_store(place: Place, clock: Clock, chance: Chance, *, upgrade: bool = False) -> SqlStore:
    """The store of a place, created empty at its first use.

    With `upgrade` an older schema is brought to the current one; without it, it is refused. Raises
    StorageUnavailable for what is newer, foreign, missing though it was here, or on a network drive.
    """
    _refuse_old_sqlite()
    _make_folders(place)
    _refuse_network(place.database)
    store = SqlStore(SqliteDialect(place.database), clock, chance)
    try:
        with forks.held_off(), _locked(place.state):
            _check_or_create(place, store, chance, upgrade)
            store.dialect.must_be_in_place()
    except DBAPIError as error:
        store.close()
        raise explain(error.orig, place.database) from error
    except BaseException:
        store.close()
        raise
    return store


def _refuse_old_sqlite() -> None:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        needed = ".".join(map(str, OLDEST_SQLITE))
        raise StorageUnavailable(
            f"this Python has SQLite {sqlite3.sqlite_version}, yaotask needs {needed} or newer: use another Python"
        )


def _make_folders(place: Place) -> None:
    try:
        for folder in (place.state, place.database.parent):
            if not folder.exists():
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageUnavailable(
            f"{error.filename} cannot be made: {error.strerror}; yaotask keeps its state there"
        ) from error


@contextlib.contextmanager
def _locked(state: Path) -> Iterator[None]:
    """One process at a time looks and creates."""
    try:
        handle = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageUnavailable(
            f"{state} cannot be written: {error.strerror}; yaotask keeps its state there"
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _check_or_create(place: Place, store: SqlStore, chance: Chance, upgrade: bool) -> None:
    known = _known(place)
    missing = not place.database.exists() or place.database.stat().st_size == 0
    if missing and known:
        raise StorageUnavailable(
            f"{place.database} was here and is gone or empty: restore it from a backup,"
            f" or delete {place.marker} to begin with an empty store"
        )
    if missing:
        _touch_private(place.database)
    with store.readers.connect() as connection:
        if not inspect(connection).has_table("yaotask_meta"):
            _create(place, connection, known, chance)
        _check(place, connection, known, upgrade)


def _known(place: Place) -> str | None:
    """The id of the store that belongs here, where there was one already."""
    try:
        return place.marker.read_text(encoding="ascii", errors="backslashreplace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageUnavailable(
            f"{place.marker} cannot be read: {error.strerror}; it holds the id of the store that belongs here"
        ) from error


def _touch_private(path: Path) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _create(place: Place, connection: Connection, known: str | None, chance: Chance) -> None:
    if known:
        raise StorageUnavailable(
            f"{place.database} holds no yaotask store, but this project had one: restore the right file,"
            f" or delete {place.marker} to begin with an empty store"
        )
    connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        migrations.create(connection, chance.uuid())
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise
    connection.exec_driver_sql("COMMIT")


def _check(place: Place, connection: Connection, known: str | None, upgrade: bool) -> None:
    columns = {column["name"] for column in inspect(connection).get_columns("yaotask_meta")}
    found = migrations.store_id(connection) if {"name", "value"} <= columns else None
    if found is None:
        raise StorageUnavailable(f"{place.database} has a table yaotask_meta that is not ours: choose another database")
    if known and known != found:
        raise StorageUnavailable(
            f"{place.database} is the store of another project (id {found}, expected {known}): restore the right file,"
            f" or delete {place.marker} to adopt this one"
        )
    version = migrations.version(connection)
    if version < migrations.CURRENT and not upgrade:
        raise StorageUnavailable(
            f"the store is at schema {version}, this yaotask needs {migrations.CURRENT}: stop its nodes, then run"
            " `yaotask db upgrade`"
        )
    if version < migrations.CURRENT:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        migrations.upgrade(connection)
        connection.exec_driver_sql("COMMIT")
    if not known:
        _touch_private(place.marker)
        place.marker.write_text(found + "\n")


def _refuse_network(path: Path) -> None:
    kind = file_system(path.resolve())
    if kind in NETWORK_FILE_SYSTEMS:
        raise StorageUnavailable(
            f"{path} is on a network file system ({kind}), where SQLite may lose data: put it on a local disk"
        )


def file_system(path: Path) -> str | None:
    """The kind of file system that holds a path, where the system tells."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    best, kind = "", None
    for line in mounts:
        fields = line.split(" ")
        point = fields[1].encode().decode("unicode_escape")
        if len(point) >= len(best) and path.is_relative_to(point):
            best, kind = point, fields[2]
    return kind


def describe(place: Place, connection: Connection) -> dict[str, object]:
    """What `db status` shows of a store."""
    files = [place.database, *(place.database.with_name(place.database.name + end) for end in ("-wal", "-shm"))]
    return {
        "store": f"sqlite:///{place.database}",
        "schema": migrations.version(connection),
        "current_schema": migrations.CURRENT,
        "store_id": migrations.store_id(connection),
        "bytes": sum(file.stat().st_size for file in files if file.exists()),
        "engine": f"SQLite {sqlite3.sqlite_version}",
    }
