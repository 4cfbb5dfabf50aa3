"""Leases of a node's processes, renewed where no handler runs; and when those of other nodes may be judged.

A lease ends at a time of the store. Whoever judges must have kept its own without a gap for as long as a lease
lasts: after an outage, a pause or a jump of the clock, everybody gets the time to renew first. And it must have seen
for as long that the other was not renewed: a server that takes over may have lost renewals.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import anyio.to_thread

from yaotask.clock import SECOND, Clock
from yaotask.durations import show
from yaotask.errors import StorageError
from yaotask.store import presence
from yaotask.store.access import Access

log = logging.getLogger(__name__)


class Leases:
    """The leases of one node."""

    def __init__(self, access: Access, clock: Clock, lease: timedelta) -> None:
        self.microseconds = lease // timedelta(microseconds=1)
        self._access = access
        self._clock = clock
        self._lease = lease.total_seconds()
        # Seconds of the monotonic clock: the last renewal, and the first of those without a gap up to now.
        self._renewed: float | None = None
        self._kept_since: float | None = None
        self._held_until = 0.0
        self._offset: float | None = None
        self._jumped = False
        # Since when we see each lease of another: its process, when it was renewed, and its end.
        self._seen: dict[tuple[int, int, int], float] = {}

    async def renew(self, infos: Mapping[int, str]) -> set[int]:
        """Renew the leases of these processes; those that others took for dead meanwhile.

        Raises StorageError.
        """
        return await anyio.to_thread.run_sync(self.renew_in_thread, infos)

    def renew_in_thread(self, infos: Mapping[int, str]) -> set[int]:
        """Like `renew`, for a thread without a loop."""
        # Not by the ledger, which may have to wait for somebody else's transaction.
        with self._noted():
            return self._access.opened.store.write_aside(partial(presence.renew, infos=infos, lease=self.microseconds))

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except StorageError:
            self._kept_since = None
            raise
        now = self._clock.monotonic()
        if self._kept_since is None or self._renewed is None or now - self._renewed > self._lease:
            self._kept_since = now
        self._renewed = now

    def lapsed_before(self, ask: Callable[[], int]) -> int:
        """Leases of others that ended before this time have run out; 0 while we may not judge.

        `ask` for the time of the store, in microseconds since 1970.
        """
        asked = self._clock.monotonic()
        now = ask()
        self._look_at_clock(now, asked)
        moment = self._clock.monotonic()
        if self._renewed is None or moment - self._renewed > self._lease:
            return 0
        if self._kept_since is None or moment - self._kept_since < self._lease or moment < self._held_until:
            return 0
        return now

    def see(self, look: Callable[[], Sequence[Any]]) -> tuple[Sequence[Any], set[int]]:
        """Look at others; and the keys of those whose lease we have seen to stay as it is for as long as it lasts.

        No clock is asked for that but the monotonic one.
        """
        asked = self._clock.monotonic()
        others = look()
        moment, before = self._clock.monotonic(), self._seen
        leases = [(one.key, one.renewed_at, one.expires_at) for one in others if one.expires_at is not None]
        self._seen = {lease: before.get(lease, moment) for lease in leases}
        stay = {key for (key, begin, end), since in self._seen.items() if (asked - since) * SECOND >= end - begin}
        return others, stay

    def take_jump(self) -> bool:
        """Whether the clock of the store has jumped since this was last asked; then our leases want to be renewed."""
        jumped, self._jumped = self._jumped, False
        return jumped

    def _look_at_clock(self, now: int, asked: float) -> None:
        """Judge nobody for the time of a lease after the store's clock has jumped."""
        # How far it is ahead of the monotonic one, which stands still while the machine sleeps: at least, and at most,
        # since nobody knows when it was looked at after it was asked for.
        least, most, before = now / SECOND - self._clock.monotonic(), now / SECOND - asked, self._offset
        offset = self._offset = least if before is None else min(max(before, least), most)
        if before is None or abs(offset - before) <= self._lease / 2:
            return
        self._jumped = True
        self._held_until = self._clock.monotonic() + self._lease
        jump = show(timedelta(seconds=round(abs(offset - before))))
        way = "forward" if offset > before else "back"
        log.warning("the clock has jumped %s by %s: no lease is judged for a while", way, jump)
