"""The one door through which time comes in, so that tests and simulations can move it."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

import anyio

MILLISECOND = 1_000
SECOND = 1_000_000

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """Reads the time and waits for it to pass."""

    def now(self) -> int:
        """The wall clock: microseconds since 1970, UTC. It may jump."""
        ...

    def follow(self, moment: int, passed: float) -> None:
        """Go by another clock: it showed `moment`, at most so many seconds ago. From any thread."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; it never goes back."""
        ...

    def pause(self, seconds: float) -> None:
        """Block this thread."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Give way to other tasks of this event loop for so long."""
        ...


class SystemClock:
    """The machine's own time; where several machines share a store, the time of that store."""

    def __init__(self) -> None:
        self._ahead = 0
        self._following = threading.Lock()

    def now(self) -> int:
        return time.time_ns() // 1_000 + self._ahead

    def follow(self, moment: int, passed: float) -> None:
        with self._following:
            # No further than is certain, so that a slow answer changes nothing.
            least = moment - self.now()
            most = least + round(passed * SECOND)
            self._ahead += least if least > 0 else min(most, 0)

    monotonic = staticmethod(time.monotonic)
    pause = staticmethod(time.sleep)
    sleep = staticmethod(anyio.sleep)


def instant(microseconds: int) -> datetime:
    """A stored time as an aware datetime in UTC."""
    return EPOCH + timedelta(microseconds=microseconds)


def rfc3339(microseconds: int | None) -> str | None:
    """A stored time as users read it: `2026-11-22T08:00:00.123456Z`; None stays None."""
    if microseconds is None:
        return None
    # Not by strftime, which writes the year 1 as 1.
    return f"{instant(microseconds).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def microseconds(moment: datetime) -> int:
    """An aware datetime as a stored time. ValueError for a naive one, and for one that UTC has no date for."""
    if moment.utcoffset() is None:
        raise ValueError(f"{moment.isoformat()} has no time zone; write it with an offset, as in 2026-11-22T08:00:00Z")
    try:
        return (moment.astimezone(UTC) - EPOCH) // timedelta(microseconds=1)
    except OverflowError:
        raise ValueError(f"{moment.isoformat()} is out of the calendar in UTC, which has the years 1 to 9999") from None
