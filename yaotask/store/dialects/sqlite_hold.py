"""The lock of a move on a file: another file beside it, locked as long as this process lives."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from yaotask.store.files import failed

_ADVICE = "a move shows there that it is under way"


class FileHold:
    """See Hold. The file is gone with it, unless the process was killed; it does no harm."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self._handle = handle

    @classmethod
    def take(cls, path: Path) -> FileHold | None:
        """The lock of this file, which is made, as its folder is; None where another process has it.

        Raises StorageUnavailable, or StorageFull, where it cannot be made or locked.
        """
        while True:
            try:
                # As the first use of a store does it, which comes later here.
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise failed(f"{error.filename} cannot be made", error, _ADVICE) from error
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                return None
            except OSError as error:
                os.close(handle)
                raise failed(f"{path} cannot be locked", error, _ADVICE) from error
            hold = cls(path, handle)
            if hold.is_held():
                return hold
            # Whoever had it before has just removed it.
            os.close(handle)

    def is_held(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._handle), os.stat(self.path))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        if self.is_held():
            self.path.unlink()
        os.close(self._handle)
