"""Files of a store that the system would not make or write, in our words."""

from __future__ import annotations

import errno

from yaotask.errors import StorageError, StorageFull, StorageUnavailable
from yaotask.processes import why


def failed(what: str, error: OSError, advice: str) -> StorageError:
    """The error for `what` the system refused: StorageFull where there is no room, StorageUnavailable for the rest.

    `advice` is for the rest: a full disk and too many open files have their own.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(f"{what}: {why(error)}; nothing was stored: make room and try again")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return StorageUnavailable(f"{what}: {why(error)}")
    return StorageUnavailable(f"{what}: {why(error)}; {advice}")
