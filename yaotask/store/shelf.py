"""What is put off because somebody else's open transaction has a row or a key of it, and when it is tried again."""

from __future__ import annotations

from yaotask.clock import Clock
from yaotask.errors import StorageBusy
from yaotask.store.protocol import Add, Errand, Held, Mailbox

# Seconds between two tries: few at first, more while nothing changes.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0
# How long somebody who asked waits for an answer, and how long the end of a process is put off for the rest.
PATIENCE, HOPE = 10.0, 5.0
_BUSY = "somebody else's open transaction has kept what this needs for too long; nothing was stored, try again"


class Shelf:
    """Keeps what was put off. Belongs to the ledger's thread.

    What somebody waits for is answered with StorageBusy once it was here for too long; all else stays until it is
    written. True while anything is here.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept = Mailbox(hurried=True)
        # The jobs that are held as far as we know.
        self._jobs: frozenset[int] = frozenset()
        self._deadlines: dict[Add | Errand, float] = {}
        self._since = 0.0
        self._next = 0.0
        self._pause = 0.0

    def __bool__(self) -> bool:
        return bool(self._kept)

    def take_due(self, worker: int | None) -> Mailbox:
        """All of it, once its time has come; empty before."""
        if not self or self._clock.monotonic() < self._next:
            return Mailbox()
        return self.take(worker)

    def take(self, worker: int | None = None) -> Mailbox:
        """All of it, to be done in the name of this worker; none of its jobs is waited for."""
        taken, self._kept = self._kept, Mailbox(hurried=True)
        self._jobs = frozenset()
        taken.worker, taken.entered = worker, worker is not None
        return taken

    def keep(self, put_off: Mailbox) -> None:
        """Try what a turn has put off again, after a pause; nothing, where all that was here is written."""
        now = self._clock.monotonic()
        if not self._pause:
            self._since = now
        self._take_in(put_off)
        self._reject_late(now)
        self._pause = min(max(FIRST_PAUSE, self._pause * 2), LONGEST_PAUSE) if self else 0.0
        self._next = now + self._pause

    def divert(self, mailbox: Mailbox) -> None:
        """Take out of a mailbox what is of jobs that are held: it comes after what is here of them."""
        if self._jobs:
            self._take_in(mailbox.take_out(Held(self._jobs)))

    def rest(self) -> float | None:
        """How many seconds nothing need be tried; None: there is nothing."""
        return max(0.0, self._next - self._clock.monotonic()) if self else None

    @property
    def is_hopeful(self) -> bool:
        """Whether something is here that may yet be written soon."""
        return bool(self) and self._clock.monotonic() - self._since < HOPE

    def _take_in(self, more: Mailbox) -> None:
        self._kept.append(more)
        self._jobs |= more.jobs

    def _reject_late(self, now: float) -> None:
        kept = self._kept
        asked: list[Add | Errand] = [*kept.adds, *kept.errands]
        self._deadlines = {one: self._deadlines.get(one, now + PATIENCE) for one in asked}
        late = Held(requests=frozenset(one for one, deadline in self._deadlines.items() if deadline <= now))
        refused = kept.take_out(late)
        for add in refused.adds:
            add.refuse(StorageBusy(_BUSY))
        for errand in refused.errands:
            errand.ticket.reject(StorageBusy(_BUSY))
