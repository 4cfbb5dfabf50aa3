"""A file lock that a worker holds for life: whoever finds it free knows that the worker died."""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yaotask.store.files import failed
from yaotask.store.forks import forks

SUFFIX = ".lock"
# Bytes of what a lock may say.
_LONGEST = 100
_ADVICE = "a worker shows there that it lives"


@dataclass(slots=True, weakref_slot=True)
class Lock:
    """A lock file that this process holds until it ends, however it ends.

    A child that it forks does not hold it: it may live on.
    """

    path: Path
    handle: int
    is_ours: bool = True

    @classmethod
    def take(cls, folder: Path, incarnation: str) -> Lock:
        """Make and hold the lock of a new incarnation.

        Raises StorageUnavailable, or StorageFull, where its file cannot be made or locked.
        """
        path = folder / f"{incarnation}{SUFFIX}"
        # It is held before it has its name: whoever looks for locks that nobody holds must not come in between.
        new = path.with_suffix(".new")
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            handle = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise failed(f"{error.filename} cannot be made", error, _ADVICE) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            new.rename(path)
        except OSError as error:
            new.unlink(missing_ok=True)
            os.close(handle)
            raise failed(f"{path} cannot be locked", error, _ADVICE) from error
        lock = cls(path, handle)
        forks.tell(lock)
        return lock

    def tell(self, store: str) -> None:
        """Say in the file in which store rows will tell of it: who looks after another one leaves it alone."""
        # On a full disk it says nothing, and proves as much.
        with suppress(OSError):
            os.pwrite(self.handle, store.encode(), 0)

    def release(self) -> None:
        """Let go: for an ordered end, after everything was handed back."""
        if self.is_ours:
            self.is_ours = False
            self.path.unlink(missing_ok=True)
            os.close(self.handle)

    def abandon(self) -> None:
        """Let go without order: others find it free, and take what was not handed back. Nothing after `release`."""
        if self.is_ours:
            self.is_ours = False
            os.close(self.handle)

    def let_go(self) -> None:
        """See Holder. This process goes on holding it."""

    def begin_anew(self, clean: bool) -> None:
        """See Holder."""
        self.abandon()

    def row(self) -> dict[str, Any]:
        """How others find this lock again, and can tell it from one of the same name."""
        status = os.fstat(self.handle)
        return {
            "lock_path": str(self.path.resolve()),
            "lock_device": status.st_dev,
            "lock_inode": status.st_ino,
            "boot_id": boot_id(),
        }


def boot_id() -> str | None:
    """Which start of this machine we are in, where the system tells."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def is_dead(worker: Any) -> bool:
    """Whether a row of the workers table belongs to a process that has certainly ended.

    Only its very lock proves that, seen here, and free. Machines may share a name, and containers see neither each
    other's files nor processes: of whom no lock is to be seen, the lease decides.
    """
    return _is_lock_free(worker) is True


def is_held(worker: Any) -> bool:
    """Whether the lock that such a row tells of is seen here, and is not free."""
    return _is_lock_free(worker) is False


def _is_lock_free(worker: Any) -> bool | None:
    """None where it is not to be seen."""
    if worker.host != socket.gethostname() or worker.lock_path is None:
        return None
    try:
        handle = os.open(worker.lock_path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _is_free(handle) if _is_lock_of(worker, os.fstat(handle)) else None
    finally:
        os.close(handle)


def unheld(folder: Path) -> dict[Path, str]:
    """The lock files of a folder that nobody holds, because their processes have died, and what each says.

    That is the store it belongs to, or nothing: then it has never come so far as to be entered in one.
    """
    told = {path: _told_by_unheld(path) for path in folder.glob(f"*{SUFFIX}")}
    return {path: store for path, store in told.items() if store is not None}


def _told_by_unheld(path: Path) -> str | None:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.pread(handle, _LONGEST, 0).decode(errors="replace") if _is_free(handle) else None
    finally:
        os.close(handle)


def _is_lock_of(worker: Any, status: os.stat_result) -> bool:
    """Whether a file is the lock that a row tells of; its name alone may be that of a copy."""
    if worker.boot_id is None or worker.boot_id != boot_id():
        # Since the machine was started anew, devices may be numbered in another way.
        return bool(status.st_ino == worker.lock_inode)
    return (status.st_dev, status.st_ino) == (worker.lock_device, worker.lock_inode)


def _is_free(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        # Somebody has it, or the file system has no locks any more.
        return False
    return True
