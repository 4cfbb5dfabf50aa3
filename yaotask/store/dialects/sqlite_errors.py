"""SQLite's errors in our words, each with what to do."""

from __future__ import annotations

import errno
import os
import resource
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.exc import DBAPIError, IntegrityError

from yaotask.errors import StorageBusy, StorageError, StorageFull, StorageUnavailable
from yaotask.processes import why

_UNSOUND = ("SQLITE_NOTADB", "SQLITE_CORRUPT")


@dataclass(frozen=True, slots=True)
class SqliteErrors:
    """Those of the file `path`. See Errors."""

    path: Path
    of_driver: type[Exception] = sqlite3.Error

    def is_taken_id(self, error: IntegrityError) -> bool:
        return "yaotask_jobs.task, yaotask_jobs.id" in str(error.orig)

    def is_taken_key(self, error: IntegrityError) -> bool:
        return False  # it is looked up in the transaction that has the write lock

    def is_conflict(self, error: DBAPIError) -> bool:
        return False

    def is_held(self, error: DBAPIError) -> bool:
        return False

    def is_forbidden(self, error: DBAPIError) -> bool:
        return False

    def is_unsound(self, error: DBAPIError) -> bool:
        return getattr(error.orig, "sqlite_errorname", "").startswith(_UNSOUND)

    def explain(self, error: BaseException | None) -> StorageError:
        path, name = self.path, getattr(error, "sqlite_errorname", None) or ""
        if name == "SQLITE_BUSY_SNAPSHOT":
            return StorageBusy(f"{path} was written by another process since this transaction read it: begin it again")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return StorageBusy(
                f"{path} is locked by another process, or another connection of this one; nothing was stored, try again"
            )
        if name.startswith("SQLITE_FULL"):
            return StorageFull(f"the disk of {path} is full; nothing was stored: make room and try again")
        most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        if name == "SQLITE_IOERR_WRITE" and most != resource.RLIM_INFINITY:
            # Not in doubt: what could not be written is the last of its transaction.
            return StorageFull(f"{path} may not grow: this process writes no file beyond {most:,} bytes (ulimit -f)")
        if name == "SQLITE_IOERR_SHMSIZE":
            # In doubt where it comes of a commit: what was committed may be in the log already.
            return StorageUnavailable(f"{path} has no room for its -shm file ({error}): make room on its disk")
        if name.startswith("SQLITE_IOERR"):
            return StorageUnavailable(
                f"{path}: its disk refused to read or write ({error}, {name}): see that it has room, for this user too,"
                " and what the system's log says of it"
            )
        if name.startswith(_UNSOUND):
            return StorageUnavailable(f"{path} is not a sound SQLite database ({error}): restore it from a backup")
        if name.startswith("SQLITE_READONLY"):
            return StorageUnavailable(f"{path} cannot be written: give this user write access to it and its folder")
        if name.startswith("SQLITE_CANTOPEN"):
            return StorageUnavailable(f"{path} cannot be opened: {_obstacle(path)}")
        if name == "SQLITE_ERROR" and str(error).startswith("no such table"):
            return StorageUnavailable(
                f"{path}: a table of the store is missing ({error}): the store was moved, or is being moved, see"
                " `yaotask db status`; if it was not, restore it from a backup"
            )
        if isinstance(error, sqlite3.Error):
            return StorageUnavailable(f"{path}: {error}")
        return StorageUnavailable(f"{path} cannot be reached: {error}")


def _obstacle(path: Path) -> str:
    """What keeps SQLite from opening a file, which it does not say."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return why(error)
    return "check that its folder exists and can be written"
