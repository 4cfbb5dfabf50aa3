"""The events of a job that hooks can hear of, as kinds in the store and as bits of a job's mask."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple


class EventKind(IntEnum):
    """What happened. The value is stored; `bit` is its place in the mask of a job."""

    ADD = 1
    SUCCESS = 2
    ERROR = 3
    RETRY = 4
    CANCEL = 5
    IGNORE = 6

    @property
    def hook(self) -> str:
        """The key under `event:`."""
        return self.name.lower()

    @property
    def bit(self) -> int:
        return 1 << self.value


ADD_BIT = EventKind.ADD.bit
SUCCESS_BIT = EventKind.SUCCESS.bit
ERROR_BIT = EventKind.ERROR.bit
RETRY_BIT = EventKind.RETRY.bit
CANCEL_BIT = EventKind.CANCEL.bit
IGNORE_BIT = EventKind.IGNORE.bit


class Delivery(NamedTuple):
    """One event that this process is to deliver; `tries` counts those before this one, `deaths` the processes that
    died while they had it, perhaps of its hook.
    """

    seq: int
    job: int
    task: str
    id: int
    kind: int
    tries: int
    deaths: int
    data: Any
