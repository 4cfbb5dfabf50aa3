"""A backlog: the claims that were delivered to a pool and have not been started."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue

from yaotask.jobs import Claim


class Backlog:
    """Keeps claims in their order, for slots on the loop or, with `for_threads`, in one queue for theirs."""

    def __init__(self, for_threads: bool) -> None:
        self.delivered = 0
        self.handed_back = 0
        # What slots in threads wait at; None tells one of them to end.
        self.queue: SimpleQueue[Claim | None] = SimpleQueue()
        self._for_threads = for_threads
        # As they come from the ledger's thread, which has no time to read them.
        self._batches: deque[Sequence[Claim]] = deque()
        self._waiting: deque[Claim] = deque()
        self._handing_back = threading.Lock()

    def add(self, claims: Sequence[Claim]) -> None:
        """These have been delivered; called on the ledger's thread."""
        self.delivered += len(claims)
        self._batches.append(claims)

    def unpack(self) -> int:
        """Read the batches that have come; how many claims now wait for slots on the loop.

        The loop and whoever hands back may do so at the same time.
        """
        while True:
            try:
                batch = self._batches.popleft()
            except IndexError:
                return len(self._waiting)
            try:
                claims = list(batch)
            except BaseException:  # for want of memory: they are there still when it is tried again
                self._batches.appendleft(batch)
                raise
            if not self._for_threads:
                self._waiting.extend(claims)
            else:
                for claim in claims:
                    self.queue.put(claim)

    def next(self) -> Claim | None:
        """The claim that a slot on the loop is to run next."""
        if not self._waiting:
            self.unpack()
        try:
            return self._waiting.popleft()
        except IndexError:
            return None

    def hand_back(self, give_back: Callable[[Claim], None]) -> None:
        """Call `give_back` with each claim that was not started; from any thread."""
        with self._handing_back:
            self.unpack()
            for claim in self._unstarted():
                self.handed_back += 1
                give_back(claim)

    def _unstarted(self) -> Iterator[Claim]:
        while (claim := self.next()) is not None:
            yield claim
        while True:
            try:
                queued = self.queue.get_nowait()
            except Empty:
                return
            if queued is None:
                # That was for a slot, which shall end. Nothing comes after it.
                self.queue.put(None)
                return
            yield queued
