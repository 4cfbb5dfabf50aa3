"""A store's file: where it lies, how its tables are made, and whether they are sound."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy.engine import Connection

from yaotask.errors import StorageUnavailable
from yaotask.store.dialects.weaknesses import Unsound, Weakness, damaged
from yaotask.store.direct import execute
from yaotask.store.files import failed
from yaotask.store.mounts import refuse_network

# The first SQLite that has all that our statements use.
OLDEST_SQLITE = (3, 38, 0)
_ADVICE = "nothing is stored any more; stop whoever uses it, put the right file back and start again"

# For people who look into the database by hand: states by name, times as text.
_READABLE_VIEW = """
CREATE VIEW yaotask_jobs_readable AS
SELECT task || '.' || id AS job, task, id,
    CASE state WHEN 0 THEN 'WAITING' WHEN 1 THEN 'RUNNING' WHEN 2 THEN 'SUCCESS' WHEN 3 THEN 'FAILURE'
        WHEN 5 THEN 'RETRYING' WHEN 6 THEN 'CANCELLED' WHEN 7 THEN 'IGNORED' END AS status,
    priority, generation, attempt, losses, fence, worker, args, payload,
    datetime(created_at / 1000000, 'unixepoch') AS created, datetime(run_at / 1000000, 'unixepoch') AS run,
    datetime(started_at / 1000000, 'unixepoch') AS started,
    datetime(finished_at / 1000000, 'unixepoch') AS finished, result, error
FROM yaotask_jobs
"""


class SqliteDatabase:
    """The file `path`. See Database."""

    undoes_tables = True

    def __init__(self, path: Path) -> None:
        self.path = path
        # Device and inode, once they are known.
        self._file: tuple[int, int] | None = None

    def alone(self, connection: Connection) -> AbstractContextManager[object]:
        # A transaction does it.
        return nullcontext()

    def prepare(self) -> None:
        refuse_old_sqlite()
        refuse_network(self.path)

    def must_be_usable(self, connection: Connection) -> None:
        """It is what this Python brings, and holds every text."""

    def is_missing(self) -> bool:
        try:
            return not self.path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError as error:
            raise StorageUnavailable(
                f"{self.path} cannot be reached: {error.strerror}; let this user into its folder and all above it"
            ) from error

    def make(self) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                _close_to_others(handle)
            finally:
                os.close(handle)
        except OSError as error:
            advice = "the store lies there: give this user write access to that folder, or correct `store`"
            raise failed(f"{error.filename} cannot be made", error, advice) from error

    def must_be_in_place(self) -> None:
        # SQLite goes on with a file that was removed, and whatever is written there is lost with it.
        try:
            status = os.stat(self.path)
        except OSError as error:
            raise StorageUnavailable(f"{self.path} is gone while it is in use ({error.strerror}): {_ADVICE}") from error
        found = (status.st_dev, status.st_ino)
        self._file = self._file or found
        if found != self._file:
            raise StorageUnavailable(f"{self.path} was replaced while it is in use: {_ADVICE}")
        if not status.st_size:
            # SQLite would begin a new database in it.
            raise StorageUnavailable(f"{self.path} was emptied while it is in use: {_ADVICE}")

    def create(self, connection: Connection, fill: Callable[[Connection], None]) -> None:
        self._keep_a_log(connection)
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            fill(connection)
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise
        connection.exec_driver_sql("COMMIT")

    def _keep_a_log(self, connection: Connection) -> None:
        """Once and for all: the file remembers it."""
        # All of the answer is read, because SQLite writes after it, and an error of that would come to nobody.
        ((mode,),) = connection.exec_driver_sql("PRAGMA journal_mode = WAL").all()
        if mode != "wal":
            raise StorageUnavailable(
                f"{self.path} cannot have a write-ahead log, without which readers and writers block each other:"
                " keep it on another file system"
            )

    def left_over(self, connection: Connection) -> Sequence[str]:
        # A transaction leaves nothing.
        return ()

    def furnish(self, connection: Connection) -> None:
        connection.exec_driver_sql(_READABLE_VIEW)

    def set_counters(self, connection: Connection) -> None:
        """They go on by themselves."""

    def analyze(self, connection: Connection, table: str) -> None:
        """It plans our statements without, and would never learn what changed since."""

    def facts(self, connection: Connection) -> dict[str, Any]:
        files = [self.path, *(self.path.with_name(self.path.name + end) for end in ("-wal", "-shm"))]
        size = sum(file.stat().st_size for file in files if file.exists())
        return {"bytes": size, "engine": f"SQLite {sqlite3.sqlite_version}"}

    def fault(self, connection: Connection, tables: Sequence[str] | None) -> Unsound | None:
        checks = ["PRAGMA quick_check(1)"] if tables is None else [f"PRAGMA quick_check({table})" for table in tables]
        found = (str(execute(connection, check).scalar()) for check in checks)
        return next((damaged(fault) for fault in found if fault != "ok"), None)

    def must_be_writable(self, connection: Connection) -> None:
        """Whether it can be is seen by the modes of its file."""

    def weaknesses(self, connection: Connection) -> Sequence[Weakness]:
        # Each connection of ours asks for what it needs.
        return ()


def _close_to_others(handle: int) -> None:
    """Let nobody else read what comes into an empty file of ours that was there already, whatever its mode.

    What SQLite makes beside it takes over its mode.
    """
    status = os.fstat(handle)
    is_open = stat.S_ISREG(status.st_mode) and status.st_mode & 0o077
    if is_open and not status.st_size and status.st_uid == os.geteuid():
        os.fchmod(handle, 0o600)


def refuse_old_sqlite() -> None:
    """Raises StorageUnavailable where this Python's SQLite lacks what our statements use."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        needed = ".".join(map(str, OLDEST_SQLITE))
        raise StorageUnavailable(
            f"this Python has SQLite {sqlite3.sqlite_version}, yaotask needs {needed} or newer: use another Python"
        )
